import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import evals
from selfsup.evals import linear


def problem(n=600, d=20, classes=5, seed=0):
    """Correlated features of very different scales, whose classes overlap."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator) * torch.logspace(0, -2, d)
    labels = torch.randint(classes, (n,), generator=generator)
    means = torch.randn(classes, d, generator=generator)
    return (means[labels] + 2 * torch.randn(n, d, generator=generator)) @ mixing, labels


@pytest.mark.parametrize("decay", [1e-5, 1e-3, 1e-1])
def test_equals_scikit_learn(decay):
    from sklearn.linear_model import LogisticRegression

    x, y = problem()
    x = linear.Standardise(x)(x)
    weight, bias = linear.path(x.clone(), y, 5, [1.0, decay])[decay]
    reference = LogisticRegression(C=1 / (len(x) * decay), tol=1e-8, max_iter=10_000).fit(x.double(), y)
    np.testing.assert_allclose(weight.T - weight.T.mean(0), reference.coef_ - reference.coef_.mean(0), atol=5e-3)
    np.testing.assert_allclose(bias - bias.mean(), reference.intercept_ - reference.intercept_.mean(), atol=5e-3)
    assert (linear.predict(x, weight, bias).numpy() == reference.predict(x)).mean() > 0.995


def loss(x, y, weight, bias, decay):
    return F.cross_entropy(x.double() @ weight + bias, y) + decay / 2 * weight.square().sum()


@pytest.mark.parametrize("decays", [[1e-6, 1e-4, 1e-2], [1e-2, 1e-6]])
def test_converged_on_correlated_features_whatever_the_order(decays):
    x, y = problem(n=400, d=60)
    x = torch.cat([x, x[:, :5] + 1e-3 * torch.randn(400, 5)], 1)          # nearly the same features twice
    x = linear.Standardise(x)(x)
    for decay, (weight, bias) in linear.path(x.clone(), y, 5, decays).items():
        weight, bias = weight.double().requires_grad_(), bias.double().requires_grad_()
        gradient = torch.autograd.grad(loss(x, y, weight, bias, decay), [weight, bias])
        assert max(g.abs().max() for g in gradient) < 2e-4, decay


def test_separable_classes_and_dead_features_are_no_trouble():
    y = torch.arange(300) % 3
    x = torch.cat([F.one_hot(y, 3).float() * 50, torch.full((300, 2), 7.3), torch.zeros(300, 1)], 1)
    x = linear.Standardise(x)(x)
    assert torch.equal(x[:, 3:], torch.zeros(300, 3))
    weight, bias = linear.path(x.clone(), y, 3, [1e-6])[1e-6]
    assert torch.isfinite(weight).all() and (linear.predict(x, weight, bias) == y).all()


def test_more_features_than_samples():
    x, y = problem(n=40, d=100)
    weight, bias = linear.path(linear.Standardise(x)(x), y, 5, [1e-4])[1e-4]
    assert torch.isfinite(weight).all()


def test_rows_in_blocks_give_the_same(monkeypatch):
    x, y = problem()
    each = torch.rand(len(x), generator=torch.Generator().manual_seed(1))
    whole = linear.path(linear.Standardise(x)(x), y, 5, [1e-3], each)[1e-3]
    mean, scale = linear.Standardise(x).mean, linear.Standardise(x).scale
    monkeypatch.setattr(linear, "BLOCK", 333)             # 16 rows of features, 66 of logits; the last block is short
    in_blocks = linear.Standardise(x)
    torch.testing.assert_close((in_blocks.mean, in_blocks.scale), (mean, scale))
    torch.testing.assert_close(linear.path(in_blocks(x), y, 5, [1e-3], each)[1e-3], whole, atol=1e-3, rtol=1e-3)


def test_a_probe_holds_train_once():
    x, y = problem()
    place, before = x.data_ptr(), x.clone()
    probe = linear.Probe((x, y), (before[:100], y[:100]), 5, [1e-3])
    assert x.data_ptr() == place and not torch.equal(x, before)  # standardised and rotated where it was
    assert (probe(before) == y).float().mean() > 0.5


def test_standardises_by_train_alone(encoder, data):
    x = torch.randn(50, 4) * 3 + 1
    standardise = linear.Standardise(x)
    torch.testing.assert_close(standardise(x).mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardise(x).std(0, correction=0), torch.ones(4))
    torch.testing.assert_close(standardise(x[:1] + 5), (x[:1] + 5 - x.mean(0)) / x.std(0, correction=0))


def test_strong_decay_loses_on_val_and_is_not_chosen(encoder, data):
    result = dict(evals.run("linear", encoder, data, weight_decay=[1e6, 1e-2]))
    assert result["weight_decay"] == 1e-2


@pytest.mark.slow
def test_speed():
    import time

    generator = torch.Generator().manual_seed(0)
    y = torch.randint(10, (50_000,), generator=generator)
    x = torch.relu(torch.randn(10, 256, generator=generator)[y] * 0.1 + torch.randn(50_000, 256, generator=generator))
    start = time.perf_counter()
    linear.path(linear.Standardise(x)(x), y, 10, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
    assert time.perf_counter() - start < 60
