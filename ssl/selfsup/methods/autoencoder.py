"""Autoencoder: the image again, from a code of few numbers."""

import torch
import torch.nn as nn

from ..arguments import Norm, Width
from ..errors import UserError
from ..layers import Decoder, map_side
from ..inputs.views import View
from .base import Method, denormalise, rows


class Autoencoder(Method):
    """Hinton & Salakhutdinov 2006; Ng, "Sparse autoencoder", CS294A lecture notes, without its sparsity term.
    https://doi.org/10.1126/science.1127647, https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf

    The encoder's whole map goes through `code` numbers, linearly; with linear networks the best code would be PCA's. The
    networks are convolutional and trained together, not layer by layer as in 2006.
    code: how many numbers, H < D = values of an image. norm: the decoder's, "batch" or "group".
    """

    inputs = View("none")
    means = True
    sensitive = ("code", 32)  # 2006's digits have 30

    def __init__(self, encoder, card, code: Width = 128, norm: Norm = "batch"):
        super().__init__(encoder)
        size, channels, side = card["size"], card["channels"], map_side(encoder, card["size"])
        if code >= channels * size**2:
            raise UserError(f"autoencoder: code must be from 1 to {channels * size**2 - 1} numbers, it is {code}")
        area = encoder.dim * side**2
        self.squeeze = nn.Sequential(nn.Flatten(), nn.Linear(area, code))
        self.expand = nn.Sequential(nn.Linear(code, area), nn.Unflatten(1, (encoder.dim, side, side)))
        self.decoder = Decoder(encoder.dim, side, size, channels, norm)

    def code(self, x):
        """Images (N, C, S, S) -> codes (N, H)."""
        return self.squeeze(self.encoder.features(x))

    def forward(self, batch):
        x = batch["image"]
        return {"loss": (self.decoder(self.expand(self.code(x))) - x).square().mean()}

    @torch.no_grad()
    def pictures(self, batch):
        """image_reconstruction: A column is an image of val: above itself, below what the network makes of its code.
"""
        x = batch["image"][:8]
        reconstruction = self.decoder(self.expand(self.code(x)))
        return {"image_reconstruction": rows(denormalise(torch.stack([x, reconstruction], 1)))}
