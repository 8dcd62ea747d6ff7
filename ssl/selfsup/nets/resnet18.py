"""ResNet-18 as CIFAR has it, for small images: stem of stride 1, no pooling. ImageNet's is timm's, resnet18.a1_in1k."""

import torch.nn as nn

from ..arguments import Channels
from ..layers import ImageEncoder


class ResNet18(ImageEncoder):
    """ResNet-18 (He et al. 2016) with a 3×3 stem of stride 1 and no max-pooling, the CIFAR convention. dim = 512."""

    def __init__(self, channels: Channels = 3):
        super().__init__()
        from torchvision.models import resnet18

        net = resnet18(weights=None)
        self.stem = nn.Sequential(nn.Conv2d(channels, 64, 3, 1, 1, bias=False), net.bn1, net.relu)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3, net.layer4])
        self.dim, self.channels = 512, channels

    def layers(self, x):
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps
