"""BYOL: predict what a slowly moving average of oneself makes of the other view, without any negatives."""

import torch
import torch.nn as nn

from ..arguments import Proportion, Width
from ..core.precision import cosine_similarity
from ..layers import mlp
from ..training.state import Ema, rising
from ..inputs.views import Views
from .base import Method


class BYOL(Method):
    """Grill et al. 2020, "Bootstrap Your Own Latent", eqs. 1 and 2, Algorithm 1. https://arxiv.org/abs/2006.07733

    hidden, dim: widths of the projector's and the predictor's two layers; the second ones have a bias, which the authors'
    have not.
    momentum: of the target network (the paper's τ), which rises to 1 along a cosine. 0.996 averages over hundreds of
    steps and the paper trains for hundreds of thousands; a run of some hundred steps needs about 0.95.
    Views are the paper's without blur (see views.py).
    """

    inputs = Views(2, augment="asym")
    means = True
    sensitive = ("momentum", 0.99)  # the best of table 5a, at 300 epochs; 0.996 is for 1,000

    def __init__(self, encoder, hidden: Width = 4096, dim: Width = 256, momentum: Proportion = 0.996):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)
        self.predictor = mlp(dim, hidden, dim)
        self.target = Ema(self.online)
        self.momentum = momentum

    @property
    def online(self):
        return nn.Sequential(self.encoder, self.projector)  # built anew: registered, its weights would have two names

    def forward(self, batch):
        x1, x2 = batch["image"].unbind(1)
        z1, z2 = self.online(x1), self.online(x2)
        loss = distance(self.predictor(z1), self.target(x2)) + distance(self.predictor(z2), self.target(x1))
        return {"loss": loss, "embedding": torch.cat([z1, z2])}

    def after_step(self, progress):
        self.target.update(self.online, rising(self.momentum, progress))


def distance(prediction, target):
    """Squared Euclidean distance of the normalised vectors, averaged over the batch."""
    return (2 - 2 * cosine_similarity(prediction, target, dim=1)).mean()
