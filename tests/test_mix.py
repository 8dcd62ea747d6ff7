"""MixUp as an option of views and for methods: who is mixed with whom, by which share, in one process and in several."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import batch, pictures
from selfsup.core import distributed, rng
from selfsup.inputs import mix
from selfsup.inputs.views import View, Views


@pytest.mark.parametrize("alpha", [0.05, 0.5, 0.75, 1.0, 8.0])
def test_shares_are_from_the_beta_distribution(alpha):
    from scipy.stats import beta, kstest

    share = mix.shares(rng.key(3, torch.arange(20_000)), alpha).double()
    assert 0 <= share.min() and share.max() <= 1
    # Near 1 float32 has few numbers left.
    inner = share[(share > 1e-4) & (share < 1 - 1e-4)].numpy()
    low, high = beta(alpha, alpha).cdf([1e-4, 1 - 1e-4])
    assert kstest(inner, lambda x: (beta(alpha, alpha).cdf(x) - low) / (high - low)).pvalue > 1e-3
    assert len(inner) / 20_000 == pytest.approx(high - low, abs=0.015)
    assert share.mean() == pytest.approx(0.5, abs=0.012)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_shares_at_the_ends_of_alpha():
    keys = rng.key(0, torch.arange(2000))
    least, most = (mix.shares(keys, alpha) for alpha in mix.ALPHA)
    assert least.isfinite().all() and (least.minimum(1 - least) < 0.01).float().mean() > 0.98  # nothing is mixed
    assert (most - 0.5).abs().max() < 0.1


@given(st.integers(2, 40), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_each_is_the_partner_of_one_and_nobody_of_himself(n, seed):
    partner = mix.partners(rng.key(seed, torch.arange(n)))
    assert sorted(partner.tolist()) == list(range(n)) and not (partner == torch.arange(n)).any()


def test_everybody_is_as_likely_a_partner():
    counts = torch.zeros(5, 5)
    for seed in range(2000):
        counts[torch.arange(5), mix.partners(rng.key(seed, torch.arange(5)))] += 1
    assert (counts.diagonal() == 0).all() and ((counts - 500).abs() < 100)[~torch.eye(5, dtype=torch.bool)].all()


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_partners_are_of_the_batch_of_all_processes(monkeypatch, order):
    """Whatever part of it a process has, and whatever the order of the parts."""
    keys, values = rng.key(0, torch.arange(8)), torch.randn(8, 3)
    share = mix.shares(keys, 1.0)
    whole = mix.mixed(values, mix.partners(keys), share)
    turned, rows = keys[order] if order.step is None else keys.flip(0), values if order.step is None else values.flip(0)
    for rank in range(2):
        own = slice(4 * rank, 4 * rank + 4)
        everyone = iter((turned, rows))
        monkeypatch.setattr(mix, "gather_rows", lambda x: next(everyone))
        monkeypatch.setattr(mix, "rank", lambda: rank)
        got = mix.mixed(rows[own], mix.partners(turned[own]), mix.shares(turned[own], 1.0))
        assert torch.equal(got, (whole if order.step is None else whole.flip(0))[own])


def test_a_view_is_mixed_with_a_view_of_another_and_stays_the_larger_part():
    images = pictures(64)
    plain = Views(2, {"flip": 0.5})(batch(images), 0, [0.5] * 3, [0.25] * 3)["image"]
    got = Views(2, {"flip": 0.5, "mixup": 1.0})(batch(images), 0, [0.5] * 3, [0.25] * 3)["image"]
    for v in range(2):
        own = rng.key(rng.key(0, torch.zeros(64, dtype=torch.long), torch.arange(64)), v)
        share, partner = mix.shares(own, 1.0), mix.partners(own)
        for i in range(64):
            most = max(float(share[i]), 1 - float(share[i]))
            torch.testing.assert_close(got[i, v], most * plain[i, v] + (1 - most) * plain[partner[i], v])
    assert torch.equal(View({"flip": 0.5, "mixup": 0})(batch(images), 0, [0.5] * 3, [0.25] * 3)["image"], plain[:, 0])


def test_who_is_alone_waits_for_nobody(monkeypatch):
    """Pictures are drawn by one process of several: a gather would never end."""
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)
    assert distributed.world() == 2
    with distributed.alone():
        assert distributed.world() == 1 and distributed.rank() == 0
        assert len(mix.partners(rng.key(0, torch.arange(3)))) == 3
        with distributed.alone():
            pass
        assert distributed.world() == 1
    assert distributed.world() == 2
