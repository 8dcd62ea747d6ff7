"""What a sound looks like to a network: how much there is of each pitch, moment by moment."""

import numpy as np
import torch
import torch.nn as nn

from ..core.precision import float32
from .blocks import Conv2d, norm_layer

WINDOW, HOP = 0.025, 0.010  # seconds, those of speech recognition
QUIET = 1e-6  # the power below which nothing is heard: 60 dB under that of a full wave


class LogMel(nn.Module):
    """Waveforms (N, T) in -1 … 1, `rate` samples a second -> (N, 1, mels, frames), the logarithm of the power in bands
    that are equally wide on the mel scale, low ones first. Divided by 5 as in L³-Net's code, so that numbers are small.

    Silence is log(1e-6) / 5 = -2.8. A frame is 25 ms long, filled up to a power of two, and comes every 10 ms.
    """

    def __init__(self, rate, mels):
        super().__init__()
        self.hop, length = max(1, round(HOP * rate)), max(2, round(WINDOW * rate))
        self.size = 1 << (length - 1).bit_length()
        self.register_buffer("window", torch.hann_window(length), persistent=False)
        self.register_buffer("bands", torch.from_numpy(mel_bands(self.size, rate, mels)), persistent=False)

    @float32
    def forward(self, x):
        # Silence before and after: a reflection, torch's default, needs a sound longer than half a frame.
        spectrum = torch.stft(x, self.size, self.hop, len(self.window), self.window, pad_mode="constant",
                              return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        scale = 16 / len(self.window) ** 2  # so that a sine of amplitude 1 has the power 1, however long the window is
        return ((self.bands @ power * scale).add(QUIET).log() / 5)[:, None]


class SoundNet(nn.Module):
    """Waveforms (N, T), float in -1 … 1 -> features (N, 8·width): the encoder `sound_convnet`, which says more, as a
    part beside an encoder of images."""

    def __init__(self, rate, mels, width, norm="batch"):
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


def mel_bands(size, rate, mels):
    """float32 (mels, size / 2 + 1): the weight of each frequency of a Fourier transform of `size` samples in each band.
    Triangles from the middle of the band below to that of the band above, on HTK's scale 2595 log10(1 + f / 700); a
    band narrower than the frequencies are apart has the nearest one."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    frequency = np.arange(size // 2 + 1) * rate / size
    low, middle, high = (edges[i : mels + i, None] for i in range(3))
    bands = np.minimum((frequency - low) / (middle - low), (high - frequency) / (high - middle)).clip(0)
    empty = bands.sum(1) == 0
    bands[empty, np.abs(frequency - middle).argmin(1)[empty]] = 1
    return bands.astype(np.float32)
