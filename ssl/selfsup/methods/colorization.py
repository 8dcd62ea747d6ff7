"""Colorization: the colours of an image from its lightness."""

from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Norm, Proportion, Temperature
from ..core.cluster import counted
from ..core.colour import lab_to_rgb, rgb_to_lab
from ..core.distributed import total
from ..core.precision import float32
from ..errors import UserError
from ..layers import Decoder, map_side
from ..inputs.views import View
from .base import Method, rows

GRID = 10  # spacing of the bins in ab
SCALE = 50  # of ab where numbers are predicted


class Colorization(Method):
    """Zhang et al. 2016, "Colorful Image Colorization", eq. 1-5. https://arxiv.org/abs/1603.08511

    loss: "classes", eq. 2 with class rebalancing, or "l2", eq. 1, which averages over what is possible and so is grey.
    Bins are those 261 cells of a grid of 10 in ab into which some colour of a screen falls; the paper has 313, a fifth more,
    at the border. Grey images teach like all others, where the authors' code leaves those out that have no colour
    above 5. Bins' frequencies are counted over the training images as these come, where the paper
    counts ImageNet beforehand. Colours are predicted at half the image's resolution, the paper's quarter being 8 pixels
    here, and losses are means over pixels. The encoder sees the grey image of the same lightness in three channels, so
    that it can be given any image afterwards; the paper's has one channel, L.
    smoothing: λ of eq. 4. temperature: T of eq. 5, for `colours`. norm: the decoder's, "batch" or "group".
    """

    inputs = View("crop_flip")
    sensitive = ("smoothing", 1.0)  # no rebalancing, the paper's ablation

    def __init__(
        self,
        encoder,
        card,
        loss: Literal["classes", "l2"] = "classes",
        smoothing: Proportion = 0.5,
        temperature: Temperature = 0.38,
        norm: Norm = "batch",
    ):
        super().__init__(encoder)
        if card["channels"] != 3:
            raise UserError("colorization needs images with three channels")
        self.classes, self.smoothing, self.temperature = loss == "classes", smoothing, temperature
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(card[name])[:, None, None], persistent=False)
        self.register_buffer("bins", in_gamut(), persistent=False)  # (Q, 2)
        self.register_buffer("counts", torch.zeros(len(self.bins)))  # pixels whose nearest bin this was
        side, out = map_side(encoder, card["size"]), len(self.bins) if self.classes else 2
        decoder = Decoder(encoder.dim, side, card["size"] // 2, 64, norm, smallest=64)
        self.decoder = nn.Sequential(decoder, nn.ReLU(), nn.Conv2d(64, out, 1))

    def lab(self, x):
        """Normalised images (N, 3, S, S) -> L (N, 1, S, S) and, at half the resolution, ab (N, 2, S/2, S/2)."""
        lab = rgb_to_lab((x * self.std + self.mean).clamp(0, 1))
        return lab[:, :1], lab[:, 1:, ::2, ::2]

    def predict(self, lightness):
        """L (N, 1, S, S) -> logits of bins (N, Q, S/2, S/2), or with l2 colours (N, 2, S/2, S/2) in units of SCALE."""
        grey = lab_to_rgb(F.pad(lightness, (0, 0, 0, 0, 0, 2)))  # a = b = 0
        return self.decoder(self.encoder.features((grey - self.mean) / self.std))

    def soft(self, ab):
        """Z of eq. 2: colours (P, 2) -> their five nearest bins (P, 5), nearest first, and weights (P, 5)."""
        distance, which = torch.cdist(ab, self.bins, compute_mode="donot_use_mm_for_euclid_dist").topk(5, largest=False)
        return which, (-0.5 * (distance / 5) ** 2).softmax(1)

    def rarity(self):
        """Eq. 4: weights (Q,) of the bins, 1 on average over the training pixels."""
        smooth = (-0.5 * (torch.cdist(self.bins, self.bins) / 5) ** 2).softmax(1)  # Gaussian of sigma 5
        share = (self.counts + 1e-3) @ smooth
        share = share / share.sum()
        weight = 1 / ((1 - self.smoothing) * share + self.smoothing / len(share))
        return weight / (share * weight).sum()

    @float32
    def colours(self, prediction):
        """Eq. 5, the annealed mean: predictions -> ab (N, 2, S/2, S/2)."""
        if not self.classes:
            return prediction * SCALE
        return torch.einsum("nqhw,qc->nchw", (prediction / self.temperature).softmax(1), self.bins)

    def forward(self, batch):
        lightness, ab = self.lab(batch["image"])
        return self.objective(self.predict(lightness), ab)

    @float32
    def objective(self, prediction, ab):
        """Of predictions and the true ab (N, 2, S/2, S/2)."""
        if self.classes:
            which, weight = self.soft(ab.permute(0, 2, 3, 1).reshape(-1, 2))
            if self.training:
                self.counts += total(counted(which[:, 0], len(self.counts)).to(self.counts))
            log = prediction.permute(0, 2, 3, 1).flatten(0, 2).log_softmax(1)
            entropy = -(weight * log.gather(1, which)).sum(1)
            loss = (self.rarity()[which[:, 0]] * entropy).mean()
        else:
            loss = 0.5 * (prediction - ab / SCALE).square().sum(1).mean()
        with torch.no_grad():
            chroma, true = self.colours(prediction).norm(dim=1).mean(), ab.norm(dim=1).mean()
        return {"loss": loss, "chroma": chroma, "chroma_true": true}

    @torch.no_grad()
    def pictures(self, batch):
        """grey_coloured_true: A column is an image of val: from the top its lightness, which is all that the network
        sees, with the colours that it predicts, and with its true ones."""
        lightness, ab = self.lab(batch["image"][:8])
        painted = [torch.zeros_like(ab), self.colours(self.predict(lightness)), ab]
        painted = [F.interpolate(p, lightness.shape[2:], mode="bilinear") for p in painted]
        return {"grey_coloured_true": rows(torch.stack([lab_to_rgb(torch.cat([lightness, p], 1)) for p in painted], 1))}


def in_gamut():
    """Centres (Q, 2) of the cells of the ab grid that hold some colour of a screen, of 64 levels a channel."""
    level = torch.linspace(0, 1, 64)
    lab = rgb_to_lab(torch.cartesian_prod(level, level, level).view(1, -1, 3, 1).transpose(1, 2))
    cell = (lab[0, 1:, :, 0] / GRID).round().long() + 50
    cell = (100 * cell[0] + cell[1]).unique()  # as one number each: much faster than unique rows
    return torch.stack([cell // 100 - 50, cell % 100 - 50], 1) * float(GRID)
