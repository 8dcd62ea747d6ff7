"""Counting: the parts of an image hold together as many things as the whole."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Weight, Width
from ..core.distributed import gather, rank
from ..core.precision import float32
from ..errors import UserError
from ..inputs.views import View
from .base import Method


class Counting(Method):
    """Noroozi et al. 2017, "Representation Learning by Learning to Count", eq. 4. https://arxiv.org/abs/1708.06734

        ‖φ(D∘x) − Σⱼ φ(Tⱼ∘x)‖² + contrastive · max(0, M − ‖φ(D∘y) − Σⱼ φ(Tⱼ∘x)‖²)

    D halves the image's side, Tⱼ are its four quarters, φ is the encoder and a linear layer with a ReLU: `counts` numbers,
    none below 0 (1,000 in the paper). y is another image, here the next one in the global batch.

    margin: M, 10 as in the paper. contrastive: 0 leaves the second term out, and φ = 0 solves the rest.
    D averages 2 × 2 pixels; the paper draws one of several ways to downsample, as each leaves traces of its own, and
    makes two thirds of the images grey, against chromatic aberration, which generated images do not have.
    """

    inputs = View("crop_flip")
    sensitive = ("margin", 1.0)  # M, which sets how far apart the counts of two images are; not varied in the paper

    def __init__(self, encoder, card, counts: Width = 1000, margin: Weight = 10.0, contrastive: Weight = 1.0):
        super().__init__(encoder)
        if card["size"] % 2:
            raise UserError(f"counting cannot halve images of {card['size']} pixels: choose an even `size` of the data set")
        self.head = nn.Sequential(nn.Linear(encoder.dim, counts), nn.ReLU())
        self.margin, self.contrastive = margin, contrastive

    def count(self, x):
        """φ of the whole at half the side, and summed over the quarters: (N, counts) each, of images (N, C, S, S)."""
        half = x.shape[-1] // 2
        quarters = [x[..., top : top + half, left : left + half] for top in (0, half) for left in (0, half)]
        counts = self.head(self.encoder(torch.cat([F.avg_pool2d(x, 2), *quarters]))).unflatten(0, (5, -1))
        return counts[0], float32(torch.sum)(counts[1:], 0)

    def forward(self, batch):
        return self.objective(*self.count(batch["image"]))

    @float32
    def objective(self, whole, parts):
        n = len(whole)
        other = gather(whole).roll(-1, 0)[rank() * n : (rank() + 1) * n]
        same = (whole - parts).square().sum(1)
        different = (other - parts).square().sum(1)
        loss = same + self.contrastive * F.relu(self.margin - different)
        return {"loss": loss.mean(), "same": same.mean(), "different": different.mean(), "count": whole.sum(1).mean()}
