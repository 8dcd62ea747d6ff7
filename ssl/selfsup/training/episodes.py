"""How an episode's classes are told from its few examples: by the nearest mean, or by weights adapted to them."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.precision import float32


@float32
def nearest_mean(support, query):
    """Logits (E, ways · queries, ways) of features support (E, ways, shots, d) and query (E, ways, queries, d): minus
    the squared Euclidean distances to the classes' means, unscaled (Snell et al. 2017, eq. 1-2)."""
    means, query = support.mean(2), query.flatten(1, 2)
    return 2 * query @ means.transpose(1, 2) - means.square().sum(2)[:, None] - query.square().sum(2)[:, :, None]


def for_each(task, *parts):
    """[task(*rows)] of the rows of all tensors. Not by torch.func.vmap, which derives LayerNorm wrongly where each
    task has its own weights (PyTorch 2.14.1), and without the fused kernels of attention, which have no second
    derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        return [task(*rows) for rows in zip(*parts, strict=True)]


def adapted(objective, weights, rate, steps, first_order=False):
    """What becomes of `weights`, {name: tensor}, by `steps` of gradient descent on objective(weights), a scalar.

    A function of the weights that has derivatives of its own, through the steps; first_order: as if the gradients were
    constants."""
    for _ in range(steps):
        gradient = torch.func.grad(objective)(weights)
        if first_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        weights = {name: value - rate * gradient[name] for name, value in weights.items()}
    return weights
