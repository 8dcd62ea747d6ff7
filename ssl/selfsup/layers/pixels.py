"""Heads that say something of every pixel, from an encoder's maps."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..core.maps import at_side
from .blocks import Conv2d


class Mask(nn.Module):
    """Maps, shallow to deep, the last one (N, dim, start, start), -> logits (N, 1, side, side), each of them by the whole
    last map."""

    def __init__(self, dim, start, side):
        super().__init__()
        self.side = side
        self.linear = nn.Linear(dim * start**2, side**2)

    def forward(self, maps):
        return self.linear(maps[-1].flatten(1)).view(-1, 1, self.side, self.side)


class Hypercolumns(nn.Module):
    """Maps (N, C_i, h, w), shallow to deep, -> vectors of each pixel, (N, dim, side, side), by two layers from what all
    maps have at its place: the first one's share of each map is taken before it is enlarged,
    which comes to the same."""

    def __init__(self, channels, dim, side, hidden=64):
        super().__init__()
        self.side = side
        self.each = nn.ModuleList(Conv2d(c, hidden, 1) for c in channels)
        self.last = Conv2d(hidden, dim, 1)

    def forward(self, maps):
        parts = [at_side(layer(x), self.side) for layer, x in zip(self.each, maps, strict=True)]
        return self.last(F.relu(torch.stack(parts).sum(0)))
