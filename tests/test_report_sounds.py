"""Sounds in the report: what a player plays, and what a spectrogram shows."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import torch

from selfsup.data import sound
from selfsup.data.columns import Sound
from selfsup.report.sounds import BANDS, heard, player, spectrogram

RATE = 8000


def tone(frequency, level=.5, length=4000):
    return (level * 2**15 * np.sin(2 * np.pi * frequency * np.arange(length) / RATE)).astype(np.int16)[None]


def test_a_spectrogram_shows_pitch_and_time():
    low, high = tone(500), tone(3000)
    both = spectrogram(np.concatenate([low, high], 1)).astype(int)
    first, second = both[:, 5:40].mean(1).argmin(), both[:, 56:90].mean(1).argmin()
    assert abs(first - (BANDS - 1 - 500 * BANDS // 4000)) <= 1 and abs(second - (BANDS - 1 - 3000 * BANDS // 4000)) <= 1
    assert (spectrogram(tone(500, 0)) == 255).mean() > .9, "silence is white"
    assert spectrogram(np.zeros((2, 10), np.int16)).shape == both.shape, "shorter than a window"


def test_the_player_has_the_sound_itself():
    pcm = tone(700)
    data = base64.b64decode(player(pcm, RATE).removeprefix("data:audio/wav;base64,"))
    found, rate = sound.load(data)
    assert rate == RATE and np.array_equal(found, pcm)


def test_one_of_each_class_with_its_picture_and_each_sound_once():
    from PIL import Image

    pcm = torch.from_numpy(np.stack([tone(100 * (i + 1)) for i in range(6)]))
    sample = SimpleNamespace(columns={"sound": pcm}, labels=torch.arange(6) % 3, labelled=True, classes=list("abc"),
                             images=torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8))
    entry = Sound("sound", (1, 4000), rate=RATE).entry()
    cards = dict.fromkeys(("one", "same", "deaf"), {"columns": ["sound"], "schema": {"sound": entry}})
    first, same, deaf = heard({"one": sample, "same": sample, "deaf": SimpleNamespace(columns={})}, cards)
    assert [title for title, *_ in first] == ["a", "b", "c"] and same == deaf == []
    shown = Image.open(io.BytesIO(base64.b64decode(first[1][3].partition(",")[2])))
    assert np.array_equal(np.asarray(shown), spectrogram(pcm[1].numpy()))
    assert first[1][4] == player(pcm[1].numpy(), RATE)
