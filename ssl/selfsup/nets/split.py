"""Two networks side by side, one for an image's lightness and one for its colour."""

import torch

from ..arguments import Pixels
from ..core.colour import rgb_to_lab
from ..layers import ImageEncoder


class Split(ImageEncoder):
    """Lab's L to one network of the kind `half`, its a and b to another; features are the two side by side.

    Split-brain autoencoders (Zhang et al. 2017) and CMC (Tian et al. 2020) need the halves to see nothing of each other.
    half: configuration of either network, as for nets.build; it is given `channels` and, where it names one, `size`.
    Images come normalised, with what the trainer states by `normalised_with`; that is part of the weights.
    """

    def __init__(self, half: dict, size: Pixels = 32):
        super().__init__()
        from . import build

        self.lightness, self.colour = (build(**{**half, "channels": count}, card={"size": size}) for count in (1, 2))
        self.dim = self.lightness.dim + self.colour.dim
        self.register_buffer("pixel_mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), 0.25))

    def normalised_with(self, card):
        """Take the mean and standard deviation of images from the data card."""
        super().normalised_with(card)
        self.pixel_mean.copy_(torch.tensor(card["mean"])[:, None, None])
        self.pixel_std.copy_(torch.tensor(card["std"])[:, None, None])

    def lab(self, x):
        """Normalised images (N, 3, H, W) -> L (N, 1, H, W) and ab (N, 2, H, W), both roughly in -1..1."""
        lab = rgb_to_lab((x * self.pixel_std + self.pixel_mean).clamp(0, 1))
        return lab[:, :1] / 50 - 1, lab[:, 1:] / 50

    def layers(self, x):
        lightness, colour = self.lab(x)
        return [torch.cat(maps, 1) for maps in zip(self.lightness.layers(lightness), self.colour.layers(colour))]
