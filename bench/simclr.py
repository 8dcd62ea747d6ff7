"""SimCLR end to end, ours against lightly's loop with 2 workers: same encoder, head, loss, optimiser and batch (256).

Images a second at two widths, in turns within one run; then kNN accuracy after the same images seen, three seeds.
Lightly is needed for this benchmark only: pip install lightly==1.6.0
"""

import json
import statistics
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader, Dataset

import selfsup
from bench import common
from selfsup import data, errors, evals, optim, train

STEPS, SKIP, ROUNDS = 40, 8, 3
TARGET = {32: 2.1, 16: 3.5}
IMAGES, SEEDS = 51200, (0, 1, 2)


class Pictures(Dataset):
    """As torchvision's CIFAR10: pixels in memory, a PIL image and lightly's transform for each sample."""

    def __init__(self, split):
        from lightly.transforms import SimCLRTransform

        self.pixels = split.images.permute(0, 2, 3, 1).numpy()
        self.transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[i]))


def ours(run, shards, folder, seed=0):
    """Train by the pipeline's own loop -> images a second, encoder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    clock = common.Clock()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if run.train.precision == "bf16" else "no")
    train.pretrain(run, seed, accelerator, shards, folder / "encoder", folder / "runs", tracker=clock)
    return clock.images_per_second(SKIP), selfsup.load(folder / "encoder")


def theirs(run, split, seed=0):
    """lightly's example loop (its loss, transform and two loader workers) -> images a second, encoder."""
    from lightly.loss import NTXentLoss

    method = train.build(run, seed, split.card)
    steps = run.train.images // common.BATCH
    loader = DataLoader(Pictures(split), common.BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
    criterion, optimizer = NTXentLoss(temperature=method.temperature), optim.build(method, run.train)
    clock, done = common.Clock(), 0
    while done < steps:
        for (x0, x1), *_ in ((views,) for views in loader):
            optim.set_learning_rate(optimizer, optim.learning_rate(done, steps, run.train))
            z0, z1 = (method.projector(method.encoder(x)) for x in (x0, x1))
            loss = criterion(z0, z1)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            clock.log([{"lr": 0, "loss": loss.item()}])
            done += 1
            if done == steps:
                break
    encoder = method.encoder.eval()
    # lightly's transform normalises with ImageNet's statistics, so its encoder is judged on such images.
    encoder.mean, encoder.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return clock.images_per_second(SKIP), encoder


def knn(encoder, shards):
    protocol = evals.load("knn")
    found = dict(protocol.run(encoder, evals.Data(shards), k=[20, 200], temperature=[0.1], bootstrap=100))
    return found["accuracy"]


@errors.main
def main():
    try:
        import lightly  # noqa: F401
    except ImportError as error:
        raise errors.UserError(f"this benchmark compares with lightly: pip install lightly==1.6.0 ({error})") from error
    torch.set_num_threads(common.TRAIN["threads"])
    shards = common.shards()
    split = data.open(shards, "train", reader="resident")
    print(f"SimCLR on {shards.name}, batch {common.BATCH}, images a second (median of {ROUNDS} rounds in turns)")
    result = {"bench": "simclr", "data": shards.name}
    with tempfile.TemporaryDirectory() as scratch:
        for width, target in TARGET.items():
            rates = {"ours": [], "ours bf16": [], "lightly": []}
            for i in range(ROUNDS):
                run = common.simclr(width, STEPS * common.BATCH, shards.name)
                half = common.simclr(width, STEPS * common.BATCH, shards.name, "bf16")
                rates["ours"].append(ours(run, shards, Path(scratch, f"{width}-{i}"))[0])
                rates["ours bf16"].append(ours(half, shards, Path(scratch, f"{width}-{i}-bf16"))[0])
                rates["lightly"].append(theirs(run, split)[0])
            median = {name: statistics.median(values) for name, values in rates.items()}
            ratio = median["ours"] / median["lightly"]
            result[f"width {width}"] = {**{k: round(v) for k, v in median.items()}, "ratio": round(ratio, 2)}
            result[f"width {width}"] |= {"ratio bf16": round(median["ours bf16"] / median["lightly"], 2), "target": target}
            print(f"  {width}→{8 * width} channels: {result[f'width {width}']}", flush=True)
        accuracy = {"ours": [], "lightly": []}
        for seed in SEEDS:
            run = common.simclr(32, IMAGES, shards.name)
            accuracy["ours"].append(knn(ours(run, shards, Path(scratch, f"seed{seed}"), seed)[1], shards))
            accuracy["lightly"].append(knn(theirs(run, split, seed)[1], shards))
            print(f"  kNN after {IMAGES} images, seed {seed}: " + str({k: round(v[-1], 2) for k, v in accuracy.items()}), flush=True)
        result["knn"] = {k: [round(x, 2) for x in v] for k, v in accuracy.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
