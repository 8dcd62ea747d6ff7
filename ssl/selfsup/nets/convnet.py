"""A small strided convolutional encoder that two cores can train."""

import torch.nn as nn

from ..layers import norm_layer


class ConvNet(nn.Module):
    """Five 3×3 convolutions, width → 8·width channels, stride 16 in all (1.0 M parameters at width 32).

    Images (N, channels, H, W) -> features (N, 8·width).
    """

    def __init__(self, width=32, norm="batch", channels=3):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 8 * width, 8 * width]
        strides = [2, 2, 2, 2, 1]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), norm_layer(norm, o), nn.ReLU(inplace=True))
            for i, o, stride in zip(widths, widths[1:], strides)
        )
        self.dim = widths[-1]

    def layers(self, x):
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def features(self, x):
        return self.layers(x)[-1]

    def forward(self, x):
        return self.features(x).mean((2, 3))
