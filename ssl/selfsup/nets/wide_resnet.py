"""Wide ResNet as CIFAR has it, for images of 32 pixels, the network of the papers on few labels."""

import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Channels, Depth, Width
from ..errors import UserError
from ..layers import ImageEncoder, Preactivated


class WideResNet(ImageEncoder):
    """WRN-depth-width (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146, table 1): three stages of (depth -
    4) / 6 units, of 16, 32 and 64 times `width` channels at strides 1, 2 and 4. WRN-28-2, 1.5 M parameters, by default,
    with leaky ReLUs of slope 0.1 as in Oliver et al. 2018 (https://arxiv.org/abs/1804.09170) and those after them.

    Images (N, channels, H, W) -> features (N, 64 · width).
    """

    def __init__(self, depth: Depth = 28, width: Width = 2, channels: Channels = 3):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"encoder.depth: a Wide ResNet has 6 n + 4 layers, as 10, 16, 22 or 28, not {depth}")
        units, widths = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Preactivated(i if n == 0 else o, o, stride if n == 0 else 1, 0.1) for n in range(units)))
            for i, o, stride in zip(widths, widths[1:], (1, 2, 2))
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.dim, self.channels = widths[-1], channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", a=0.1)

    def layers(self, x):
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [*maps[:-1], F.leaky_relu(self.norm(maps[-1]), 0.1)]
