"""SimCLR end to end, ours against lightly's loop with 2 workers: same encoder, head, loss, optimiser and batch (256).

Images a second at two widths, in turns within one run; then kNN accuracy after the same images seen, three seeds.
Lightly is needed for this benchmark only: pip install lightly==1.6.0
"""

import json
import statistics
import tempfile
from pathlib import Path

from bench import common
from selfsup import errors
from selfsup.training import setup

STEPS, ROUNDS = 40, 3
TARGET = {32: 2.1, 16: 3.5}
IMAGES, SEEDS = 51200, (0, 1, 2)


class Lightly(common.Theirs):
    """lightly's loss on the encoder and the projector that ours starts from as well."""

    def __init__(self, run, seed, card):
        from lightly.loss import NTXentLoss

        super().__init__()
        ours = setup.build(run, seed, card)
        self.encoder, self.projector = ours.encoder, ours.projector
        self.criterion = NTXentLoss(temperature=ours.temperature)

    def forward(self, views, progress):
        return self.criterion(*(self.projector(self.encoder(x)) for x in views))


@errors.main
def main():
    common.need_lightly()
    shards, split = common.opened()
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)

    def theirs(run, seed=0):
        return common.theirs(Lightly(run, seed, split.card), transform, run, split)

    print(f"SimCLR on {shards.name}, batch {common.BATCH}, images a second (median of {ROUNDS} rounds in turns)")
    result = {"bench": "simclr", "data": shards.name}
    with tempfile.TemporaryDirectory() as scratch:
        for width, target in TARGET.items():
            rates = {"ours": [], "ours bf16": [], "lightly": []}
            for i in range(ROUNDS):
                run = common.run("simclr", width, STEPS * common.BATCH, shards.name)
                half = common.run("simclr", width, STEPS * common.BATCH, shards.name, precision="bf16")
                rates["ours"].append(common.ours(run, shards, Path(scratch, f"{width}-{i}"))[0])
                rates["ours bf16"].append(common.ours(half, shards, Path(scratch, f"{width}-{i}-bf16"))[0])
                rates["lightly"].append(theirs(run)[0])
            median = {name: statistics.median(values) for name, values in rates.items()}
            ratio = median["ours"] / median["lightly"]
            result[f"width {width}"] = {**{k: round(v) for k, v in median.items()}, "ratio": round(ratio, 2)}
            result[f"width {width}"] |= {"ratio bf16": round(median["ours bf16"] / median["lightly"], 2), "target": target}
            print(f"  {width}→{8 * width} channels: {result[f'width {width}']}", flush=True)
        accuracy = {"ours": [], "lightly": []}
        for seed in SEEDS:
            run = common.run("simclr", 32, IMAGES, shards.name)
            accuracy["ours"].append(common.knn(common.ours(run, shards, Path(scratch, f"seed{seed}"), seed)[1], shards))
            accuracy["lightly"].append(common.knn(theirs(run, seed)[1], shards))
            print(f"  kNN after {IMAGES} images, seed {seed}: " + str({k: round(v[-1], 2) for k, v in accuracy.items()}), flush=True)
        result["knn"] = {k: [round(x, 2) for x in v] for k, v in accuracy.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
