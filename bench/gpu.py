"""A GPU's speed: the step as usual and captured, beside lightly's loop; every method; 224 px; and a sprint on CIFAR-10.

For a GPU box that need not have dvc, mlflow or snakemake, in two parts. Here, data and parameters are put into a folder
to carry: `python -m bench.gpu prepare data/gpu [--cifar data/raw/cifar10]`. There: `python -m bench gpu`, which takes some
eight minutes on one H200. What fails says so in its line, and the rest goes on.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
import traceback
from pathlib import Path

import torch
import yaml
from PIL import Image

from bench import common
from selfsup import config, data, errors, evals, methods, shards
from selfsup.config import compose
from selfsup.training import loop, setup
from selfsup.training.start import Start

FOLDER = Path("data/gpu")
WARM, TIMED = 8, 40  # steps, of which the first are not timed: capture.WARM, and recording
PHOTOGRAPHS = 512  # two batches
SAMPLES = {"train": 256, "val": 40, "test": 40}  # of a data set, to run each method on
LARGE = {"vit_small": {"name": "vit_small_patch16_224"}, "resnet50": {"name": "resnet50"}}  # timm's
LEFT_OUT = "cifar"  # experiments whose data are not generated
EPOCHS, GOAL = 40, 75.0  # of the sprint, in percent of kNN on val
# dkobak's with four times the rate, a lower temperature and a warm-up, as a short budget wants (docs/cifar10_resnet18.md).
SPRINT = {"optimizer": "sgd", "lr": 0.24, "scale_lr": True, "weight_decay": 5e-4, "decay_vectors": True, "warmup": 0.05,
          "batch": 512, "precision": "bf16"}  # fmt: skip
RECIPE = {"hidden": 1024, "dim": 128, "temperature": 0.2, "augment": "simclr_cifar"}


# Here


def prepare(folder, cifar=None):
    """Parameters of an experiment for each method, its data in small, the encoders it starts from; and CIFAR-10."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {}
    for file in sorted(Path("conf/experiment").glob("*.yaml"), key=lambda file: (file.stem != "signals", file.stem)):
        if LEFT_OUT in file.stem:
            continue
        params = folder / f"{file.stem}.yaml"
        compose.write(params, "conf", f"experiment={file.stem}")
        runs = config.load(params).runs
        new = {run.method: name for name, run in reversed(runs.items()) if run.method not in chosen}
        made = {method: (file.stem, name) for method, name in new.items() if sharded(folder, params, file.stem, name)}
        chosen |= made
        if not made:
            params.unlink()
    for method, (experiment, name) in sorted(chosen.items()):
        before(config.load(folder / f"{experiment}.yaml").runs, name, folder)
    (folder / "methods.json").write_text(json.dumps(chosen, indent=1))
    with tempfile.TemporaryDirectory() as scratch:
        photographs(Path(scratch))
        large = {"source": "folder", "root": scratch, "size": 256, "val_share": 0.01, "max_bad": 0}
        shards.write("large", large, folder / "shards/large")
    if cifar:
        spec = {"source": "folder", "root": str(cifar), "size": 32, "val_share": 0.1, "max_bad": 0.01}
        shards.write("cifar10", spec, folder / "shards/cifar10")
    print(f"{folder}: {len(chosen)} of {len(methods.names())} methods; without data here: "
          f"{', '.join(sorted(set(methods.names()) - set(chosen))) or 'none'}")


def photographs(folder):
    """JPEG files of 256 px, as smooth as photographs and as large: what is on them is nothing to look at."""
    generator = torch.Generator().manual_seed(0)
    for number in range(PHOTOGRAPHS):
        coarse = torch.rand(1, 3, 12, 12, generator=generator)
        image = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0]
        image += 0.06 * torch.randn(3, 256, 256, generator=generator)
        pixels = image.clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)


def sharded(folder, params, experiment, name):
    """Whether the run's data set could be made."""
    run = config.load(params).runs[name]
    spec = yaml.safe_load(params.read_text())["datasets"][run.data]
    few = {"train": 2000, "val": 200, "test": 200} if spec["source"] == "glyphs" else SAMPLES  # classes of 20
    out = folder / "shards" / f"{experiment}-{run.data}"
    if not (out / "card.json").exists():
        try:
            shards.write(run.data, {**spec, **{key: min(spec[key], n) for key, n in few.items() if key in spec}}, out)
        except errors.UserError as error:
            print(f"{experiment}: {error}")
            return False
    return True


def before(runs, name, folder):
    """Encoders that the run goes on from, hardly trained."""
    for other in (runs[name].from_, runs[name].init):
        if not other or other not in runs or (out := folder / "encoders" / other.partition("-")[0] / other / "0").exists():
            continue
        before(runs, other, folder)
        run = having(runs[other], images=runs[other].train.batch, threads=1)
        with tempfile.TemporaryDirectory() as scratch:
            shards = folder / "shards" / f"{other.partition('-')[0]}-{run.data}"
            loop.pretrain(run, 0, setup.accelerator(run.train, cpu=True), shards, out, scratch, Path(scratch, "cache"),
                          encoders=folder / "encoders")


def having(run, **train):
    return run.model_copy(update={"train": run.train.model_copy(update=train)})


# There


def images_a_second(run, shards, folder, scratch, profile=False):
    """Of a run's own step, with its views, from the loader on; and the share of time that the GPU idles, if asked."""
    run = having(run, images=(WARM + TIMED) * run.train.batch)
    accelerator = setup.accelerator(run.train)
    read = {"reader": run.train.reader, "cache": scratch / "cache", "columns": setup.inputs_of(run).columns}
    split = data.open(shards, "train", **read, labels=run.labels, seed=0)
    start = Start(run, 0, folder / "encoders", split.card)
    training = loop.Training(run, 0, accelerator, split, start, scratch / "runs")
    cuda = accelerator.device.type == "cuda"
    reading = {"workers": training.workers, "order": training.method.order, "pin": cuda}
    batches = split.batches(0, run.train.batch, run.train.images, **reading)
    step, wait = training.stepper(), torch.cuda.synchronize if cuda else lambda: None
    training.method.train()
    for number, batch in enumerate(itertools.islice(batches, WARM)):
        if number == 0:
            training.before_epoch(0, batch)
        step(number, batch)
    wait()
    watch = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) if profile else None
    at = time.perf_counter()
    if watch:
        watch.start()
    for number, batch in enumerate(itertools.islice(batches, TIMED), WARM):
        step(number, batch)
    wait()
    seconds = time.perf_counter() - at
    idle = None
    if watch:
        watch.stop()
        busy = sum(event.self_device_time_total for event in watch.key_averages()) / 1e6
        idle = round(1 - busy / seconds, 3)
    return round(TIMED * run.train.batch / seconds, 1), idle


def attempt(name, results, function, *args, **kwargs):
    """What function gives, or None and a line that says why."""
    try:
        results[name] = function(*args, **kwargs)
    except Exception as error:  # whatever it is: the time on a GPU is short, and the next line does not depend on it
        traceback.print_exc()
        results[name] = None
        print(f"{name}: {str(error).partition(chr(10))[0]}", flush=True)
    return results[name]


def pair(run, shards, folder, scratch, results):
    """Images a second as usual and captured, and their ratio, as a line."""
    rates = [attempt(f"{run.name} {how}", results, images_a_second, having(run, capture=how), shards, folder, scratch)
             for how in ("off", "auto")]
    usual, captured = (rate and rate[0] for rate in rates)
    ratio = f"{captured / usual:5.2f}" if usual and captured else "    -"
    print(f"{run.name:44} {usual or 0:10.1f} {captured or 0:10.1f} {ratio}", flush=True)


def every_method(folder, scratch, results):
    chosen = json.loads((folder / "methods.json").read_text())
    print(f"\n{'run, its own batch, images a second':44} {'as usual':>10} {'captured':>10} ratio")
    for experiment, name in chosen.values():
        run = having(config.load(folder / f"{experiment}.yaml").runs[name], threads=1)
        if run.method != "random":
            pair(run, folder / "shards" / f"{experiment}-{run.data}", folder, scratch, results)


def simclr(name, shards, encoder, args=None, **train):
    settings = {**common.TRAIN, **SPRINT, "images": 10**6, "threads": 1, **train}
    return config.Run(name=name, method="simclr", data=shards.name, seeds=[0], encoder=encoder,
                      args=args or RECIPE, train=config.Train(**settings))  # fmt: skip


def at_224(folder, scratch, results):
    """From JPEG files in tars, decoded by all cores."""
    where = folder / "shards/large"
    for name, encoder in LARGE.items():
        run = simclr(f"gpu-{name}-224", where, encoder, {"augment": {"crop": [0.08, 1.0], "flip": 0.5}}, batch=256,
                     reader="streaming", workers="auto")  # fmt: skip
        found = attempt(run.name, results, images_a_second, run, where, folder, scratch, profile=True)
        if found:
            print(f"{run.name:44} {found[0]:10.1f} images/s; the GPU idles {found[1]:.0%} of the time", flush=True)


class Reached(Exception):
    """The sprint's goal."""


def sprint(shards, scratch):
    """Seconds of training until kNN on val is at the goal, without those that judging took; and what it came to."""
    said, paused, start = [], [0.0], [None]
    held = evals.Data(shards, cache=scratch / "cache", columns=("image", "label"))

    def judge(encoder, step):
        at = time.perf_counter()
        said.append(evals.judge("knn", encoder, held, k=[20, 200], temperature=[0.1])["val_accuracy"])
        paused[0] += time.perf_counter() - at
        if said[-1] >= GOAL:
            raise Reached
        return {"knn": said[-1]}

    count = data.open(shards, "train", cache=scratch / "cache").card["counts"]["train"]
    run = simclr("gpu-sprint", shards, {"name": "resnet18"}, images=EPOCHS * count, judge_every=2 * count, reader="resident")
    start[0] = time.perf_counter()
    try:
        loop.pretrain(run, 0, setup.accelerator(run.train), shards, scratch / "sprint", scratch / "runs", scratch / "cache",
                      judge=judge)
    except Reached:
        pass
    seconds = time.perf_counter() - start[0] - paused[0]
    print(f"sprint: kNN on val {said[-1]:.1f} after {seconds:.0f} s of training (goal {GOAL}, aim under 60 s)", flush=True)
    return {"seconds": round(seconds, 1), "knn_val": said}


def lightly(shards, scratch):
    """lightly's own loop: its transform in loader workers on all cores but two, its loss, the same network and optimiser."""
    common.need_lightly()
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader

    from selfsup.training import optim

    run = simclr("gpu-lightly", shards, {"name": "resnet18"})
    split = data.open(shards, "train", reader="resident", cache=scratch / "cache", columns=("image",))
    method = setup.build(run, 0, split.card).cuda()
    optimizer, criterion, batch = optim.build(method, run.train), NTXentLoss(temperature=0.2), run.train.batch
    pictures = common.Pictures(split, SimCLRTransform(input_size=32, gaussian_blur=0.0))
    loader = DataLoader(pictures, batch, shuffle=True, drop_last=True, num_workers=max(1, os.cpu_count() - 2),
                        pin_memory=True, persistent_workers=True)  # fmt: skip
    for number, views in enumerate(itertools.chain.from_iterable(itertools.repeat(loader))):
        if number == WARM:
            torch.cuda.synchronize()
            at = time.perf_counter()
        if number == WARM + TIMED:
            break
        with torch.autocast("cuda", torch.bfloat16):
            loss = criterion(*(method.projector(method.encoder(x.cuda(non_blocking=True))) for x in views))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return round(TIMED * batch / (time.perf_counter() - at), 1), None


@errors.main
def main():
    if not torch.cuda.is_available():
        raise errors.UserError("bench gpu needs a GPU, and torch finds none here")
    if not (FOLDER / "methods.json").exists():
        raise errors.UserError(f"{FOLDER} is not there: make it where there is dvc, by `python -m bench.gpu prepare {FOLDER}`")
    results, card = {}, torch.cuda.get_device_name()
    print(f"{card}, {os.cpu_count()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        pictures = FOLDER / "shards/cifar10"
        if pictures.exists():
            pair(simclr("gpu-simclr", pictures, {"name": "resnet18"}, reader="resident"), pictures, FOLDER, scratch, results)
            if theirs := attempt("gpu-lightly", results, lightly, pictures, scratch):
                print(f"{'lightly, the same network':44} {theirs[0]:10.1f}", flush=True)
            attempt("sprint", results, sprint, pictures, scratch)
        at_224(FOLDER, scratch, results)
        every_method(FOLDER, scratch, results)
    print(json.dumps({"bench": "gpu", "card": card, **results}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepare", choices=["prepare"])
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--cifar", type=Path, help="an image folder {train,test}/<class>/*")
    asked = parser.parse_args()
    prepare(asked.folder, asked.cifar)
