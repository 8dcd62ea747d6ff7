"""Contrastive predictive coding: from the upper rows of an image's patches, pick the patches further down."""

import torch
import torch.nn as nn

from ..arguments import Count, Depth, Pixels, Temperature, Width
from ..core.precision import normalize
from ..errors import UserError
from ..training.losses import info_nce
from ..training.patches import cut, regular_grid
from ..inputs.views import View
from ..layers import map_shapes
from .base import Method, denormalise, rows


class CPC(Method):
    """Hénaff et al. 2020, "Data-Efficient Image Recognition with Contrastive Predictive Coding", eq. 1-2 and the
    pseudocode of its appendix. https://arxiv.org/abs/1905.09272
    van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", eq. 4.
    https://arxiv.org/abs/1807.03748

    The encoder sees each patch of a grid on its own. A network that looks to the sides and upwards alone makes a context of
    each place; from it a linear map for each distance predicts the patch that many rows below, among all patches of the
    batch that have at least as many rows above them; in the pseudocode, all. Predictions go
    downwards, as in 2018; in 2020 to all four sides.
    patch, stride: in pixels. The papers' 64 and 32 of 256 would be 8 and 4 of 32, of which the encoder's last layers see
    a single place; patches of 16 teach them more.
    nearest, farthest: rows from a context to what it predicts. A near patch shares pixels with its context, so that 1
    could be solved by copying.
    temperature: of cosines; the pseudocode has inner products of any length times 0.1, with which few steps teach less.
    hidden, blocks: of the context network, the pseudocode's with 64 channels where it has 256.
    Left out: the augmentation of each patch by itself. The papers keep BatchNorm out of the encoder, since through it a
    patch learns of the others; `norm: group` does so here.
    """

    inputs = View("crop_flip")
    sensitive = ("temperature", 0.2)  # of cosines the papers have none; instance discrimination is sensitive to it

    def __init__(
        self,
        encoder,
        card,
        patch: Pixels = 16,
        stride: Pixels = 4,
        nearest: Count = 2,
        farthest: Count = 4,
        dim: Width = 64,
        temperature: Temperature = 0.1,
        hidden: Width = 64,
        blocks: Depth = 5,
    ):
        super().__init__(encoder)
        self.patch, self.stride = patch, stride
        self.grid = (card["size"] - patch) // stride + 1
        if not 1 <= nearest <= farthest < self.grid:
            raise UserError(
                f"cpc: with {self.grid} rows of patches it predicts from 1 to {self.grid - 1} rows below, "
                f"not from {nearest} to {farthest}"
            )
        map_shapes(encoder, patch)  # raises where it cannot take them
        self.distances, self.temperature = range(nearest, farthest + 1), temperature
        self.context = nn.Sequential(*(Causal(encoder.dim, hidden) for _ in range(blocks)), nn.ReLU())
        self.target = nn.Conv2d(encoder.dim, dim, 1)
        self.predict = nn.ModuleList(nn.Conv2d(encoder.dim, dim, 1) for _ in self.distances)  # W_k of eq. 1

    def cut(self, x):
        """Images (N, C, S, S) -> patches (N, grid², C, patch, patch), row by row."""
        return cut(x, regular_grid(len(x), x.shape[-1], self.patch, self.stride, x.device), self.patch)

    def vectors(self, x):
        """For each distance k, unit vectors of the predictions and of what they are to find, (N, grid - k, grid, dim)."""
        z = self.encoder(self.cut(x).flatten(0, 1))
        z = z.view(len(x), self.grid, self.grid, -1).permute(0, 3, 1, 2)  # each from its patch alone
        context, target = self.context(z), self.target(z)
        pairs = [(predict(context[:, :, :-k]), target[:, :, k:]) for k, predict in zip(self.distances, self.predict)]
        return [[normalize(v.permute(0, 2, 3, 1), dim=-1) for v in pair] for pair in pairs]

    def forward(self, batch):
        out, vectors = {"loss": 0}, self.vectors(batch["image"])
        for k, (guess, target) in zip(self.distances, vectors):
            loss, accuracy = info_nce(guess.flatten(0, 2), target.flatten(0, 2), self.temperature)  # eq. 2
            out["loss"] = out["loss"] + loss
            out[f"accuracy_{k}"] = accuracy
        return {**out, "embedding": target.flatten(0, 2)}

    @torch.no_grad()
    def pictures(self, batch):
        """picks: A column is an image: on top the patch in the middle of its lowest row; below it, row after row, the
        patch that is picked for this place among those of all images, from what stands ever farther above it. Right
        is the top patch again."""
        x = batch["image"][:8]
        patch, column = denormalise(self.cut(x)), self.grid // 2
        sheet = [patch[:, -self.grid + column]]
        for k, (guess, target) in zip(self.distances, self.vectors(x)):
            pick = (guess[:, -1, column] @ target.flatten(0, 2).T).argmax(1)
            sheet.append(patch[:, k * self.grid :].flatten(0, 1)[pick])
        return {**super().pictures(batch), "picks": rows(torch.stack(sheet, 1))}


class Causal(nn.Module):
    """A residual block on a map (N, D, H, W) whose row r depends on rows r - 1 and r: the pseudocode's PixelCNN."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(dim, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
            nn.ZeroPad2d((0, 0, 1, 0)),  # a row above and none below
            nn.Conv2d(hidden, hidden, (2, 1)),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, dim, 1),
        )

    def forward(self, x):
        return x + self.net(x)
