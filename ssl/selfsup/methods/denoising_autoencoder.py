"""Denoising autoencoder: the clean image from one with pixels missing."""

import torch

from ..arguments import Norm, Share
from ..core import rng
from ..layers import Decoder, map_side
from ..inputs.views import View
from .base import Method, denormalise, rows


class DenoisingAutoencoder(Method):
    """Vincent et al. 2008, section 2.3. https://doi.org/10.1145/1390156.1390294

    As in the paper, exactly the share `corruption` of each image's pixels is chosen at random and forced to zero. Zero
    here is the mean colour, since the images are normalised: like the paper's zero, it says nothing and adds nothing to
    the first layer. A pixel loses all its channels, or the others would give it away. The loss is the squared error, as
    in section 2.2 (the paper's experiments, on pixels in 0..1, take the cross-entropy); the networks are convolutional.
    norm: the decoder's, "batch" or "group".
    """

    inputs = View("none")
    means = True
    sensitive = ("corruption", 0.5)  # chosen for each data set in the paper

    def __init__(self, encoder, card, corruption: Share = 0.25, norm: Norm = "batch"):
        super().__init__(encoder)
        self.corruption = corruption
        self.decoder = Decoder(encoder.dim, map_side(encoder, card["size"]), card["size"], norm=norm)

    def corrupt(self, x, key):
        """Images (N, C, H, W) with pixels set to zero, chosen by each sample's key (N,)."""
        n, _, h, w = x.shape
        lost = rng.uniform(key, h * w).argsort(1)[:, : round(self.corruption * h * w)]
        kept = torch.ones(n, h * w, dtype=x.dtype, device=x.device).scatter(1, lost, 0)
        return x * kept.view(n, 1, h, w)

    def forward(self, batch):
        x = batch["image"]
        corrupted = self.corrupt(x, batch["key"])
        mse = (self.decoder(self.encoder.features(corrupted)) - x).square().mean()
        return {"loss": mse, "mse": mse.detach(), "mse_corrupted": (corrupted - x).square().mean()}

    @torch.no_grad()
    def pictures(self, batch):
        """clean_corrupted_reconstruction: A column is an image of val: from the top itself, with the pixels that are
        taken away (grey), which is all that the network sees, and what it makes of that."""
        x, key = batch["image"][:8], batch["key"][:8]
        corrupted = self.corrupt(x, key)
        reconstruction = self.decoder(self.encoder.features(corrupted))
        return {"clean_corrupted_reconstruction": rows(denormalise(torch.stack([x, corrupted, reconstruction], 1)))}
