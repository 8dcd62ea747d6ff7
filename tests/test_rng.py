import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core import rng

N = 40_000
KEYS = rng.key(7, torch.arange(N))


def splitmix64(x):
    """The finaliser in Python's own integers, from the published C code."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_bits_are_splitmix64s(seed):
    assert rng.key(seed).item() % 2**64 == splitmix64((seed + 0x9E3779B97F4A7C15) % 2**64)


def test_first_output_of_the_published_generator():
    assert rng.key(0).item() % 2**64 == 0xE220A8397B1DCDAF  # splitmix64 seeded with 0


def test_parts_broadcast_and_their_order_matters():
    epoch, index = torch.arange(3)[:, None], torch.arange(5)
    keys = rng.key(1, epoch, index)
    assert keys.shape == (3, 5) and keys.dtype == torch.int64
    assert keys[2, 4] == rng.key(1, 2, 4)
    assert rng.key(1, 2, 4) != rng.key(1, 4, 2)
    assert len({*keys.flatten().tolist(), *rng.key(2, epoch, index).flatten().tolist()}) == 30


def test_a_million_keys_are_distinct():
    keys = rng.key(0, torch.arange(10)[:, None], torch.arange(100_000))
    assert len(keys.flatten().unique()) == 1_000_000


@pytest.mark.parametrize("draw", [rng.uniform, rng.normal, lambda k, *s, salt=0: rng.randint(k, 10, *s, salt=salt)])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, N - 1), min_size=1, max_size=20), st.integers(0, 1000))
def test_a_row_does_not_depend_on_its_batch(draw, rows, salt):
    alone = torch.stack([draw(KEYS[row], 3, 2, salt=salt) for row in rows])
    assert torch.equal(draw(KEYS[rows], 3, 2, salt=salt), alone)
    assert torch.equal(draw(KEYS[rows], 4, 2, salt=salt)[:, :3], alone)  # more numbers leave the first ones as they are


def test_shapes_and_types():
    assert rng.uniform(KEYS[:4]).shape == (4,)
    assert rng.uniform(KEYS[:4], 2, 3).dtype == torch.float32
    assert rng.normal(KEYS[:4], 2, 3).shape == (4, 2, 3)
    assert rng.randint(KEYS[:4], 9, 2).dtype == torch.int64
    assert rng.uniform(rng.key(3), 5).shape == (5,)


@pytest.mark.parametrize(
    "x", [rng.uniform(KEYS), rng.uniform(rng.key(7), N), rng.uniform(rng.key(7, torch.arange(N) * 2**20))]
)
def test_uniform_over_keys_over_positions_and_over_spread_keys(x):
    x = x.double().sort().values
    assert 0 <= x[0] and x[-1] < 1
    assert abs(x.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / N)
    assert abs(x.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / N)
    steps = torch.arange(N + 1) / N
    distance = max((steps[1:] - x).max(), (x - steps[:-1]).max())
    assert distance < 1.95 / math.sqrt(N)  # Kolmogorov-Smirnov at 0.1 %


def test_normal_moments():
    x = rng.normal(KEYS).double()
    assert abs(x.mean()) < 4 / math.sqrt(N)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / N)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / N)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / N)
    assert x.isfinite().all()


def test_randint_is_even():
    counts = rng.randint(KEYS, 10).bincount(minlength=10)
    assert ((counts - N / 10) ** 2 / (N / 10)).sum() < 27.9  # chi squared, 9 degrees of freedom, 0.1 %


def test_neighbours_are_uncorrelated():
    x = rng.uniform(KEYS, 2)
    others = {
        "next key": x[:, 0].roll(1),
        "next position": x[:, 1],
        "next salt": rng.uniform(KEYS, salt=1),
        "next seed": rng.uniform(rng.key(8, torch.arange(N))),
        "next epoch": rng.uniform(rng.key(7, torch.arange(N), 1)),
    }
    for name, y in others.items():
        assert abs(torch.corrcoef(torch.stack([x[:, 0], y]))[0, 1]) < 4 / math.sqrt(N), name


def test_permutation_is_a_pure_permutation():
    order = rng.permutation(1000, 3, 5)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, rng.permutation(1000, 3, 5))
    assert not torch.equal(order, rng.permutation(1000, 3, 6))
    assert not torch.equal(order, rng.permutation(1000, 4, 5))
    assert (order == torch.arange(1000)).sum() < 8  # fixed points: 1 expected
    assert abs(torch.corrcoef(torch.stack([order, torch.arange(1000)]).float())[0, 1]) < 4 / math.sqrt(1000)
    assert rng.permutation(0, 1).shape == (0,)
