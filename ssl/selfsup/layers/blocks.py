"""What networks are built of: normalisation by name, a transformer block, fixed positions."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..core.precision import float32
from ..errors import UserError


def norm_layer(kind, channels, dims=2):
    # GroupNorm is for runs whose loss must not depend on how the batch is split over processes.
    groups = next(n for n in range(8, 0, -1) if channels % n == 0)  # at most 8, all of a size
    batch_norm = nn.BatchNorm3d if dims == 3 else nn.BatchNorm2d
    return batch_norm(channels) if kind == "batch" else nn.GroupNorm(groups, channels)


class Conv2d(nn.Conv2d):
    """nn.Conv2d, in float32 on CPUs where a map is a pixel wide: there oneDNN leaves taps of a strided convolution's
    bfloat16 weight gradient uninitialised, now and then NaN (PyTorch 2.14.1)."""

    def forward(self, x):
        return (float32(super().forward) if x.device.type == "cpu" and x.shape[3] == 1 else super().forward)(x)


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


class Preactivated(nn.Module):
    """A Wide ResNet's unit on (N, d_in, H, W): BatchNorm, a leaky ReLU and a convolution, twice, beside a way past
    them. Where the shape changes, what was activated goes past, by a convolution of its own."""

    def __init__(self, d_in, d_out, stride, slope):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(d_in), nn.Conv2d(d_in, d_out, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(d_out), nn.Conv2d(d_out, d_out, 3, 1, 1, bias=False)
        self.past = nn.Conv2d(d_in, d_out, 1, stride, bias=False) if (d_in, stride) != (d_out, 1) else None
        self.slope = slope

    def forward(self, x):
        active = F.leaky_relu(self.norm1(x), self.slope)
        own = self.conv2(F.leaky_relu(self.norm2(self.conv1(active)), self.slope))
        return own + (x if self.past is None else self.past(active))


def sincos(h, w, dim):
    """Fixed 2-D sine-cosine position embedding, (h·w, dim), as in MAE: half of the channels for y, half for x."""
    if dim % 4:
        raise UserError(f"a transformer's width ({dim}) must be divisible by 4, for its positions")
    rates = torch.exp(-math.log(10000) * torch.arange(dim // 4) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    angles = [position.reshape(-1, 1) * rates for position in (y, x)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)
