"""AMDIM: the whole of one view finds the places of the other view, at several scales."""

import torch

from ..arguments import Scale, Weight, Width
from ..core.distributed import gather, rank
from ..core.precision import float32
from ..training.losses import local_info_nce
from ..layers import map_shapes, mlp
from ..inputs.views import Views
from .base import Method


class AMDIM(Method):
    """Bachman et al. 2019, "Learning Representations by Maximizing Mutual Information Across Views", eqs. 3-6.
    https://arxiv.org/abs/1906.00910

    Views are SimCLR's, each with a flip of its own; the paper's colours are weaker, and its flip is the same for both.
    Deep InfoMax between two views, at several scales. The paper predicts 7 × 7 and 5 × 5 maps of one view from the 1 × 1
    of the other, and 5 × 5 from 5 × 5; here these are the encoder's middle map and the next, 4 × 4 and 2 × 2 for the ConvNet
    at 32 pixels. Each pair goes both ways. The paper's mixture of features is left out.
    clip: scores are softly kept in -clip..clip. penalty: weight of their squares before that (section 3.4),
    0.05 in the authors' code.
    """

    inputs = Views(2, augment="simclr")
    sensitive = ("augment", "simsiam")  # colours are in the paper's ablation; the authors' are about as weak

    def __init__(
        self,
        encoder,
        card,
        hidden: Width = 512,
        dim: Width = 512,
        clip: Scale = 20.0,
        penalty: Weight = 0.04,
    ):
        super().__init__(encoder)
        shapes = map_shapes(encoder, card["size"])
        self.fine, self.coarse = len(shapes) // 2, min(len(shapes) // 2 + 1, len(shapes) - 1)
        self.global_head = mlp(encoder.dim, hidden, dim)
        self.fine_head, self.coarse_head = (mlp(shapes[i][0], hidden, dim) for i in (self.fine, self.coarse))
        self.clip, self.penalty = clip, penalty

    def embed(self, x):
        """Images (n, C, H, W) -> places at three scales, each (n, P, dim): the whole (P = 1), the coarse and the fine map."""
        maps = self.encoder.layers(x)
        whole = self.global_head(maps[-1].mean((2, 3)))[:, None]
        pairs = ((self.coarse_head, maps[self.coarse]), (self.fine_head, maps[self.fine]))
        return whole, *(head(m.flatten(2).transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)) for head, m in pairs)

    @float32
    def objective(self, query, place):
        """Loss and penalty of predicting places (n, P, dim) of one view from places (n, Q, dim) of the other."""
        image = (torch.arange(len(query), device=query.device) + rank() * len(query)).repeat_interleave(query.shape[1])
        scores = torch.einsum("qd,mpd->qmp", query.flatten(0, 1), gather(place)) / query.shape[2] ** 0.5
        return local_info_nce(self.clip * torch.tanh(scores / self.clip), image) + self.penalty * scores.square().mean()

    def forward(self, batch):
        x1, x2 = batch["image"].unbind(1)
        views = self.embed(x1), self.embed(x2)
        loss = 0
        for (whole, coarse, _), (_, other_coarse, other_fine) in (views, views[::-1]):
            loss = loss + self.objective(whole, other_coarse) + self.objective(whole, other_fine)
            loss = loss + self.objective(coarse, other_coarse)
        return {"loss": loss / 2, "embedding": torch.cat([whole[:, 0] for whole, _, _ in views])}
