"""What the benchmarks that train share."""

import time
from pathlib import Path

from selfsup import config, errors

BATCH = 256
# lightly's CIFAR-10 recipe (SGD 0.06 at batch 128, momentum 0.9, weight decay 5e-4), scaled to the batch, for both sides.
TRAIN = {"batch": BATCH, "optimizer": "sgd", "lr": 0.12, "weight_decay": 5e-4, "warmup": 0.0, "clip": 0.0, "threads": 2,
         "workers": 0, "reader": "resident", "checkpoint_every": 1e9}  # fmt: skip


def shards():
    """CIFAR-10's shards if they are there, else those of scenes."""
    for name in ("cifar10", "scenes"):
        if Path("data/shards", name, "card.json").exists():
            return Path("data/shards", name)
    raise errors.UserError("no shards to measure on: run `dvc repro shard@scenes`, or make cifar10's")


def simclr(width, images, data, precision="fp32"):
    """A run of SimCLR as in the pipeline."""
    train = config.Train(**TRAIN, images=images, precision=precision)
    encoder = {"name": "convnet", "width": width}
    return config.Run(name="bench-simclr", method="simclr", data=data, seeds=[0], encoder=encoder, args={}, train=train)


class Clock:
    """Stands where the tracker does: notes when each step is done."""

    def __init__(self):
        self.at = []

    def log(self, rows):
        self.at += [time.perf_counter() for row in rows if "lr" in row]

    def images_per_second(self, skip):
        return BATCH * (len(self.at) - 1 - skip) / (self.at[-1] - self.at[skip])
