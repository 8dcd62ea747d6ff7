"""A small Vision Transformer (Dosovitskiy et al. 2021) that can also encode a subset of its patches (MAE)."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..errors import UserError


class Block(nn.Module):
    """Pre-norm transformer block on (N, T, dim)."""

    def __init__(self, dim, heads):
        super().__init__()
        if dim % heads:
            raise UserError(f"a transformer's width ({dim}) must be divisible by its number of heads ({heads})")
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def query_key_value(self, x):
        return (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, 2))

    def attention(self, x):
        """What each token attends to (N, heads, T, T), rows summing to 1: for the eye, not used in training."""
        q, k, _ = self.query_key_value(x)
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)

    def forward(self, x, mask=None):
        q, k, v = self.query_key_value(x)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def sincos(h, w, dim):
    """Fixed 2-D sine-cosine position embedding, (h·w, dim), as in MAE: half of the channels for y, half for x."""
    if dim % 4:
        raise UserError(f"a transformer's width ({dim}) must be divisible by 4, for its positions")
    rates = torch.exp(-math.log(10000) * torch.arange(dim // 4) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [position.reshape(-1, 1) * rates for position in (y, x)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


class ViT(nn.Module):
    """Images (N, channels, size, size) -> features (N, dim), the mean of the patch tokens after the last norm.

    size and patch in pixels. No class token: every method and protocol then pools in the same way.
    """

    def __init__(self, size=32, patch=4, dim=128, depth=6, heads=4, channels=3):
        super().__init__()
        if size % patch:
            raise UserError(f"encoder.patch: images of {size} pixels cannot be cut into patches of {patch}")
        self.patch, self.grid, self.dim = patch, size // patch, dim
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
