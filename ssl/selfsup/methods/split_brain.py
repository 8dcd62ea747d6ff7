"""Split-brain autoencoder: colour from lightness and lightness from colour, by two halves that see nothing of each other."""

from typing import Literal

import torch
import torch.nn as nn

from ..arguments import Norm
from ..core.colour import lab_to_rgb
from ..core.precision import cross_entropy, float32, mse_loss
from ..errors import UserError
from ..layers import Decoder, map_side
from ..inputs.views import View
from .base import Method, rows

AB_STEP, AB_SIDE = 10, 23  # bins of 10 × 10 from -115 to 115, all of the plane: those no screen shows are never the truth
L_STEP, L_BINS = 2, 50
COARSE = 4  # pixels of the image to one of the predictions


class SplitBrain(Method):
    """Zhang et al. 2017, "Split-Brain Autoencoders", sections 3.1 and 3.2, eqs. 1-3. https://arxiv.org/abs/1611.09842

    The halves of the encoder `split` predict each other's channels of Lab: L in 50 bins, ab in bins of 10 × 10, or
    (`loss: l2`) as numbers. Cross-entropy against the one bin, without colorization's rebalancing. Predictions are at
    a quarter of the image's resolution, and losses are means over pixels. Transferred are both halves' features, side by side.
    norm: the decoders', "batch" or "group".
    """

    inputs = View("crop_flip")
    means = True
    sensitive = ("loss", "l2")  # the paper's own comparison

    def __init__(self, encoder, card, loss: Literal["classes", "l2"] = "classes", norm: Norm = "batch"):
        super().__init__(encoder)
        if not hasattr(encoder, "lightness"):
            raise UserError("split_brain needs the encoder split, whose halves see lightness and colour alone")
        self.classes = loss == "classes"
        size = card["size"]

        def decoder(half, channels, out):
            decoder = Decoder(half.dim, map_side(half, size, channels), size // COARSE, 64, norm, smallest=64)
            return nn.Sequential(decoder, nn.ReLU(), nn.Conv2d(64, out, 1))

        self.to_colour = decoder(encoder.lightness, 1, AB_SIDE**2 if self.classes else 2)
        self.to_lightness = decoder(encoder.colour, 2, L_BINS if self.classes else 1)

    def predict(self, x):
        """Images (N, 3, S, S) -> predictions of L and of ab (N, bins or channels, S/4, S/4), and the truth, in the
        encoder's units (N, 1, S/4, S/4) and (N, 2, S/4, S/4)."""
        lightness, colour = self.encoder.lab(x)
        to_colour = self.to_colour(self.encoder.lightness.features(lightness))
        to_lightness = self.to_lightness(self.encoder.colour.features(colour))
        return to_lightness, to_colour, lightness[..., ::COARSE, ::COARSE], colour[..., ::COARSE, ::COARSE]

    def bins(self, lightness, colour):
        """L and ab -> numbers of their bins (N, S/4, S/4)."""
        ab = (colour * 50 / AB_STEP).round().long() + AB_SIDE // 2
        return ((lightness[:, 0] + 1) * 50 / L_STEP).long().clamp(0, L_BINS - 1), ab[:, 0] * AB_SIDE + ab[:, 1]

    def forward(self, batch):
        to_lightness, to_colour, lightness, colour = self.predict(batch["image"])
        if self.classes:
            l_bin, ab_bin = self.bins(lightness, colour)
            losses = cross_entropy(to_lightness, l_bin), cross_entropy(to_colour, ab_bin)
        else:
            losses = mse_loss(to_lightness, lightness), mse_loss(to_colour, colour)
        return {"loss": sum(losses), "loss_lightness": losses[0].detach(), "loss_colour": losses[1].detach()}

    @float32
    def expected(self, to_lightness, to_colour):
        """The mean of what is predicted, L and ab in the encoder's units."""
        if not self.classes:
            return to_lightness, to_colour
        middle = (torch.arange(L_BINS, device=to_colour.device) + 0.5) * L_STEP / 50 - 1
        side = (torch.arange(AB_SIDE, device=to_colour.device) - AB_SIDE // 2) * AB_STEP / 50
        lightness = torch.einsum("nqhw,q->nhw", to_lightness.float().softmax(1), middle)[:, None]
        share = to_colour.float().softmax(1).unflatten(1, (AB_SIDE, AB_SIDE))
        a, b = (torch.einsum("nqhw,q->nhw", share.sum(other), side) for other in (2, 1))
        return lightness, torch.stack([a, b], 1)

    @torch.no_grad()
    def pictures(self, batch):
        """image_colour_lightness: A column is an image of val: from the top itself; its lightness with the colours that
        one half of the network predicts from it; its colours with the lightness that the other half predicts from
        them."""
        to_lightness, to_colour, lightness, colour = self.predict(batch["image"][:8])
        guess_l, guess_ab = self.expected(to_lightness, to_colour)
        pairs = (lightness, colour), (lightness, guess_ab), (guess_l, colour)
        images = [lab_to_rgb(torch.cat([50 * (light + 1), 50 * ab], 1)) for light, ab in pairs]
        return {"image_colour_lightness": rows(torch.stack(images, 1))}
