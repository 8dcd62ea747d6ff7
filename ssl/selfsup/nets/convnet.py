"""Convolutional encoders: a small strided one that two cores can train, and ResNet-18 for 32-pixel images."""

import torch.nn as nn


def norm_layer(kind, channels):
    # GroupNorm is for runs whose loss must not depend on how the batch is split over processes.
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(min(8, channels), channels)


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


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with a 3×3 stem of stride 1 and no max-pooling, the CIFAR convention. dim = 512."""

    def __init__(self, channels=3):
        super().__init__()
        from torchvision.models import resnet18

        net = resnet18(weights=None)
        self.stem = nn.Sequential(nn.Conv2d(channels, 64, 3, 1, 1, bias=False), net.bn1, net.relu)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        self.dim = 512

    def layers(self, x):
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps

    def features(self, x):
        return self.layers(x)[-1]

    def forward(self, x):
        return self.features(x).mean((2, 3))
