"""The training loop: one method, one seed, from shards to an encoder folder.

Killed at any moment and started again, it ends with the same bytes: everything that changes is in the checkpoint, and every
random number is a function of (seed, step) or of (seed, epoch, sample).
"""

import copy
import hashlib
import inspect
import json
import os
import resource
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from .. import data, encoder, methods, nets
from ..core import distributed, rng
from ..errors import UserError, nearest
from ..process import sole_writer
from . import optim

PACKAGE = Path(__file__).parents[1]
# What can change an encoder beside its method's own file; dvc.yaml names the same files as dependencies.
CODE = "core data inputs layers methods/base.py nets training".split()
LOGGED = 200  # rows of history a run


def code_hash(method):
    """sha256 of the sources that can change this method's encoder."""
    files = [PACKAGE / "methods" / f"{method}.py"]
    for name in CODE:
        path = PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def fingerprint(run, seed, card, code):
    """Names a training: the same only if parameters, data, code and torch are. Where its checkpoints lie."""
    what = run.model_dump(include={"method", "encoder", "args", "train"})
    what["train"].pop("checkpoint_every")
    text = json.dumps([what, seed, card["hash"], code, torch.__version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build(run, seed, card):
    """The method of `run` around a fresh encoder, initialised from the seed alone.

    An argument that its `__init__` does not name is a field of its `inputs`, as in {augment: moco_v1}.
    """
    torch.manual_seed(seed)
    cls = methods.load(run.method)
    takes = inspect.signature(cls.__init__).parameters
    extra = {"card": card} if "card" in takes else {}
    own = {name: value for name, value in run.args.items() if name in takes}
    net = nets.build(**run.encoder, card=card)
    method = cls(net, **extra, **own)
    method.inputs = replace(method.inputs, **{name: value for name, value in run.args.items() if name not in takes})
    return method


def check_columns(run, method, card):
    for column in method.inputs.columns:
        if column not in card["columns"]:
            raise UserError(
                f"method {run.method} needs the column '{column}', which data set {run.data} does not have "
                f"(it has {', '.join(card['columns'])}){nearest(column, card['columns'])}"
            )


@dataclass
class Epoch:
    """What `Method.before_epoch` is given."""

    epoch: int
    seed: int
    embed: Callable  # () -> features (N, dim) float32 of the whole training split, un-augmented, on the CPU
    restart: Callable  # (module) forget the optimiser's state of a module whose weights were drawn anew
    log: Callable  # (name=value) into the history


def pretrain(run, seed, accelerator, shards, out, scratch="data/runs", cache="data/cache", tracker=None):
    """Train one seed of a run (config.Run) on the shards in folder `shards`; write the encoder folder `out`.

    Returns what it cost. Raises UserError for a missing column, a non-finite loss, or a second trainer of the same run.
    """
    torch.set_num_threads(run.train.threads)
    split = data.open(shards, "train", reader=run.train.reader, cache=cache)
    code = code_hash(run.method)
    folder = Path(scratch) / f"{run.name}-{seed}-{fingerprint(run, seed, split.card, code)}"
    if not accelerator.is_main_process:
        return _pretrain(run, seed, accelerator, split, shards, cache, folder, out, code, None)
    with sole_writer(folder, f"{run.name} seed {seed}"):
        return _pretrain(run, seed, accelerator, split, shards, cache, folder, out, code, tracker)


def _pretrain(run, seed, accelerator, split, shards, cache, folder, out, code, tracker):
    train, device, main = run.train, accelerator.device, accelerator.is_main_process
    rank, world = distributed.rank(), distributed.world()
    card = split.card
    mean, std = (torch.tensor(card[key], device=device) for key in ("mean", "std"))

    def prepare(batch):
        batch = {name: column.to(device, non_blocking=True) for name, column in batch.items()}
        return method.inputs(batch, seed, mean, std)

    check_columns(run, methods.load(run.method), card)
    method = build(run, seed, card)
    if world > 1 and device.type == "cuda":
        method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    method.to(device, memory_format=torch.channels_last)
    trainable = any(p.requires_grad for p in method.parameters())
    steps = train.images // train.batch if trainable else 0
    every = max(1, steps // LOGGED)
    state = {"step": 0, "seconds": 0.0, "flops": 0, "history": [], "sums": {}}
    model = method
    if trainable:
        model, optimizer = accelerator.prepare(method, optim.build(method, train))

    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        method.load_state_dict(saved["method"])
        if trainable:
            optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    started = time.monotonic() - state["seconds"]

    def save():
        state["seconds"] = time.monotonic() - started
        if main:
            write(checkpoint, {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "state": state})

    def record(**row):
        state["history"].append({"step": state["step"], "images": state["step"] * train.batch, **row})
        if tracker:
            tracker.log(state["history"][-1:])

    if tracker:
        tracker.log(state["history"])
    batches = split.batches(seed, train.batch, train.images, rank, world, state["step"], train.workers) if steps else ()
    bar = tqdm(batches, f"{run.name} seed {seed}", steps, initial=state["step"], disable=not main, mininterval=1)
    saved_at = time.monotonic()
    method.train()
    for step, batch in enumerate(bar, state["step"]):
        epoch = step * train.batch // len(split)
        if step == 0 or epoch != (step - 1) * train.batch // len(split):
            torch.manual_seed(rng.key(seed, epoch, -1))
            method.before_epoch(
                Epoch(epoch, seed, lambda: embed(method.encoder, split), forget(optimizer), record)
            )
            method.train()
        batch = prepare(batch)
        if step == 0:
            state["flops"] = flops(method, batch)
        torch.manual_seed(rng.key(seed, step, rank))
        optim.set_learning_rate(optimizer, lr := optim.learning_rate(step, steps, train))
        scalars = model(batch)
        accelerator.backward(scalars["loss"])
        if train.clip:
            accelerator.clip_grad_norm_(model.parameters(), train.clip)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / steps)
        for name, value in scalars.items():
            state["sums"][name] = state["sums"].get(name, 0) + value.detach().double()
        state["step"] = step + 1
        if state["step"] % every == 0 or state["step"] == steps:
            since = (state["step"] - 1) % every + 1
            means = {name: float(distributed.mean(value)) / since for name, value in state["sums"].items()}
            finite(means["loss"], run, seed, step)
            state["sums"] = {}
            record(**means, lr=lr)
            bar.set_postfix(loss=f"{means['loss']:.3f}", refresh=False)
        if time.monotonic() - saved_at > train.checkpoint_every:
            finite(float(scalars["loss"].detach()), run, seed, step)
            save()
            saved_at = time.monotonic()
    method.eval()
    if steps and not any("val_loss" in row for row in state["history"]) and method.held_out:
        validate(method, data.open(shards, "val", reader=train.reader, cache=cache), prepare, train.batch, seed, record)
    if steps:
        save()
    cost = {
        "seconds": round(time.monotonic() - started, 2),
        "images_per_second": round(steps * train.batch / max(1e-9, time.monotonic() - started), 1),
        "steps": steps,
        "images": steps * train.batch,
        "peak_memory_mb": round(peak_memory(device)),
        "flops_per_image": state["flops"],
        "parameters": sum(p.numel() for p in method.encoder.parameters()),
        "parameters_method": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "device": device.type,
        "processes": world,
    }
    if main:
        info = {"dim": method.encoder.dim, "mean": card["mean"], "std": card["std"], "size": card["size"]}
        info |= {"run": run.name, "method": run.method, "seed": seed, "data": {"name": run.data, "hash": card["hash"]}}
        info |= {"args": run.args, "train": train.model_dump(), "images": cost["images"], "steps": steps, "code": code}
        info |= {"classes": card["classes"]}
        publish(method, info, state["history"], pictures(method, shards, cache, prepare), Path(out))
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return cost


def write(path, checkpoint):
    """Write-then-rename: a reader finds the old checkpoint or the new one, never half of one."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def finite(loss, run, seed, step):
    if loss != loss or abs(loss) == float("inf"):
        raise UserError(
            f"{run.name} seed {seed}: the loss became {loss} at step {step + 1}; lower train.lr (now {run.train.lr}) "
            f"in runs.{run.name}, or clip gradients"
        )


def forget(optimizer):
    def restart(module):
        for p in module.parameters():
            optimizer.state.pop(p, None)

    return restart


@torch.no_grad()
def embed(net, split, batch=512):
    """Features (N, dim), float32 on the CPU, of a split in its order; each rank does its share of the batches."""
    device = next(net.parameters()).device
    net.eval()
    out = torch.zeros(len(split), net.dim, device=device)
    for i, part in enumerate(split.in_order(batch)):
        if i % distributed.world() == distributed.rank():
            x = net.prepare(part[net.takes].to(device))
            out[part["index"].to(device)] = net(x).float()
    return distributed.total(out).cpu()


def flops(method, batch):
    """Floating-point operations of a training step, forward and backward, per image; on a copy, which it may change."""
    trial = copy.deepcopy(method).train()
    part = {name: column[:32] for name, column in batch.items()}
    with FlopCounterMode(display=False) as counter:
        trial(part)["loss"].backward()
    return counter.get_total_flops() // len(part["image"])


@torch.no_grad()
def validate(method, split, prepare, batch, seed, record):
    """The objective on held-out images, recorded as val_<name>."""
    batch = min(batch, len(split) // distributed.world() * distributed.world())
    sums, n = {}, 0
    for part in split.batches(seed, batch, len(split), distributed.rank(), distributed.world()):
        for name, value in method(prepare(part)).items():
            sums[name] = sums.get(name, 0) + distributed.mean(value.double())
        n += 1
    record(**{f"val_{name}": float(value) / n for name, value in sums.items()})


@torch.no_grad()
def pictures(method, shards, cache, prepare, count=16):
    split = data.open(shards, "val", reader="auto", cache=cache)
    return method.pictures(prepare(next(iter(split.in_order(count)))))


def peak_memory(device):
    """Most memory held, in MB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def publish(method, info, history, images, out):
    """Write the encoder folder under another name, then rename it: nobody sees half of one."""
    from PIL import Image

    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    encoder.save(temporary, method.parts(), info)
    (temporary / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    (temporary / "pictures").mkdir()
    for name, image in images.items():
        pixels = (image.float().cpu().clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels).save(temporary / f"pictures/{name}.png")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(temporary, out)
