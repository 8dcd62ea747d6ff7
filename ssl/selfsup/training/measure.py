"""What is measured of a training, beside what it learns."""

import copy
import inspect
import math
import random
import resource
import sys

import numpy as np
import torch
import torch.nn.functional as F

from ..core import distributed
from ..core.precision import wide
from ..errors import UserError

MEASURED = "embedding"  # what a method's output calls the tensor (n, d) whose spread is to be recorded


@torch.no_grad()
def spread(z):
    """Whether embeddings (n, d) collapse, over the whole global batch: what family C records beside its loss.

    std: standard deviation of a unit embedding's coordinate times √d; 1 on a sphere filled evenly, 0 if all are the
    same (Chen & He 2021, figure 2). rank: RankMe, the effective rank exp(entropy of the normalised singular values), at
    most min(n, d) (Garrido et al. 2023, eq. 1-2, https://arxiv.org/abs/2210.02885). Both are NaN where an embedding is.
    """
    z = distributed.gather_rows(z).to(wide(z.device))
    number = z.isfinite().all()
    z = z.nan_to_num(0, 0, 0)  # of what is no number there is no decomposition
    std = F.normalize(z, dim=1).std(0).mean() * z.shape[1] ** 0.5
    square = z.T @ z if z.shape[0] > z.shape[1] else z @ z.T
    singular = torch.linalg.eigvalsh(square).clamp(min=0).sqrt()
    total = singular.sum().clamp(min=torch.finfo(singular.dtype).tiny)  # of embeddings that are all 0 the rank is 1
    rank = torch.special.entr(singular / total).sum().exp()
    return {name: value.where(number, torch.nan) for name, value in (("std", std), ("rank", rank))}


def scalars(out):
    """The numbers among what a method gives for a batch: all but the embedding."""
    return {name: value for name, value in out.items() if name != MEASURED}


def spread_of(out):
    """`spread` of the embedding among what a method gives for a batch; of one that gives none, nothing."""
    return spread(out[MEASURED]) if MEASURED in out else {}


def sound(net):
    """Whether all weights and buffers of a network are numbers still."""
    return all(value.isfinite().all() for value in net.state_dict().values())


class Diverged(UserError):
    """A training's numbers are none any more: what these parameters came to, not something that lacks or is misspelt."""


def diverged(what, value, run, seed, step, method, first):
    """The Diverged that says of a training's `what` that it is no number any more, and what is likely to blame.

    step: how many there have been. first: the loss of the first one, before anything was learned; None if not known.
    """
    where, given = f"{run.name} seed {seed}", ", ".join(f"{name}: {value}" for name, value in run.args.items())
    if first is not None and not math.isfinite(first):
        blame = f"runs.{run.name}.args ({given})" if given else f"the images of {run.data}"
        return Diverged(f"{where}: the loss is {first} at the first step, before anything is learned: look at {blame}")
    remedies = [f"lower train.lr (now {run.train.lr}) in runs.{run.name}"]
    if isinstance(temperature := getattr(method, "temperature", None), int | float):
        remedies.append(f"raise args.temperature (now {temperature})")
    if not run.train.clip:
        remedies.append("clip gradients (train.clip)")
    return Diverged(f"{where}: {what} became {value} at step {step}; {', or '.join(remedies)}")


def flops(method, batch, backward=lambda method, batch: method(batch)["loss"].backward()):
    """Floating-point operations of a training step, forward and backward, per image; on a copy, which it may change."""
    from torch.utils.flop_counter import FlopCounterMode  # here, since it imports Triton, for which judges have no use

    trial = copy.deepcopy(method).train()
    group = getattr(method.order, "group", 1)
    part = {name: column[: max(1, 32 // group) * group] for name, column in batch.items()}
    with FlopCounterMode(display=False) as counter:
        if mode := getattr(counter, "mode", None):  # as in optim.eager: without torch._dynamo, where torch is as known
            mode.__torch_dispatch__ = inspect.unwrap(type(mode).__torch_dispatch__).__get__(mode)
        backward(trial, part)
    return counter.get_total_flops() // len(part["key"])


def held_out(method, split, batch, seed):
    """The batches of `split` for `validate`. Raises UserError where its samples make no batch of the method's, or where
    the method learns labels and train has none of the split's."""
    order, world = method.order, distributed.world()
    whole = world * getattr(order, "group", 1)
    batch = min(batch, len(split) // whole * whole)
    if not batch:
        raise UserError(f"val has {len(split)} samples, and the smallest batch of {world} processes has {whole}")
    if "label" in method.inputs.columns and split.name in split.card.get("new_classes", ()):
        raise UserError(f"train has no class of {split.name}")
    return split.batches(seed, batch, len(split), distributed.rank(), world, order=order)


@torch.no_grad()
def validate(forward, batches, prepare):
    """The objective on held-out images, {val_<name>: mean over the batches}."""
    sums, n = {}, 0
    for part in batches:
        out = forward(prepare(part))
        for name, value in {**scalars(out), **spread_of(out)}.items():
            sums[name] = sums.get(name, 0) + distributed.mean(value.to(wide(value.device)))
        n += 1
    return {f"val_{name}": float(value) / n for name, value in sums.items()}


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


def judged(judge, net, card, step):
    """What judge(net, step) says of an encoder in training, which has `mean` and `std` as a loaded one does.

    Leaves every generator of random numbers as it was; `net` is in evaluation mode afterwards.
    """
    net.mean, net.std = card["mean"], card["std"]
    numbers, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        said = judge(net.eval(), step)
    np.random.set_state(numbers), random.setstate(python)
    return {name: float(value) for name, value in said.items()}


def cost(method, steps, batch, seconds, flops, device):
    """What a training of `steps` steps took, for cost.json."""
    return {
        "seconds": round(seconds, 2),
        "images_per_second": round(steps * batch / max(1e-9, seconds), 1),
        "steps": steps,
        "images": steps * batch,
        "peak_memory_mb": round(peak_memory(device)),
        "flops_per_image": flops,
        "parameters": sum(p.numel() for p in method.encoder.parameters()),
        "parameters_method": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "device": device.type,
        "processes": distributed.world(),
    }


def peak_memory(device):
    """Most memory held, in MB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10  # bytes there, KiB elsewhere
