"""Next-token prediction against its definition in loops, and what it must not see."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core.ngram import KneserNey
from selfsup.methods.next_token import NextToken

V = 12
ENCODERS = {
    "transformer": {"name": "token_transformer", "vocabulary": V, "length": 16, "dim": 16, "depth": 2, "heads": 2,
                    "causal": True},
    "rnn": {"name": "token_lstm", "vocabulary": V, "dim": 16, "depth": 1},
}
both = pytest.mark.parametrize("arch", ENCODERS)


def build(arch="transformer"):
    torch.manual_seed(0)
    return NextToken(nets.build(**ENCODERS[arch]), {"vocabulary": V})


def texts(n=6, length=10, seed=0):
    """A word is the one before it or the next one, in a circle; the text's length is its own."""
    random = torch.Generator().manual_seed(seed)
    steps = torch.randint(2, (n, length), generator=random).cumsum(1)
    words = 4 + (steps + torch.randint(8, (n, 1), generator=random)) % 8
    words[:, 0] = 1
    size = torch.randint(4, length - 1, (n,), generator=random)
    place = torch.arange(length)
    words = torch.where(place == size[:, None], 2, words)
    return torch.where(place > size[:, None], 0, words)


@both
def test_loss_against_loops(arch):
    method, text = build(arch), texts()
    logits = method.logits(text[:, :-1]).detach().double().numpy()
    losses, right = [], []
    for n, row in enumerate(text.tolist()):
        for t in range(1, len(row)):
            if row[t]:
                p = np.exp(logits[n, t - 1]) / np.exp(logits[n, t - 1]).sum()
                losses.append(-np.log(p[row[t]]))
                right.append(p.argmax() == row[t])
    out = method({"text": text})
    assert out["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert out["bits"].item() == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)
    assert out["accuracy"].item() == pytest.approx(np.mean(right), abs=1e-6)
    assert method({"text": F.pad(text, (0, 3))})["loss"].item() == pytest.approx(out["loss"].item(), rel=1e-5)


@both
def test_a_token_is_guessed_from_those_before_it_alone(arch):
    method, text = build(arch), texts()
    before = method.logits(text)
    for t in (1, 4, 7):
        other = text.clone()
        other[:, t:] = 4 + (other[:, t:] + 3) % 8
        after = method.logits(other)
        torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-6, rtol=1e-5)
        assert (after[:, t] - before[:, t]).abs().amax(1).min() > 1e-5


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary():
    method = build()
    for p in method.predict.parameters():
        p.data.zero_()
    assert method({"text": texts()})["loss"].item() == pytest.approx(math.log(V), rel=1e-5)


@both
def test_what_cannot_be_known_is_not_learned_and_what_can_is(arch, fit):
    """A word has two followers, a bit each; of words drawn evenly nobody knows more than that there are eight. Were the
    target among what is read, both would go to 0. Of the one that counts pairs it is ahead by where texts end."""
    torch.manual_seed(0)
    method = build(arch)
    train = texts(512)
    batches = lambda step: {"text": train[(step * 64) % 512:][:64]}  # noqa: E731
    fit(method, batches, 150, lr=1e-2)
    held = texts(200, seed=1)
    bits = method.eval()({"text": held})["bits"].item()
    counting = [KneserNey(train.numpy(), order, V).bits(held.numpy()) for order in (1, 2)]
    entropy = (3 + 4 + math.log2(5)) / 6  # a text: one of 8 to start with, on average 4 steps, one of 5 lengths
    assert entropy - 0.05 < bits < counting[1] < counting[0] - 0.5, (bits, entropy, counting)
    even = torch.cat([torch.ones(64, 1, dtype=torch.long), torch.randint(4, V, (64, 9))], 1)
    method = build(arch)
    random = torch.Generator().manual_seed(5)
    fit(method, lambda step: {"text": torch.cat([even[:, :1], torch.randint(4, V, (64, 9), generator=random)], 1)}, 60)
    fresh = torch.cat([even[:, :1], torch.randint(4, V, (64, 9))], 1)
    assert method.eval()({"text": fresh})["bits"].item() > 2.9


def test_parts_go_on_with_a_text():
    method = build()
    assert set(method.parts()) == {"encoder", "predict"}
    picture = method.pictures({"text": texts()})["guessed"]
    assert picture.shape == (48, 72) and (picture[:, -8:] == 0).all(), "padding is black"
