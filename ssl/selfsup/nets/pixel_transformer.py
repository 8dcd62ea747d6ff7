"""A causal transformer over the pixels of a small image, read like text (iGPT: Chen et al. 2020)."""

from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Depth, Range, Width
from ..layers import Block, ImageEncoder, sincos


class PixelTransformer(ImageEncoder):
    """Images (N, 3, H, W) -> features (N, dim), the mean over pixels, as iGPT's after the layer norm of a layer.

    The image is shrunk to `pixels` × `pixels`, each pixel replaced by the nearest colour of a palette, and these tokens
    are read in raster order. Features at a pixel know only those before it. The palette is a grid of levels³ colours;
    images come normalised, so the trainer states with what by `normalised_with`; that is part of the weights.
    """

    def __init__(
        self,
        pixels: Annotated[int, Range(ge=1, le=64)] = 16,
        levels: Annotated[int, Range(ge=2, le=32)] = 4,
        dim: Width = 128,
        depth: Depth = 4,
        heads: Depth = 4,
    ):
        super().__init__()
        self.pixels, self.levels, self.colours, self.dim = pixels, levels, levels**3, dim
        self.embed = nn.Embedding(self.colours + 1, dim)  # the last one stands before the first pixel
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        # Fixed positions, where iGPT learns them: a small budget need not find out which pixel is above which.
        self.register_buffer("position", sincos(pixels, pixels, dim), persistent=False)
        self.register_buffer("causal", torch.ones(pixels**2, pixels**2, dtype=torch.bool).tril(), persistent=False)
        self.register_buffer("palette", torch.empty(self.colours, 3))
        self.normalised_with({"mean": [0.5] * 3, "std": [0.25] * 3})

    def normalised_with(self, card):
        """Take the mean and standard deviation of images from the data card."""
        super().normalised_with(card)
        level = (torch.arange(self.levels) + 0.5) / self.levels
        grid = torch.cartesian_prod(level, level, level)
        self.palette.copy_((grid - torch.tensor(card["mean"])) / torch.tensor(card["std"]))

    def quantise(self, x):
        """Images (N, 3, H, W) -> tokens (N, pixels²), numbers of the palette's colours."""
        colour = F.adaptive_avg_pool2d(x.float(), self.pixels).flatten(2).transpose(1, 2)
        return torch.cdist(colour, self.palette, compute_mode="donot_use_mm_for_euclid_dist").argmin(2)

    def image(self, tokens):
        """Tokens (N, pixels²) -> normalised images (N, 3, pixels, pixels)."""
        return self.palette[tokens].transpose(1, 2).unflatten(2, (self.pixels, self.pixels))

    def hidden(self, tokens):
        """Tokens (N, T) -> maps (N, T, dim), one after each block and the last after the norm. Place t has seen the
        tokens before t, and may thus predict t."""
        start = torch.full_like(tokens[:, :1], self.colours)
        length = tokens.shape[1]
        h = self.embed(torch.cat([start, tokens[:, :-1]], 1)) + self.position[:length]
        states = []
        for block in self.blocks:
            h = block(h, self.causal[:length, :length])
            states.append(h)
        states[-1] = self.norm(h)
        return states

    def layers(self, x):
        return [h.transpose(1, 2).unflatten(2, (self.pixels, self.pixels)) for h in self.hidden(self.quantise(x))]
