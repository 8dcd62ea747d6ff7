"""A small convolutional encoder of sets of points, which it reads as a grid of cubes, full or empty."""

from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Norm, Range, Width
from ..core.precision import float32
from ..layers import norm_layer


class VoxelConvNet(nn.Module):
    """Points (N, P, 3 or more) -> features (N, 8·width), by 3×3×3 convolutions on a grid of `grid`³ voxels.

    DepthContrast (Zhang et al. 2021, section 3.2, https://arxiv.org/abs/2101.02691) reads the same points in two
    formats; this is the second one, dense where the paper's is a sparse U-Net, since few points fill a small grid. The
    grid is a cube about the middle of the points, which reaches to the farthest of them. Only x, y, z count.
    """

    takes = "points"

    def __init__(
        self,
        grid: Annotated[int, Range(ge=4, le=256)] = 24,
        width: Width = 16,
        norm: Norm = "batch",
    ):
        super().__init__()
        self.grid = grid
        widths, strides = [1, width, 2 * width, 4 * width, 8 * width], [1, 2, 2, 2]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv3d(i, o, 3, stride, 1, bias=False), norm_layer(norm, o, 3), nn.ReLU(inplace=True))
            for i, o, stride in zip(widths, widths[1:], strides)
        )
        self.dim = widths[-1]

    def prepare(self, column):
        """Points as readers give them; of several scans of a thing, (N, S, P, coordinates), the first, since each is from
        a place of its own."""
        return (column[:, 0] if column.dim() == 4 else column).float()

    def layers(self, x):
        """Maps (N, C, depth, height · width) from shallow to deep."""
        x, maps = voxels(x, self.grid), []
        for block in self.blocks:
            x = block(x)
            maps.append(x.flatten(3))
        return maps

    def features(self, x):
        return self.layers(x)[-1]

    def forward(self, x):
        return self.features(x).mean((2, 3))


@torch.no_grad()
@float32
def voxels(x, grid):
    """Points (N, P, C) -> occupancy (N, 1, grid, grid, grid), 0 or 1, of axes x, y, z."""
    place = x[:, :, :3] - x[:, :, :3].mean(1, keepdim=True)
    reach = place.norm(dim=2).amax(1)[:, None, None].clamp(min=1e-6)
    cell = ((place / reach + 1) * (grid / 2)).long().clamp(0, grid - 1)
    index = (cell[:, :, 0] * grid + cell[:, :, 1]) * grid + cell[:, :, 2]
    full = torch.zeros(len(x), grid**3, device=x.device).scatter_(1, index, 1.0)
    return full.view(-1, 1, grid, grid, grid)
