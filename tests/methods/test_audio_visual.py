"""L³: who gets whose sound, the loss in loops, and that it learns what belongs together and nothing else."""

import math

import numpy as np
import pytest
import torch
import torch.nn as nn

from selfsup import nets
from selfsup.core import rng
from selfsup.methods.audio_visual import AudioVisual, partners

CARD = {"schema": {"sound": {"kind": "sound", "shape": [1, 800], "dtype": "int16", "rate": 4000}}}
N = 32


def made(seed=0):
    torch.manual_seed(seed)
    return AudioVisual(nets.build("convnet", width=4), CARD, hidden=16, mels=16, width=2)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 64])
def test_half_keep_their_sound_and_no_other_has_its_own(n):
    whose = partners(rng.key(3, torch.arange(n)))
    own = (whose == torch.arange(n)).sum()
    assert own == (n // 2 if n > 3 else n - 2)
    assert torch.equal(whose.sort().values, torch.arange(n)), "each sound is heard once"


def test_it_is_the_keys_that_say_who():
    key = rng.key(3, torch.arange(64))
    whose, order = partners(key), torch.randperm(64)
    shuffled = partners(key[order])
    assert torch.equal(key[order][shuffled], key[whose][order]), "by the sample, wherever it lies in the batch"
    other = partners(rng.key(4, torch.arange(64)))
    assert .25 < ((whose == torch.arange(64)) == (other == torch.arange(64))).float().mean() < .75


def test_the_loss_in_loops():
    method = made().eval()
    batch = {"image": torch.randn(10, 3, 16, 16), "sound": torch.randn(10, 800), "key": rng.key(0, torch.arange(10))}
    with torch.no_grad():
        out = method(batch)
        images, sounds = method.encoder(batch["image"]).numpy(), method.sound(batch["sound"]).numpy()
    first = np.concatenate([method.fusion.image.weight.detach(), method.fusion.sound.weight.detach()], 1)
    bias, last, last_bias = (x.detach().numpy() for x in (method.fusion.image.bias, *method.fusion.out.parameters()))
    losses, right = [], 0
    for i, j in enumerate(partners(batch["key"]).tolist()):
        hidden = np.maximum(first @ np.concatenate([images[i], sounds[j]]) + bias, 0)
        wrong, true = last @ hidden + last_bias
        losses.append(math.log(math.exp(wrong) + math.exp(true)) - (true if i == j else wrong))
        right += (true > wrong) == (i == j)
    assert float(out["loss"]) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(out["accuracy"]) == pytest.approx(right / 10)


class Told(nn.Module):
    """Features of what a signal says, so that the test is of the method and not of networks that read it."""

    def __init__(self, values):
        super().__init__()
        self.dim, self.net = 16, nn.Sequential(nn.Linear(values, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x):
        return self.net(x)


def test_it_learns_what_belongs_together_up_to_its_bound_and_nothing_of_shuffled_sounds():
    """What both tell is which of 4 kinds it is: of the wrong pairs a quarter cannot be known as such."""
    method = made()
    method.encoder, method.sound = Told(4), Told(4)
    method.fusion = nets.build("fusion", image=16, sound=16, hidden=32)
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)

    def accuracy(shuffled=False, learn=False, epoch=0):
        kind = torch.arange(256) % 4
        sound = nn.functional.one_hot(kind[torch.randperm(256)] if shuffled else kind, 4).float()
        image, key = nn.functional.one_hot(kind, 4).float(), rng.key(epoch, torch.arange(256))
        out = method({"image": image, "sound": sound, "key": key})
        if learn:
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
        return float(out["accuracy"])

    for epoch in range(150):
        accuracy(learn=True, epoch=epoch)
    bound = 1 - 1 / (2 * 4)
    found, none = (np.mean([accuracy(shuffled, epoch=e) for e in range(200, 220)]) for shuffled in (False, True))
    assert bound - .02 < found < bound + .02 and abs(none - .5) < .03
