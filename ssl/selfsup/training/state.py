"""State that changes outside the optimiser, all of it registered, so that a checkpoint holds it."""

import contextlib
import copy
import math

import torch
import torch.nn as nn

from ..core.precision import wide
from ..errors import UserError


class Ema(nn.Module):
    """An exponential moving average of a module: target ← m·target + (1 − m)·online (He et al. 2020, eq. 2).

    Calls the average. Buffers (BatchNorm's statistics) are the target's own: it runs in training mode like the student.
    Of an average that is never run, only judged in the end, they are averaged like the parameters: `update` with
    buffers.
    """

    def __init__(self, online):
        super().__init__()
        self.module = copy.deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def update(self, online, momentum, buffers=False):
        """momentum: a number, or a scalar on the device."""
        rest = (1 - momentum).float() if torch.is_tensor(momentum) else 1 - momentum
        for target, source in zip(self.module.parameters(), online.parameters(), strict=True):
            target.lerp_(source.detach(), rest)
        if buffers:
            for target, source in zip(self.module.buffers(), online.buffers(), strict=True):
                target.lerp_(source, rest) if target.is_floating_point() else target.copy_(source)

    def forward(self, *args, **kwargs):
        with torch.no_grad():
            return self.module(*args, **kwargs)


class Queue(nn.Module):
    """The last `size` keys, (size, dim), first in first out; starts with random unit vectors, as MoCo does."""

    def __init__(self, size, dim):
        super().__init__()
        self.register_buffer("keys", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys):
        """Overwrite the oldest entries by `keys` (n, dim): the whole global batch's, the same on every rank."""
        size = len(self.keys)
        keys = keys[-size:]
        where = (self.next + torch.arange(len(keys), device=keys.device)) % size
        self.keys[where] = keys.to(self.keys.dtype)
        self.next.copy_((self.next + len(keys)) % size)


def in_groups(net, x, size):
    """net(x) of samples (N, …) in groups of about `size`, each with BatchNorm's statistics of its own."""
    groups = x.tensor_split(max(1, len(x) // size))  # `chunk` may leave one sample alone
    return torch.cat([net(part) for part in groups])


class Bank(nn.Module):
    """One unit vector for each training image, (images, dim); starts at random (Wu et al. 2018, section 3)."""

    def __init__(self, images, dim):
        super().__init__()
        self.register_buffer("rows", nn.functional.normalize(torch.randn(images, dim), dim=1))

    @torch.no_grad()
    def update(self, index, rows, momentum=0.5):
        """rows[index] moves to the new unit vectors (n, dim), and back onto the sphere; of the whole global batch."""
        moved = self.rows[index] * momentum + rows.to(self.rows.dtype) * (1 - momentum)
        self.rows[index] = nn.functional.normalize(moved, dim=1)


class Teacher(nn.Module):
    """A trained encoder that is asked and never taught: no gradients, evaluation mode whatever its method's.

    net: of encoder.load, with `mean` and `std`; card: that of the images it will be given, normalised. Where its own
    were normalised with other numbers, they are made so first. Images (N, C, S, S) -> features (N, .dim).
    parts: what else its encoder folder holds, by name, as its `classifier`: features -> logits.
    """

    def __init__(self, net, card, **parts):
        super().__init__()
        self.net, self.dim = net.requires_grad_(False).eval(), net.dim
        self.parts = nn.ModuleDict(parts).requires_grad_(False).eval()
        given = card["mean"], card["std"], net.mean, net.std
        mean, std, own_mean, own_std = (torch.tensor(numbers)[:, None, None] for numbers in given)
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    def train(self, mode=True):
        return super().train(False)

    def part(self, name):
        """UserError where its encoder folder has no such part."""
        if name not in self.parts:
            raise UserError(f"`from` names a run whose encoder folder holds no {name}: its method has none "
                            f"(it holds {', '.join(['encoder', *self.parts])})")
        return self.parts[name]

    def classifier(self, classes):
        """Its part of that name, for a run on data of so many classes."""
        found = self.part("classifier")
        if found.config["d_out"] != classes:
            raise UserError(f"`from` names a run that tells {found.config['d_out']} classes apart, and this run's data "
                            f"have {classes}")
        return found

    def forward(self, x):
        with torch.no_grad():
            return self.net(x * self.scale + self.shift)


def rising(start, progress):
    """Momentum of a target network, from `start` to 1 along a cosine (Grill et al. 2020, section 3.1): a tensor, as
    `progress` is, in 0..1, that `Method.after_step` is given."""
    return 1 - (1 - start) * ((math.pi * exact(progress)).cos() + 1) / 2


def ramp_up(progress, share):
    """The part of a weight that is reached, exp(-5 (1 - t)²), where t rises from 0 to 1 over the first `share` of the
    budget (Laine & Aila 2017, https://arxiv.org/abs/1610.02242). It starts at 0.0067. A tensor, as `progress` is."""
    return (-5 * (1 - risen(progress, 0, share)) ** 2).exp()


def risen(progress, start, full):
    """What rises evenly from 0 to 1 between two shares of the budget; a tensor, as `progress` is."""
    progress = exact(progress)
    return ((progress - start) / (full - start)).clamp(0, 1) if full > start else (progress >= full).to(progress.dtype)


def exact(progress):
    """A share of the budget, a number or a tensor, as a tensor."""
    return torch.as_tensor(progress, dtype=wide(getattr(progress, "device", "cpu")))


@contextlib.contextmanager
def frozen(*modules):
    """Parameters take no gradient inside, though gradients flow through: a critic judging for its generator."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
