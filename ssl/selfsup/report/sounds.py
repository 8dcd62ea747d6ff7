"""Sounds of a data set, to be seen and heard: a spectrogram and a player each, within the page."""

import base64

import numpy as np
import torch

from selfsup.data import columns, sound
from selfsup.report.pictures import png, queries, sheet

LENGTH, BANDS, FRAMES = 256, 64, 96                      # of a window in samples; of the picture
QUIETEST = 60                                            # dB below the loudest that are shown


def heard(samples, cards):
    """The sounds of each data set, none where another one of the same val sounds has had them: [(class, the picture
    beside, its width or None, the spectrogram, the player)] of a sample of each of the first classes, without labels of
    the first samples."""
    shown = []
    for name, sample in samples.items():
        pcm = sample.columns.get("sound")
        again = pcm is None or any(torch.equal(pcm, other) for other in shown)
        yield [] if again else list(_heard(sample, pcm, columns.of(cards[name])["sound"].rate))
        shown += [] if again else [pcm]


def _heard(sample, pcm, rate):
    for i in queries(sample).tolist():
        title = sample.classes[sample.labels[i]] if sample.labelled else ""
        picture, width = (None, None) if sample.images is None else sheet(sample.images[i:i + 1], 1)
        yield title, picture, width, png(spectrogram(pcm[i].numpy())), player(pcm[i].numpy(), rate)


def player(pcm, rate):
    """PCM int16 (channels, samples) as a .wav file in a data URI."""
    return "data:audio/wav;base64," + base64.b64encode(sound.wav(pcm, rate)).decode()


def spectrogram(pcm):
    """uint8 (BANDS, FRAMES): how loud each pitch is from moment to moment, in dB. High ones above, dark is loud."""
    wave = pcm.mean(0) / 2**15
    padded = np.pad(wave, (LENGTH // 2, LENGTH // 2 + 1))
    starts = np.linspace(0, max(len(wave) - 1, 0), FRAMES).astype(int)
    frames = padded[starts[:, None] + np.arange(LENGTH)] * np.hanning(LENGTH)
    power = abs(np.fft.rfft(frames)[:, 1:]) ** 2
    power = power.reshape(FRAMES, BANDS, -1).mean(2).T[::-1]
    decibels = 10 * np.log10(power / max(power.max(), 1e-12) + 10 ** (-QUIETEST / 10))
    return (255 * (-decibels / QUIETEST).clip(0, 1)).round().astype(np.uint8)
