"""Networks may run in bfloat16; what is made of their outputs is float32.

Rounded to three digits, cosines divided by a small temperature lose a quarter of their gradient, and a covariance of
thousands of coordinates most of its small entries. So whatever is compared, normalised over a batch, clustered or
summed up to a loss is computed by a function that is `@float32`; a test holds all methods to it.
"""

import contextlib
import functools

import torch
import torch.nn.functional as F


WIDE = {"mps": torch.float32}  # Apple's GPUs have no other


def wide(device):
    """The type in which sums of many numbers, and shares of the budget, are kept on a device."""
    return WIDE.get(torch.device(device).type, torch.float64)


def float32(function):
    """`function` without autocast, given float32 where its arguments, or lists of them, are tensors of 16 bits.
    Other types stay as they are, float64 too."""

    @functools.wraps(function)
    def exact(*args, **kwargs):
        with contextlib.ExitStack() as stack:
            for device in ("cpu", "cuda", "mps"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*map(_widened, args), **{name: _widened(value) for name, value in kwargs.items()})

    return exact


def _widened(value):
    if isinstance(value, list | tuple):
        return type(value)(map(_widened, value))
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


cosine_similarity, cross_entropy, mse_loss, normalize, sigmoid, softplus = map(
    float32, (F.cosine_similarity, F.cross_entropy, F.mse_loss, F.normalize, torch.sigmoid, F.softplus)
)
