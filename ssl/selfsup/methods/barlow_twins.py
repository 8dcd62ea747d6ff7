"""Barlow Twins: each coordinate of the embedding agrees across the views and is uncorrelated with every other."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Positive, Weight, Width
from ..core.distributed import gather
from ..core.precision import float32
from ..layers import mlp
from ..inputs.views import Views
from .base import Method

SHOWN = 64  # coordinates whose correlations are kept for the picture


class BarlowTwins(Method):
    """Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", eqs. 1 and 2.
    https://arxiv.org/abs/2103.03230

    hidden, dim: of the projector's three layers; the paper's 8,192 on ImageNet are 2,048 here, solo-learn's for CIFAR.
    redundancy: weight λ of the off-diagonal terms, of which there are `dim` - 1 times as many as others; the paper's
    is for 8,192.
    scale: of the loss, eq. 2; 1 / `dim` unless said, as its gradient would grow with `dim`, and nothing of it be left
    but what the clipping lets through. The authors' code scaled it too, by 1/32, until it gave biases and norms a
    rate of their own in its place; its λ is 0.0051. solo-learn has 0.1 for CIFAR, and LARC's bound on the rate makes
    that part of the recipe.
    The correlation is that of the global batch, not of a process's part. The authors' code standardises by a
    BatchNorm, whose eps of 1e-5 matters where a coordinate hardly varies; here there is none.
    """

    inputs = Views(2, augment="asym")
    sensitive = ("redundancy", 0.02)  # λ, which the paper varies: of 2,048 coordinates what 0.005 is of 8,192

    def __init__(
        self,
        encoder,
        hidden: Width = 2048,
        dim: Width = 2048,
        redundancy: Weight = 0.005,
        scale: Positive | None = None,
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim, layers=3)
        self.projector[-1] = nn.Linear(hidden, dim, bias=False)  # the correlation would subtract a bias
        self.redundancy = redundancy
        self.scale = None if scale is None else scale * dim  # of a mean over the coordinates
        self.register_buffer("correlation", torch.zeros(min(dim, SHOWN), min(dim, SHOWN)))  # mean of the latest steps

    def project(self, batch):
        """Embeddings (N, dim) of the one and of the other view."""
        return tuple(self.projector(self.encoder(x)) for x in batch["image"].unbind(1))

    def objective(self, z1, z2):
        c = correlation(gather(z1), gather(z2))
        if self.training:
            self.correlation.lerp_(c.detach()[:SHOWN, :SHOWN].to(self.correlation.dtype), 0.1)
        on = (1 - c.diagonal()).square().mean()
        off = c.square().sum(1).mean() - c.diagonal().square().mean()
        loss = on + self.redundancy * off
        loss = loss if self.scale is None else loss * self.scale
        return {"loss": loss, "on_diagonal": on, "off_diagonal": off, "embedding": torch.cat([z1, z2])}

    @torch.no_grad()
    def pictures(self, batch):
        """correlation: Left the correlations of each coordinate of one view's embedding (a row) with each of the other
        view's (a column), averaged over the latest steps (black −1, grey 0, white 1). Right what they are to become:
        a white diagonal, each coordinate being the same in both views, on grey, none telling anything of another
        one."""
        pair = torch.cat([self.correlation, torch.eye(len(self.correlation), device=self.correlation.device)], 1)
        picture = ((pair + 1) / 2).clamp(0, 1)
        return {**super().pictures(batch), "correlation": picture.repeat_interleave(4, 0).repeat_interleave(4, 1)}


@float32
def correlation(a, b):
    """Of the coordinates of embeddings (n, d) and (n, d) over the batch: (d, d), in -1..1."""
    a, b = (F.normalize(z - z.mean(0), dim=0) for z in (a, b))
    return a.T @ b
