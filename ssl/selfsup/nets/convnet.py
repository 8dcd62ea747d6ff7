"""A small strided convolutional encoder that two cores can train."""

import torch.nn as nn

from ..arguments import Channels, Depth, Norm, Width
from ..layers import Conv2d, ImageEncoder, norm_layer


class ConvNet(ImageEncoder):
    """Five layers of 3×3 convolutions, width → 8·width channels, stride 16 in all (1.0 M parameters at width 32).

    Images (N, channels, H, W) -> features (N, 8·width). convs: convolutions a layer, of which the first strides.
    """

    def __init__(self, width: Width = 32, norm: Norm = "batch", channels: Channels = 3, convs: Depth = 1):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 8 * width, 8 * width]
        strides = [2, 2, 2, 2, 1]
        self.blocks = nn.ModuleList(nn.Sequential(*(
            part for i, step in [(before, stride), *[(o, 1)] * (convs - 1)]
            for part in (Conv2d(i, o, 3, step, 1, bias=False), norm_layer(norm, o), nn.ReLU(inplace=True))
        )) for before, o, stride in zip(widths, widths[1:], strides))
        self.dim, self.channels = widths[-1], channels

    def layers(self, x):
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps
