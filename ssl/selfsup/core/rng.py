"""Counter-based random numbers: pure functions of a key, never of a generator's state.

So what a sample gets does not depend on the batch it comes in, the number of processes or workers, or the point a run
was resumed at. Bits are those of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators"), equal on CPU and GPU. Draws from one key with the same salt are the same numbers: give every use its own.
"""

import math

import torch

GAMMA = 0x9E3779B97F4A7C15 - 2**64  # the 64-bit constants of splitmix64, as the signed integers torch knows
MIX1 = 0xBF58476D1CE4E5B9 - 2**64
MIX2 = 0x94D049BB133111EB - 2**64


def _shift(x, bits):
    """Logical right shift: torch's `>>` copies the sign bit, the mask removes the copies."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x):
    """splitmix64's finaliser, a bijection of 64-bit words; int64 products wrap around."""
    x = (x ^ _shift(x, 30)) * MIX1
    x = (x ^ _shift(x, 27)) * MIX2
    return x ^ _shift(x, 31)


def key(seed, *parts):
    """Hash of a seed and further ints or int64 tensors (broadcast together) -> int64 tensor. Order matters.

    `key(seed, epoch, index)` with (N,) tensors gives one key per sample; a key can itself be the seed of a further key.
    """
    h = _mix(torch.as_tensor(seed, dtype=torch.int64) + GAMMA)
    for part in parts:
        h = _mix(h + (torch.as_tensor(part, dtype=torch.int64) + 1) * GAMMA)
    return h


def _bits(key_, shape, salt):
    counter = torch.arange(math.prod(shape), device=key_.device).view(shape)
    return key(key_.view(*key_.shape, *[1] * len(shape)), salt, counter)


def uniform(key, *shape, salt=0):
    """float32 in [0, 1), multiples of 2^-24, of shape (*key.shape, *shape)."""
    return _shift(_bits(key, shape, salt), 40).float() * 2**-24


def normal(key, *shape, salt=0):
    """Standard normal float32 of shape (*key.shape, *shape); Box-Muller, so equal on CPU and GPU to rounding only."""
    bits = _bits(key, shape, salt)
    radius = (1 - _shift(bits, 40).float() * 2**-24).log().mul(-2).sqrt()  # 1 - u is in (0, 1], its logarithm finite
    return radius * ((bits & 0xFFFFFF).float() * (2 * math.pi * 2**-24)).cos()


def randint(key, high, *shape, salt=0):
    """int64 in [0, high) of shape (*key.shape, *shape); the bias of the modulus is below high / 2^63."""
    return (_bits(key, shape, salt) & (2**63 - 1)) % high


def permutation(n, *key_parts):
    """A random order of range(n), int64 (n,): a pure function of n and the parts, e.g. (seed, epoch)."""
    return _bits(key(*key_parts), (n,), salt=-1).argsort(stable=True)
