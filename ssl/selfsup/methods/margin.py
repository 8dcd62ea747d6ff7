"""Contrastive loss with a margin: an image's views come together, all others are pushed apart up to a distance."""

import torch

from ..arguments import Weight, Width
from ..core.distributed import gather, rank
from ..core.precision import float32, normalize
from ..layers import mlp
from ..inputs.views import Views
from .base import Method


class Margin(Method):
    """Hadsell, Chopra & LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping", eq. 4.
    https://doi.org/10.1109/CVPR.2006.100

    Similar pairs are the two views of an image, where the paper has neighbours in pixel space or known shifts;
    dissimilar ones all other pairs of the batch. As in the paper all pairs are summed up (and divided by the number of
    views): with an average over the pairs of either kind all distances meet at half the margin, and learning stalls.
    margin: the distance beyond which dissimilar pairs are left alone. Embeddings are unit vectors, which gives it a
    scale: the most is 2, and at random distances are about 1.41. The head and its size are those of SimCLR; the paper
    maps to the 2 or 3 dimensions of its figures.
    """

    inputs = Views(2, augment="simclr")
    sensitive = ("margin", 1.4)  # where random pairs are, so that nearly all take part; not varied in the paper

    def __init__(self, encoder, margin: Weight = 1.0, hidden: Width = 2048, dim: Width = 128):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)
        self.margin = margin

    def embed(self, x):
        """Images (N, 2, C, H, W) -> unit vectors (2N, dim); the views of image i are the rows 2i and 2i + 1."""
        return normalize(self.projector(self.encoder(x.flatten(0, 1))), dim=1)

    def forward(self, batch):
        z = self.embed(batch["image"])
        similar, dissimilar = distances(z)
        pull, push = similar.square(), (self.margin - dissimilar).clamp(min=0).square()
        loss = (pull.sum(1) + push.sum(1)).mean() / 2
        return {"loss": loss, "similar": similar.mean(), "dissimilar": dissimilar.mean(), "embedding": z}

    @torch.no_grad()
    def pictures(self, batch):
        """distances: How many pairs of views are how far apart: from left to right distances from 0 to 2; green bars
        upwards are pairs of the same image, red ones downwards pairs of two. The darker line is the margin: what is
        to be seen is green left of it and red on its right."""
        similar, dissimilar = distances(self.embed(batch["image"]))
        up, down = (histogram(d.float().flatten()) for d in (similar, dissimilar))
        sheet = up.new_ones(3, 2 * up.shape[0], up.shape[1])
        sheet[0::2, : len(up)] -= 0.8 * up.flip(0)
        sheet[1:, len(up) :] -= 0.8 * down
        sheet[:, :, min(round(self.margin / 2 * sheet.shape[2]), sheet.shape[2] - 1)] *= 0.6  # the margin
        return {**super().pictures(batch), "distances": sheet}


def histogram(d, bins=32, height=64, cell=8):
    """Bars (height, bins · cell) of ones, from row 0 on, on zeros; the fullest bin is as high as the picture."""
    count = torch.histc(d.cpu(), bins, 0, 2).to(d.device)
    bars = torch.arange(height, device=d.device)[:, None] < height * count / count.max()
    return bars.float().repeat_interleave(cell, 1)


@float32
def distances(z):
    """Euclidean distances of the views (2n, dim) from their images' other views, (2n, 1), and from those of all other
    images of the global batch, (2n, 2N - 2)."""
    # Not by way of inner products, the default: what they lose to rounding matters for close pairs.
    d = torch.cdist(z, gather(z), compute_mode="donot_use_mm_for_euclid_dist")
    me = torch.arange(len(z), device=z.device)[:, None] + rank() * len(z)
    others = torch.arange(d.shape[1] - 2, device=z.device)
    others = others + 2 * (others >= (me & ~1))  # all columns but the image's own two
    return d.gather(1, me ^ 1), d.gather(1, others)
