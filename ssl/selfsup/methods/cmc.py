"""CMC: an image's lightness finds its own colour among the batch's, and the colour its lightness."""

import torch
import torch.nn as nn

from ..arguments import Temperature, Width
from ..core.precision import normalize
from ..errors import UserError
from ..training.losses import info_nce
from ..inputs.views import View
from .base import Method, affinity, denormalise, rows


class CMC(Method):
    """Tian et al. 2020, "Contrastive Multiview Coding", eqs. 2-4, with the views L and ab. https://arxiv.org/abs/1906.05849

    The encoder is `split`, whose halves see L and ab of the same crop and nothing of each other; features are the two
    side by side. A linear layer takes each half to the sphere, as in the paper. Negatives are the other images of the
    batch; the paper draws 16,384 of them from a memory bank.
    """

    inputs = View("crop_flip")
    sensitive = ("temperature", 0.2)  # about that of the authors' next paper, InfoMin

    def __init__(self, encoder, dim: Width = 128, temperature: Temperature = 0.07):
        super().__init__(encoder)
        if not hasattr(encoder, "lightness"):
            raise UserError("cmc needs the encoder split, whose halves see lightness and colour: encoder.name: split")
        self.lightness_head = nn.Linear(encoder.lightness.dim, dim)
        self.colour_head = nn.Linear(encoder.colour.dim, dim)
        self.temperature = temperature

    def embed(self, x):
        """Unit vectors of the images' lightness and of their colour, each (N, dim)."""
        lightness, colour = self.encoder.lab(x)
        lightness = self.lightness_head(self.encoder.lightness(lightness))
        colour = self.colour_head(self.encoder.colour(colour))
        return normalize(lightness, dim=1), normalize(colour, dim=1)

    def forward(self, batch):
        lightness, colour = self.embed(batch["image"])
        to_colour, accuracy = info_nce(lightness, colour, self.temperature)
        to_lightness, _ = info_nce(colour, lightness, self.temperature)
        return {"loss": to_colour + to_lightness, "accuracy": accuracy, "embedding": torch.cat([lightness, colour])}

    @torch.no_grad()
    def pictures(self, batch):
        """views: A column is an image of val: from the top itself, its lightness (L of Lab: black 0, white 100), and
        its two colour channels a (green is dark, magenta light) and b (blue is dark, yellow light). Lightness is one
        view, the colour channels are the other.
        affinity: A row is an image's lightness, a column an image's colour, each cell the cosine of their embeddings
        (black −1, opposite; white 1, the same). On the diagonal, which is to be the lightest, are lightness and
        colour of the same image."""
        x = batch["image"][:8]
        lightness, colour = self.encoder.lab(x)
        a, b = colour.split(1, 1)
        shown = [denormalise(x), *((v.expand(-1, 3, -1, -1).clamp(-1, 1) + 1) / 2 for v in (lightness, a, b))]
        return {"views": rows(torch.stack(shown, 1)), "affinity": affinity(*self.embed(batch["image"][:32]))}
