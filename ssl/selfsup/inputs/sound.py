"""What a sound becomes for a method: a waveform, a little louder or quieter, earlier or later."""

from dataclasses import dataclass

import torch

from ..arguments import Share
from ..core import rng
from .augment import Augment
from .views import View, keys

GAIN, SHIFT = 1, 2  # salts: each use of the random numbers has its own


@dataclass(frozen=True)
class Sound:
    """batch["sound"] becomes a waveform, float (N, T) in about -1 … 1, of PCM (N, channels, T). The spectrogram is made
    by the encoder, which knows the rate.

    gain: most that the amplitude changes, as a share of it (Arandjelović & Zisserman 2017, section 3.1: 10 %). shift:
    most that it moves, as a share of its length; silence comes in where it leaves.
    """

    gain: Share = 0.1
    shift: Share = 0.1
    columns: tuple = ("sound",)

    def __call__(self, batch, seed, mean, std):
        key = keys(batch, seed)
        return {**batch, "sound": heard(batch["sound"], key, self.gain, self.shift), "key": key}


@dataclass(frozen=True)
class ImageSound:
    """One view of the image, as of `View`, and the sound that belongs to it, as of `Sound`."""

    augment: str | dict | list | Augment = "crop_flip"
    gain: Share = 0.1
    shift: Share = 0.1
    columns: tuple = ("image", "sound")

    def __call__(self, batch, seed, mean, std):
        batch = View(self.augment)(batch, seed, mean, std)
        return {**batch, "sound": heard(batch["sound"], batch["key"], self.gain, self.shift)}


def heard(pcm, key, gain, shift):
    """PCM, integers (N, channels, T), -> waveforms (N, T), float32 in about -1 … 1, one gain and one shift a sound;
    channels are averaged."""
    wave = pcm.float().mean(1) / -torch.iinfo(pcm.dtype).min
    length = wave.shape[1]
    factor = 1 - gain + 2 * gain * rng.uniform(key, 1, salt=GAIN)
    most = int(shift * length)
    start = rng.randint(key, 2 * most + 1, 1, salt=SHIFT) - most
    place = torch.arange(length, device=wave.device) - start
    inside = (place >= 0) & (place < length)
    return wave.gather(1, place.clamp(0, length - 1)) * inside * factor
