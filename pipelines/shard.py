"""shard.py DATASET: turn one entry of `datasets` in params.yaml into tars and a card, data/shards/DATASET."""

import argparse
from pathlib import Path

from selfsup import config, errors
from selfsup.data import shards


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--params", default="params.yaml")
    args = parser.parse_args()
    datasets = config.load(args.params).datasets
    if args.dataset not in datasets:
        raise errors.UserError(f'{args.params}: datasets has no "{args.dataset}"{errors.nearest(args.dataset, datasets)}')
    card = shards.write(args.dataset, datasets[args.dataset], Path("data/shards") / args.dataset)
    print(f"{args.dataset}: " + ", ".join(f"{count} {split}" for split, count in card["counts"].items()))


if __name__ == "__main__":
    main()
