"""MixUp (Zhang et al. 2018, https://arxiv.org/abs/1710.09412, section 2): samples mixed with others of the batch.

Who is mixed with whom, and by which share, is a function of the samples' keys. The batch is the whole one of all
processes, so that how many they are does not matter.
"""

import math

import torch

from ..core import rng
from ..core.distributed import gather_rows, rank

ALPHA = (1e-3, 1e3)  # beyond, all is or nothing is mixed
PARTNER, SHARE = 0x4D69, 0x4D6A  # salts; those after SHARE are used, too
TRIES = 16  # of the rejection: one alone is rejected in at most 5 % of cases


def partners(key):
    """For each of this process's samples, by its key (n,), the place (n,) of another one in the batch of all, which is
    as `gather` puts it: all stand in a random circle, and each is mixed with the next. (The papers' random order lets a
    few be their own partners.)"""
    keys = gather_rows(key)
    circle = rng.randint(keys, 2**62, salt=PARTNER).argsort(stable=True)
    own = torch.arange(len(key), device=key.device) + rank() * len(key)
    return circle[(circle.argsort()[own] + 1) % len(keys)]


def shares(key, alpha):
    """λ of each key (n,), from Beta(alpha, alpha): float32 in 0..1."""
    one, other = (_log_gamma(key, alpha, SHARE + 2 * i) for i in range(2))
    return torch.sigmoid(one - other)  # one / (one + other), where both may be too small for their logarithms only


def _log_gamma(key, alpha, salt):
    """Logarithms (n,) of numbers from Gamma(alpha): those of alpha + 1 by Marsaglia & Tsang 2000, "A Simple Method for
    Generating Gamma Variables", times u^(1 / alpha)."""
    d = alpha + 2 / 3
    x, u = rng.normal(key, TRIES, salt=salt), rng.uniform(key, TRIES + 1, salt=salt + 1)
    v = (1 + x / math.sqrt(9 * d)) ** 3
    right = (v > 0) & ((1 - u[:, 1:]).log() < x.square() / 2 + d - d * v + d * v.clamp(min=1e-30).log())
    v = v.gather(1, right.float().argmax(1, keepdim=True))[:, 0]  # of several maxima the first
    return (d * v).clamp(min=1e-30).log() + (1 - u[:, 0]).log() / alpha


def mixed(values, partner, share):
    """share · values (n, …) + (1 - share) · those of the partners, which carry no gradient; share (n,)."""
    share = share.view(-1, *[1] * (values.dim() - 1))
    return share * values + (1 - share) * gather_rows(values)[partner]
