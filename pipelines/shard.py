"""shard.py DATASET: turn one entry of `datasets` in params.yaml into tars and a card, data/shards/DATASET."""

import argparse
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors, shards  # noqa: E402


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--params", default="params.yaml")
    args = parser.parse_args()
    datasets = config.load(args.params).datasets
    name = args.dataset
    if name not in datasets:
        raise errors.UserError(f'{args.params}: datasets has no "{name}"{errors.nearest(name, datasets)}')
    card = shards.write(name, datasets[name].model_dump(exclude_none=True), Path("data/shards") / name)
    print(f"{name}: " + ", ".join(f"{count} {split}" for split, count in card["counts"].items()))


if __name__ == "__main__":
    main()
