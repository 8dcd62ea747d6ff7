"""Algorithm 2 in its closed form, sample by sample, and where a sample comes twice in a batch."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.temporal_ensembling import TemporalEnsembling


def build(card, **args):
    torch.manual_seed(0)
    return TemporalEnsembling(nets.build("convnet", width=4, norm="group"), card, **{"ratio": 1, "rising": 0, **args})


def test_targets_are_the_corrected_average_of_the_epochs_before(card):
    method, a, label = build(card, momentum=0.6, weight=5.0), 0.6, torch.zeros(8, dtype=torch.long)
    index = torch.arange(8)
    past = []
    for epoch in range(4):
        logits = torch.randn(8, 3)
        out = method.objective(logits, label, index)
        z = logits.double().softmax(1)[1::2]  # of the unlabelled rows
        consistency = 0.0
        if past:  # in the first epoch there is no target, and no weight
            average = sum(a ** (epoch - i) * (1 - a) * z_i for i, z_i in enumerate(past, 1)) / (1 - a**epoch)
            consistency = float((z - average).square().mean())
        assert float(out["consistency"]) == pytest.approx(consistency, rel=1e-4)
        assert float(out["loss"] - out["labelled"]) == pytest.approx(5 * consistency, rel=1e-3, abs=1e-6)
        past.append(z)
    assert method.times[1::2][:4].eq(4).all() and not method.times[0::2].any() and not method.ensemble[0::2].any()


def test_no_share_of_a_constant_prediction_is_lost(card):
    """Excludes Z without its correction: in the first epochs it is a share of the prediction."""
    method, index = build(card), torch.arange(8)
    logits = torch.randn(8, 3)
    found = [float(method.objective(logits, torch.zeros(8, dtype=torch.long), index)["consistency"]) for _ in range(5)]
    assert max(found) < 1e-12 and method.ensemble[1::2][:4].sum() < 4


def test_a_sample_that_comes_twice_in_a_batch_is_remembered_twice(card):
    method, random = build(card, momentum=0.7), np.random.default_rng(0)
    ensemble, times = np.zeros((64, 3)), np.zeros(64)
    for _ in range(4):
        index, z = random.integers(0, 5, 9), random.random((9, 3))
        method.remember(torch.tensor(index), torch.tensor(z, dtype=torch.float32))
        for i, one in zip(index, z):
            ensemble[i], times[i] = 0.7 * ensemble[i] + 0.3 * one, times[i] + 1
    np.testing.assert_allclose(method.ensemble.numpy(), ensemble, atol=1e-6)
    np.testing.assert_array_equal(method.times.numpy(), times)


def test_who_is_new_adds_nothing_and_counts_among_all(card):
    """t is a sample's own: a batch may hold samples of two epochs."""
    method = build(card, momentum=0.5)
    method.remember(torch.tensor([1]), torch.tensor([[1.0, 0, 0]]))
    logits = torch.zeros(4, 3, requires_grad=True)
    out = method.objective(logits, torch.tensor([0, -1, 1, -1]), torch.tensor([0, 1, 2, 3]))
    expected = (4 / 9 + 1 / 9 + 1 / 9) / 3 / 2  # of ⅓, ⅓, ⅓ from 1, 0, 0; the other unlabelled row is new
    assert float(out["consistency"].detach()) == pytest.approx(expected, rel=1e-5) and out["known"] == 0.5
    (gradient,) = torch.autograd.grad(out["consistency"], logits)
    assert gradient[1].any() and not gradient[[0, 2, 3]].any()


def test_evaluation_remembers_nothing(card, prepare):
    method = build(card).eval()
    method(prepare(method, 8))
    assert not method.times.any()
