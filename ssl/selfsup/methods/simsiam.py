"""SimSiam: each view predicts the other; all that keeps it from collapse is that the predicted one holds still."""

from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Range, Width
from ..core.precision import cosine_similarity
from ..layers import mlp
from ..inputs.views import Views
from .base import Method


class SimSiam(Method):
    """Chen & He 2021, "Exploring Simple Siamese Representation Learning", Algorithm 1, eqs. 1 and 2.
    https://arxiv.org/abs/2011.10566

    hidden, dim: of the projector's layers, each with BatchNorm, the last one's without scale and shift (as in the
    authors' code) and without ReLU. layers: of the projector, 3; on CIFAR-10 the paper has 2 (appendix D).
    bottleneck: the predictor's hidden width, a quarter of `dim` in the paper.
    stop_gradient: False is the paper's ablation (section 4.1). It collapses.
    The paper keeps the predictor's learning rate constant; here it falls with everybody's. It
    is slower than its kin: a hundred steps on scenes do not suffice.
    """

    inputs = Views(2, augment="simsiam")
    means = True
    sensitive = ("bottleneck", 128)  # of the predictor, without which nothing is learned (table 1)

    def __init__(
        self,
        encoder,
        hidden: Width = 2048,
        dim: Width = 2048,
        bottleneck: Width = 512,
        stop_gradient: bool = True,
        layers: Annotated[int, Range(ge=2, le=16)] = 3,
    ):
        super().__init__(encoder)
        head = mlp(encoder.dim, hidden, dim, layers)
        head[-1] = nn.Linear(hidden, dim, bias=False)  # the BatchNorm would subtract a bias
        self.projector = nn.Sequential(*head, nn.BatchNorm1d(dim, affine=False))
        self.predictor = mlp(dim, bottleneck, dim)
        self.stop_gradient = stop_gradient

    def distance(self, p, z):
        """Negative cosine similarity, the paper's D."""
        return -cosine_similarity(p, z.detach() if self.stop_gradient else z, dim=1).mean()

    def forward(self, batch):
        z1, z2 = (self.projector(self.encoder(x)) for x in batch["image"].unbind(1))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return {"loss": (self.distance(p1, z2) + self.distance(p2, z1)) / 2, "embedding": torch.cat([z1, z2])}
