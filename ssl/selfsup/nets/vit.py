"""A small Vision Transformer (Dosovitskiy et al. 2021) that can also encode a subset of its patches (MAE)."""

import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Channels, Depth, Pixels, Width
from ..errors import UserError
from ..layers import Block, ImageEncoder, sincos


class ViT(ImageEncoder):
    """Images (N, channels, size, size) -> features (N, dim), the mean of the patch tokens after the last norm.

    size and patch in pixels. No class token: every method and protocol then pools in the same way.
    """

    def __init__(
        self,
        size: Pixels = 32,
        patch: Pixels = 4,
        dim: Width = 128,
        depth: Depth = 6,
        heads: Depth = 4,
        channels: Channels = 3,
    ):
        super().__init__()
        if size % patch:
            raise UserError(f"encoder.patch: images of {size} pixels cannot be cut into patches of {patch}")
        self.patch, self.grid, self.dim, self.channels = patch, size // patch, dim, channels
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.register_buffer("position", sincos(self.grid, self.grid, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def embedded(self, x):
        """Patch tokens (N, T, dim) with their positions; images of another size stretch the positions over theirs."""
        t = self.embed(x)
        position = self.position
        if t.shape[2:] != (self.grid, self.grid):
            position = position.T.unflatten(1, (self.grid, self.grid))[None]
            position = F.interpolate(position, t.shape[2:], mode="bicubic")[0].flatten(1).T
        return t.flatten(2).transpose(1, 2) + position

    def tokens(self, x, keep=None):
        """Encoded patch tokens (N, T, dim). keep: (N, T) indices of the patches to encode, all of them if None."""
        t = self.embedded(x)
        if keep is not None:
            t = t.gather(1, keep[:, :, None].expand(-1, -1, t.shape[2]))
        for block in self.blocks:
            t = block(t)
        return self.norm(t)

    def attention(self, x):
        """Of the last block, (N, heads, T, T): see Block.attention."""
        t = self.embedded(x)
        for block in self.blocks[:-1]:
            t = block(t)
        return self.blocks[-1].attention(t)

    def layers(self, x):
        t = self.embedded(x)
        side = [length // self.patch for length in x.shape[2:]]
        maps = []
        for block in self.blocks:
            t = block(t)
            maps.append(t)
        maps[-1] = self.norm(t)
        return [m.transpose(1, 2).unflatten(2, side) for m in maps]

    def features(self, x):
        side = [length // self.patch for length in x.shape[2:]]
        return self.tokens(x).transpose(1, 2).unflatten(2, side)

    def forward(self, x):
        return self.tokens(x).mean(1)
