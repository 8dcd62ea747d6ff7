"""Adapting weights to an episode, and the nearest mean, against what can be written down."""

import math

import pytest
import torch
from torch.func import functional_call

from selfsup.data.order import Episodes
from selfsup.training.episodes import adapted, nearest_mean


def quadratic(matrix, centre):
    return lambda weights: (weights["w"] - centre) @ matrix @ (weights["w"] - centre) / 2


@pytest.fixture
def task():
    """Two quadratics, inner and outer: symmetric matrices and centres, in double."""
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 3, generator=random, dtype=torch.float64) for _ in range(2))
    return a @ a.T, torch.randn(3, generator=random, dtype=torch.float64), b @ b.T, torch.randn(3, generator=random,
                                                                                              dtype=torch.float64)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_goes_through_the_steps(task, steps, first_order):
    """Of ½ (θ − c)ᵀA(θ − c) it is (I − αA)ˢ A'(θ' − c'), of first order A'(θ' − c'). Excludes a step that is
    detached, which makes second order first order without a word."""
    a, c, b, d = task
    w, rate = torch.zeros(3, dtype=torch.float64, requires_grad=True), 0.1
    after = adapted(quadratic(a, c), {"w": w}, rate, steps, first_order)
    (found,) = torch.autograd.grad(quadratic(b, d)(after), w)
    by_hand = torch.zeros(3, dtype=torch.float64)
    for _ in range(steps):
        by_hand = by_hand - rate * a @ (by_hand - c)
    torch.testing.assert_close(after["w"], by_hand)
    through = torch.linalg.matrix_power(torch.eye(3, dtype=torch.float64) - rate * a, steps)
    expected, short = through @ b @ (by_hand - d), b @ (by_hand - d)
    torch.testing.assert_close(found, short if first_order else expected)
    assert (expected - short).norm() > 0.1 * short.norm()


def sine(count, random):
    """A task of section 5.1: (x, y), both (count, 1)."""
    amplitude, phase = 0.1 + 4.9 * torch.rand(1, generator=random), math.pi * torch.rand(1, generator=random)
    x = 10 * torch.rand(count, 1, generator=random) - 5
    return x, amplitude * torch.sin(x - phase)


def test_after_training_on_sinusoids_ten_points_and_a_step_are_enough():
    """Finn et al. 2017, section 5.1, with a smaller net: the error after the step is a fraction of that before."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, 40), torch.nn.ReLU(), torch.nn.Linear(40, 40), torch.nn.ReLU(),
                              torch.nn.Linear(40, 1))
    random, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam(net.parameters(), lr=1e-2)

    def tasks(count):
        some = [sine(20, random) for _ in range(count)]
        return tuple(torch.stack(part) for part in zip(*some))

    def error(x, y, steps):
        def mse(weights, rows):
            return (functional_call(net, weights, x[rows]) - y[rows]).square().mean()

        weights = adapted(lambda w: mse(w, slice(10)), dict(net.named_parameters()), 0.02, steps)
        return mse(weights, slice(10, 20))

    for _ in range(100):
        torch.func.vmap(lambda x, y: error(x, y, 1))(*tasks(16)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    x, y = tasks(200)
    with torch.no_grad():
        before, after = (torch.func.vmap(lambda x, y: error(x, y, steps))(x, y).mean() for steps in (0, 5))
    assert after < 0.5 * before


def test_the_nearest_mean_is_a_linear_classifier():
    """w = 2c, b = −|c|² (Snell et al. 2017, section 2.4), and the distances are squared: not their roots, no
    cosines."""
    support, query = torch.randn(3, 4, 2, 7), torch.randn(3, 4, 5, 7)
    logits = nearest_mean(support, query)
    assert logits.shape == (3, 20, 4)
    means = support.mean(2)
    for e in range(3):
        rows = query[e].flatten(0, 1)
        torch.testing.assert_close(-(rows[:, None] - means[e]).square().sum(2), logits[e], atol=1e-5, rtol=1e-5)
        linear = rows @ (2 * means[e]).T - means[e].square().sum(1)
        torch.testing.assert_close(linear.softmax(1), logits[e].softmax(1), atol=1e-6, rtol=1e-5)


def test_an_episode_comes_apart_as_it_is_dealt():
    deal = Episodes(ways=2, shots=1, queries=2)
    support, query = deal.apart(torch.arange(12))
    assert support.tolist() == [[[0], [3]], [[6], [9]]] and query.tolist() == [[[1, 2], [4, 5]], [[7, 8], [10, 11]]]
