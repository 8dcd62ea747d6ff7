"""A small convolutional encoder of sounds: a picture of their pitches over time, read like an image."""

from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Norm, Range, Rate, Width
from ..layers import Conv2d, LogMel, norm_layer


class SoundConvNet(nn.Module):
    """Waveforms (N, T), float in -1 … 1 -> features (N, 8·width), the mean over pitch and time.

    The log-mel spectrogram (`layers.LogMel`), made on the device, then five 3×3 convolutions, stride 16 in all, as of
    the encoder `convnet`: a smaller version of L³-Net's for sound (Arandjelović & Zisserman 2017, figure 2,
    https://arxiv.org/abs/1705.08168). rate: the data's, samples a second. Channels of a sound are averaged.
    """

    takes = "sound"

    def __init__(
        self,
        rate: Rate = 16000,
        mels: Annotated[int, Range(ge=8, le=512)] = 64,
        width: Width = 32,
        norm: Norm = "batch",
    ):
        super().__init__()
        self.spectrogram = LogMel(rate, mels)
        widths = [1, width, 2 * width, 4 * width, 8 * width, 8 * width]
        strides = [2, 2, 2, 2, 1]
        self.blocks = nn.ModuleList(
            nn.Sequential(Conv2d(i, o, 3, stride, 1, bias=False), norm_layer(norm, o), nn.ReLU(inplace=True))
            for i, o, stride in zip(widths, widths[1:], strides)
        )
        self.dim = widths[-1]

    def prepare(self, column):
        """PCM as readers give it, int16 (N, channels, T), -> waveforms (N, T), float32 in -1 … 1."""
        return column.float().mean(1) / -torch.iinfo(column.dtype).min

    def layers(self, x):
        """Maps (N, C, pitches, frames) from shallow to deep."""
        x, maps = self.spectrogram(x), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def features(self, x):
        return self.layers(x)[-1]

    def forward(self, x):
        return self.features(x).mean((2, 3))
