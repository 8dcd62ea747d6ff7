"""A small convolutional encoder of sounds: a picture of their pitches over time, read like an image."""

from typing import Annotated

from ..arguments import Norm, Range, Rate, Width
from ..layers import SoundNet


class SoundConvNet(SoundNet):
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
        super().__init__(rate, mels, width, norm)
