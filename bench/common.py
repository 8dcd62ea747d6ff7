"""What the benchmarks that train share: a run of ours, lightly's loop beside it, and how both are judged."""

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader, Dataset

import selfsup
from selfsup import config, data, errors, evals
from selfsup.training import loop, optim, setup

BATCH, SKIP = 256, 8  # images a step; steps before the clock counts
# lightly's CIFAR-10 recipe (SGD 0.06 at batch 128, momentum 0.9, weight decay 5e-4), scaled to the batch, for both sides.
TRAIN = {"batch": BATCH, "optimizer": "sgd", "lr": 0.12, "weight_decay": 5e-4, "warmup": 0.0, "clip": 0.0, "threads": 2,
         "workers": 0, "reader": "resident", "checkpoint_every": 1e9, "precision": "fp32"}  # fmt: skip


def shards():
    """CIFAR-10's shards if they are there, else those of scenes."""
    for name in ("cifar10", "scenes"):
        if Path("data/shards", name, "card.json").exists():
            return Path("data/shards", name)
    raise errors.UserError("no shards to measure on: run `dvc repro shard@scenes`, or make cifar10's")


def photos(folder, count, seed=0):
    """So many JPEGs of 500 x 375 pixels, of quality 85 and all different, in two class folders: crops of the two
    photographs that scikit-learn brings along."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    pictures, generator = [Image.fromarray(pixels) for pixels in load_sample_images().images], np.random.default_rng(seed)
    for i in range(count):
        picture, share = pictures[i % 2], generator.uniform(0.6, 0.99)
        width, height = (side * share for side in picture.size)
        left, top = generator.uniform(0, [picture.width - width, picture.height - height])
        path = folder / "ab"[i % 2] / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        box = (left, top, left + width, top + height)
        picture.resize((500, 375), Image.Resampling.BICUBIC, box=box).save(path, "JPEG", quality=85)


def opened():
    """Folder of shards, their training split in memory; from here on TRAIN's threads for every side."""
    torch.set_num_threads(TRAIN["threads"])
    folder = shards()
    return folder, data.open(folder, "train", reader="resident")


def run(method, width, images, data, args=None, **changes):
    """A run of a method as in the pipeline; changes to TRAIN."""
    settings = config.Train(**TRAIN | changes, images=images)
    encoder = {"name": "convnet", "width": width}
    return config.Run(name=f"bench-{method}", method=method, data=data, seeds=[0], encoder=encoder, args=args or {}, train=settings)


class Clock:
    """Stands where the tracker does: notes when each step is done."""

    def __init__(self):
        self.at = []

    def log(self, rows):
        self.at += [time.perf_counter() for row in rows if "lr" in row]

    def images_per_second(self, skip):
        return BATCH * (len(self.at) - 1 - skip) / (self.at[-1] - self.at[skip])


def ours(run, shards, folder, seed=0):
    """Train by the pipeline's own loop -> images a second, encoder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    clock = Clock()
    accelerator = setup.accelerator(run.train, cpu=True)
    loop.pretrain(run, seed, accelerator, shards, folder / "encoder", folder / "runs", tracker=clock)
    return clock.images_per_second(SKIP), selfsup.load(folder / "encoder")


class Theirs(nn.Module):
    """Base of lightly's sides: has an `encoder`; called with the views and the share of the budget spent, it gives the loss."""

    def param_groups(self):
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]


def theirs(method, transform, run, split):
    """lightly's example loop (its transform and two loader workers) on a `Theirs` -> images a second, encoder."""
    steps = run.train.images // BATCH
    loader = DataLoader(Pictures(split, transform), BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    optimizer, clock, done = optim.build(method, run.train), Clock(), 0
    method.train()
    while done < steps:
        for views in loader:
            optim.set_learning_rate(optimizer, optim.learning_rate(done, steps, run.train))
            loss = method(views, done / steps)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            clock.log([{"lr": 0, "loss": loss.item()}])
            done += 1
            if done == steps:
                break
    encoder = method.encoder.eval()
    # lightly's transforms normalise with ImageNet's statistics, so its encoder is judged on such images.
    encoder.mean, encoder.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return clock.images_per_second(SKIP), encoder


class Pictures(Dataset):
    """As torchvision's CIFAR10: pixels in memory, a PIL image and lightly's transform for each sample."""

    def __init__(self, split, transform):
        self.pixels, self.transform = split.values["image"].permute(0, 2, 3, 1).numpy(), transform

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[i]))


def knn(encoder, shards):
    """Accuracy on test in percent, k chosen on val of lightly's 200 and 20."""
    found = dict(evals.run("knn", encoder, evals.Data(shards), k=[20, 200], temperature=[0.1], bootstrap=100))
    return found["accuracy"]


def need_lightly():
    try:
        import lightly  # noqa: F401
    except ImportError as error:
        raise errors.UserError(f"this benchmark compares with lightly: pip install lightly==1.6.0 ({error})") from error
