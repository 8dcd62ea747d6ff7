"""All benchmarks, one after the other: `make bench`, or `python -m bench views` for one of them."""

import argparse
import importlib

from selfsup import errors

ALL = ("views", "reading", "shard", "scale", "simclr", "recipes", "length", "kill")
GPU = "gpu"  # where there is one: not among `all`


@errors.main
def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("which", nargs="*", default=ALL, metavar="BENCH",
                        help=f"of {', '.join(ALL)} (default: all of these), {GPU}")
    for name in parser.parse_args().which:
        if name not in (*ALL, GPU):
            raise errors.UserError(f'there is no benchmark "{name}"{errors.nearest(name, (*ALL, GPU))}')
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
