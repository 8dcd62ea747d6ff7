"""Encoders of text: padding, what a state knows, and ELMo's layers."""

import numpy as np
import pytest
import torch

from selfsup import layers
from tests.test_nets_signals import TEXTS, V, made

@pytest.mark.parametrize("name", TEXTS)
def test_padding_changes_nothing(name):
    net, x = made(name)
    net.eval()
    longer = torch.nn.functional.pad(x, (0, 2))
    torch.testing.assert_close(net(longer), net(x), atol=1e-6, rtol=1e-5)
    for ours, theirs in zip(net.layers(longer), net.layers(x)):
        torch.testing.assert_close(ours.mean((2, 3)), theirs.mean((2, 3)), atol=1e-5, rtol=1e-4)
    assert net(torch.zeros(1, 4, dtype=torch.long)).isfinite().all(), "a text may be empty"


@pytest.mark.parametrize("name, knows", [("forwards", "before"), ("lstm", "before"), ("both ways", "all")])
def test_what_a_state_knows(name, knows):
    net, x = made(name)
    net.eval()
    before, other = net.states(x)[-1], x.clone()
    other[:, 3] = 4 + (other[:, 3] - 3) % (V - 4)
    moved = (net.states(other)[-1] - before).abs().amax(2) > 1e-7
    assert moved[:, 3:].any(1).all()
    assert moved[:, :3].any() == (knows == "all")


def test_elmos_directions_know_one_side_each():
    net, x = made("elmo")
    net.eval()
    (ahead, behind), other = net.read(x), x.clone()
    other[:, 3] = 4 + (other[:, 3] - 3) % (V - 4)
    ahead_moved, behind_moved = ((a[-1] - b[-1]).abs().amax(2) > 1e-7 for a, b in zip(net.read(other), (ahead, behind)))
    assert not ahead_moved[:, :3].any() and ahead_moved[:, 3].all()
    later = behind_moved[:, 4:][x[:, 4:] != 0]  # padding is read last, and nobody asks what it says
    assert not later.any() and behind_moved[:, 3].all() and behind_moved[:, 0].any()
    assert torch.equal(net.states(x)[0], torch.cat([net.embed(x)] * 2, 2)), "the embedding, twice"


def test_the_backward_lstm_is_a_forward_one_on_reversed_texts():
    net, x = made("elmo")
    _, behind = net.read(x)
    for row in range(2):
        size = int((x[row] != 0).sum())
        turned = x[row, :size].flip(0)[None]
        state = net.embed(turned)
        first, _ = net.backwards[0](state)
        second, _ = net.backwards[1](first)
        torch.testing.assert_close(behind[-1][row, :size], (first + second)[0].flip(0), atol=1e-6, rtol=1e-5)


def test_the_mix_of_layers_starts_as_their_mean():
    """Equation 1 with w = 0 and γ = 1; and by its definition elsewhere."""
    net, x = made("elmo")
    states, mix = net.states(x), layers.Mix(3)
    torch.testing.assert_close(mix(states), sum(states) / 3)
    mix.weight.data, mix.scale.data = torch.tensor([0.0, 1.0, 2.0]), torch.tensor(3.0)
    weight = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    torch.testing.assert_close(mix(states), 3 * sum(float(w) * state for w, state in zip(weight, states)))


def test_a_mean_of_states_is_over_the_tokens_alone():
    net, x = made("both ways")
    states = net.states(x)[-1]
    expected = torch.stack([row[: int((text != 0).sum())].mean(0) for row, text in zip(states, x)])
    torch.testing.assert_close(net(x), expected, atol=1e-6, rtol=1e-5)
