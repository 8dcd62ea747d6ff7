"""Rank, world size and a gather that carries the gradient. With one process each is the identity."""

import contextlib

import torch
import torch.distributed as dist

_alone = 0


@contextlib.contextmanager
def alone():
    """Inside, this process is the only one: for what the others take no part in, and would be waited for."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def on():
    return not _alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank():
    return dist.get_rank() if on() else 0


def world():
    return dist.get_world_size() if on() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad):
        # Every rank's loss depends on this rank's rows: sum what all of them send back. DDP then divides the parameters'
        # gradients by the world size, which makes them those of the loss averaged over the ranks.
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x):
    """(n, ...) on each of W ranks -> (W·n, ...) on all, in the order of the ranks, with the gradient on every rank."""
    return _Gather.apply(x) if on() else x


def gather_rows(x):
    """`gather` without a gradient, for keys, indices and labels."""
    with torch.no_grad():
        return gather(x.detach())


def total(x):
    """Sum over the ranks, without gradient."""
    x = x.detach().clone()
    if on():
        dist.all_reduce(x)
    return x


def most(x):
    """Largest over the ranks, element by element, without gradient."""
    x = x.detach().clone()
    if on():
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def mean(x):
    """A scalar's mean over the ranks, without gradient: what is logged."""
    return total(x) / world()
