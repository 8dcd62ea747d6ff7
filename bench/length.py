"""SimCLR at length: 460,800 images seen at width 16, by ours in float32, ours in bf16 and lightly's loop, three seeds each.

A hundred steps would hide a rate, an average or a rounding that does harm in the long run. Expected: ours not below
lightly's and bf16 not below float32, by kNN and linear on test, within the interval of the differences seed by seed. More
than an hour on two cores, so what is done stays in data/bench/length.jsonl, and the next call goes on from there.
Lightly is needed for this benchmark only: pip install lightly==1.6.0
"""

import json
import tempfile
from pathlib import Path

from bench import common
from bench.simclr import Lightly
from selfsup import errors, evals
from selfsup.intervals import Value

IMAGES, WIDTH, SEEDS = 460_800, 16, (0, 1, 2)
PROTOCOLS = {"knn": {"k": [20, 200], "temperature": [0.1]}, "linear": {"weight_decay": [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]}}
DONE = Path("data/bench/length.jsonl")
PAIRS = (("ours", "lightly"), ("ours bf16", "lightly"), ("ours bf16", "ours"))


def trained(side, seed, shards, split, scratch):
    """Images a second, and an encoder of one of the three sides."""
    run = common.run("simclr", WIDTH, IMAGES, shards.name, precision="bf16" if side == "ours bf16" else "fp32")
    if side != "lightly":
        return common.ours(run, shards, scratch, seed)
    from lightly.transforms import SimCLRTransform

    return common.theirs(Lightly(run, seed, split.card), SimCLRTransform(input_size=32, gaussian_blur=0.0), run, split)


@errors.main
def main():
    common.need_lightly()
    shards, split = common.opened()
    DONE.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []
    found = {(row["side"], row["seed"]): row for row in rows if row["data"] == split.card["hash"] and row["images"] == IMAGES}
    for seed in SEEDS:
        for side in ("ours", "ours bf16", "lightly"):
            if (side, seed) not in found:
                with tempfile.TemporaryDirectory() as scratch:
                    rate, encoder = trained(side, seed, shards, split, Path(scratch))
                row = {"side": side, "seed": seed, "data": split.card["hash"], "images": IMAGES, "rate": round(rate)}
                for protocol, options in PROTOCOLS.items():
                    judged = dict(evals.run(protocol, encoder, evals.Data(shards), bootstrap=100, **options))
                    row[protocol] = round(judged["accuracy"], 2)
                found[side, seed] = row
                with open(DONE, "a") as file:
                    file.write(json.dumps(row) + "\n")
            print({name: found[side, seed][name] for name in ("side", "seed", "rate", *PROTOCOLS)}, flush=True)

    def value(side, protocol):
        return Value({seed: found[side, seed][protocol] for seed in SEEDS}, dict.fromkeys(SEEDS, 0.0))

    result = {"bench": "length", "data": shards.name, "images": IMAGES}
    for protocol in PROTOCOLS:
        for one, other in PAIRS:
            mean, low, high = (value(one, protocol) - value(other, protocol)).interval
            result[f"{protocol}, {one} − {other}"] = [round(number, 2) for number in (mean, low, high)]
            print(f"{protocol}: {one} − {other}: {mean:+.1f} [{low:.1f}, {high:.1f}], {'below' if high < 0 else 'not below'}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
