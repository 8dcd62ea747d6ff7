"""What a scene sounds like: the object's voice, the prop's, and noise.

A voice is a timbre, higher the smaller the thing and louder the nearer it stands. A timbre tells of a class and does not
spell it: of ten things of a class eight have the class's own and two one of the two classes' that follow, so that who
hears all tells 80 % right; a linear classifier of the spectrum over time 70 to 85 % of new ones, which a test holds."""

import numpy as np
import torch

from selfsup.core import rng
from selfsup.sources.scenes.describe import CLASSES

RATE, SAMPLES = 8000, 4000  # half a second
OWN = .8
PITCH = 160  # Hz of a thing as high as the image
CHUNK = 16  # scenes at a time; chosen for the processor's cache
# Loudness of the harmonics, how far these lie apart beyond whole numbers, seconds to swell, how fast it dies away, how
# often a second it trembles and how much, and breath: in the order of `describe.CLASSES + describe.PROPS`.
TIMBRES = (
    ((1, .8, .6, .5, .3, .2), 0, .12, 0, 0, 0, .02),       # a horn
    ((1, .1, 0, 0, 0, 0), 0, .03, 2, 0, 0, .25),           # blown over
    ((1, .9, .8, .8, .7, .7), 0, .02, 0, 24, .9, .1),      # an engine
    ((1, 0, .5, 0, .3, 0), .1, .002, 40, 0, 0, .05),       # a knock on wood
    ((.2, .5, 1, .9, .5, .3), 0, .02, 3, 6, 1, .05),       # quacks
    ((1, .6, .5, .4, .3, .2), .25, .002, 5, 0, 0, 0),      # a bell
    ((.1, 1, .1, .7, .1, .5), 0, .05, 0, 0, 0, .01),       # a hum
    ((1, .1, .7, .1, .5, 0), .55, .002, 15, 0, 0, 0),      # a clink
    ((1, .4, .1, 0, 0, 0), 0, .08, 0, 10, 1, .1),          # puffs
    ((.3, .1, .1, 0, 0, 0), 0, .1, 0, 4, .6, 1),           # leaves
    ((1, .2, 0, 0, 0, 0), .05, .005, 10, 8, 1, .1),        # it bounces
    ((1, .5, .4, .3, .2, .1), .15, .002, 30, 0, 0, .3),    # it falls over
    ((1, .7, .3, .1, 0, 0), 0, .15, 0, 0, 0, .15),         # wind in it
    ((.6, 1, .2, .6, .1, .2), .35, .002, 8, 0, 0, 0),      # it is struck
)


def render(s):
    """int16 (N, 1, SAMPLES) of a description, RATE samples a second."""
    parts = [_render({k: v[i:i + CHUNK] for k, v in s.items()}) for i in range(0, len(s["label"]), CHUNK)]
    return np.concatenate(parts)[:, None] if parts else np.zeros((0, 1, SAMPLES), np.int16)


def voices(s):
    """Whose timbre object and prop have: int64 (N, 2), numbers in TIMBRES."""
    u = rng.uniform(torch.from_numpy(s["key"]), 2, salt=6).numpy()
    other = (s["label"] + np.where(u[:, 1] < .5, 1, 2)) % len(CLASSES)
    return np.stack([np.where(u[:, 0] < OWN, s["label"], other), s["kind"][:, 1]], 1)


def _render(s):
    keys, who = torch.from_numpy(s["key"]), voices(s)
    breath = 2 * rng.uniform(keys, 2, SAMPLES, salt=7).numpy() - 1
    u = rng.uniform(keys, 2, 3, salt=8).double().numpy()
    time = np.arange(SAMPLES) / RATE
    sound = .01 * breath[:, 1, ::-1]  # the room
    for slot, level in ((0, 1), (1, .5)):
        near = .1 / (1.25 - np.minimum(s["y"][:, slot], 1)) * level * s["present"][:, slot]
        pitch = PITCH / s["scale"][:, slot] / (1, 2)[slot] * (1 + .06 * (u[:, slot, 0] - .5))  # a prop is half as large
        voice = _voice(who[:, slot], pitch, time - .08 * u[:, slot, 1:2], u[:, slot, 2], breath[:, slot])
        sound = sound + near[:, None].astype(np.float32) * voice
    return np.floor(np.clip(sound, -1, 1) * np.float32(2**15 - 1) + np.float32(.5)).astype(np.int16)


def _voice(who, pitch, time, phase, breath):
    """(N, SAMPLES), float32: timbres `who` at pitches (N,) Hz, from time 0 on; `phase` (N,) of the lowest tone."""
    amplitude = np.array([row[0] for row in TIMBRES], np.float32)[who]
    spread, swell, fade, often, depth, noise = np.array([row[1:] for row in TIMBRES])[who].T[:, :, None]
    tone = np.zeros(time.shape, np.float32)
    for h in range(amplitude.shape[1]):
        number = 1 + h + spread * h * (h + 1) / 4
        tone += amplitude[:, h, None] * sine(pitch[:, None] * number * time + (h + 1) * phase[:, None])
    tone = tone / np.maximum(amplitude.sum(1), 1)[:, None] + noise.astype(np.float32) * breath
    after = np.maximum(time, 0)
    envelope = np.minimum(after / swell, 1) / (1 + fade * after) ** 2
    tremble = 1 - depth * (.5 + .5 * sine(often * after))
    return tone * (envelope * tremble).astype(np.float32)


def sine(turns):
    """sin(2π turns) by parabolas, 0.001 from it at most: alike on every machine, as a library's sine is not."""
    p = (2 * (turns - np.floor(turns)) - 1).astype(np.float32)
    y = -4 * p * (1 - abs(p))
    return y * (np.float32(.775) + np.float32(.225) * abs(y))
