"""Barlow Twins against equations 1 and 2 written as loops, and its cross-correlation after training."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.barlow_twins import BarlowTwins, correlation


def build(**args):
    torch.manual_seed(0)
    return BarlowTwins(nets.build("convnet", width=4), **{"hidden": 32, "dim": 16, **args})


def cross_correlation(a, b):
    """Equation 1, of embeddings centred over the batch."""
    a, b = a - a.mean(0), b - b.mean(0)
    n, d = a.shape
    c = np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            below = np.sqrt(sum(a[s, i] ** 2 for s in range(n))) * np.sqrt(sum(b[s, j] ** 2 for s in range(n)))
            c[i, j] = sum(a[s, i] * b[s, j] for s in range(n)) / below
    return c


@pytest.mark.parametrize("redundancy, scale", [(0.005, None), (1.0, None), (0.005, 0.1)])
def test_loss_is_equation_2(prepare, redundancy, scale):
    method = build(redundancy=redundancy, scale=scale)
    batch = prepare(method)
    with torch.no_grad():
        a, b = (method.projector(method.encoder(batch["image"][:, v])).double().numpy() for v in range(2))
    c = cross_correlation(a, b)
    expected = sum((1 - c[i, i]) ** 2 for i in range(16))
    expected += redundancy * sum(c[i, j] ** 2 for i in range(16) for j in range(16) if i != j)
    assert float(method(batch)["loss"].detach()) == pytest.approx(expected * (scale or 1 / 16), rel=1e-4)


def test_correlation_is_of_coordinates_over_the_batch_and_knows_the_views_apart():
    a = torch.randn(50, 4)
    b = a.roll(1, dims=1) * 3 + 7  # coordinate j + 1 of b is coordinate j of a
    c = correlation(a, b)
    assert c.shape == (4, 4)
    torch.testing.assert_close(c[torch.arange(4), (torch.arange(4) + 1) % 4], torch.ones(4))
    torch.testing.assert_close(c, torch.from_numpy(cross_correlation(a.numpy(), b.numpy())).float())
    assert correlation(torch.ones(9, 3), torch.ones(9, 3)).isfinite().all()


def test_cross_correlation_tends_to_the_identity(prepare, fit):
    """What the picture shows, before and after training; evaluation does not move it."""
    method = build(redundancy=0.1)
    batch = prepare(method, 64, "smooth")
    method(batch)
    start = method.correlation.clone() / 0.1  # a mean that has seen one batch
    fit(method, lambda step: batch, 100)
    method.eval()
    picture = method.pictures(prepare(method))["correlation"]
    assert picture.shape == (16 * 4, 32 * 4)
    end = method.correlation
    torch.testing.assert_close(picture[2::4, 2:64:4] * 2 - 1, end)
    torch.testing.assert_close(picture[2::4, 66::4] * 2 - 1, torch.eye(16))

    def off(c):
        return (c - c.diagonal().diag()).square().sum().div(16 * 15).sqrt()

    assert end.diagonal().mean() > start.diagonal().mean() + 0.2
    assert off(end) < 0.6 * off(start)
