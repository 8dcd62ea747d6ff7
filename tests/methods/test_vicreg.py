"""VICReg against equations 1-6 written as loops, and what becomes of it without each of its terms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.methods.vicreg import VICReg


def build(**args):
    torch.manual_seed(0)
    return VICReg(nets.build("convnet", width=4), **{"hidden": 32, "dim": 16, **args})


def embeddings(method, batch):
    with torch.no_grad():
        return [method.expander(method.encoder(batch["image"][:, view])) for view in range(2)]


def test_terms_and_loss_are_equations_1_to_6(prepare):
    method = build(invariance=3.0, variance=5.0, covariance=7.0)
    batch = prepare(method)
    a, b = (z.double().numpy() for z in embeddings(method, batch))
    n, d = a.shape

    def variance(z):
        return sum(max(0, 1 - np.sqrt(np.var(z[:, j], ddof=1) + 1e-4)) for j in range(d)) / d

    def covariance(z):
        mean = z.mean(0)
        c = sum(np.outer(row - mean, row - mean) for row in z) / (n - 1)
        return sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d

    invariance = sum(((x - y) ** 2).sum() for x, y in zip(a, b)) / n / d
    out = {name: float(value.detach()) for name, value in method(batch).items() if name != "embedding"}
    assert out["invariance"] == pytest.approx(invariance, rel=1e-4)
    assert out["variance"] == pytest.approx(variance(a) + variance(b), rel=1e-4)
    assert out["covariance"] == pytest.approx(covariance(a) + covariance(b), rel=1e-4)
    expected = 3 * invariance + 5 * (variance(a) + variance(b)) + 7 * (covariance(a) + covariance(b))
    assert out["loss"] == pytest.approx(expected, rel=1e-4)


def test_variance_is_a_hinge(prepare):
    """Coordinates that vary more than 1 are left alone; those that do not vary at all still have a finite gradient."""
    from selfsup.methods.vicreg import hinge

    assert hinge(5 * torch.randn(200, 4)) == 0
    point = torch.ones(10, 4, requires_grad=True)
    hinge(point).backward()
    assert point.grad.isfinite().all()


@pytest.fixture
def trained(prepare, fit):
    """trained(**weights): after 100 steps on one batch, how images vary, how views agree (their mean cosine, centred),
    how coordinates correlate (root mean square)."""

    def run(**weights):
        method = build(**weights)
        batch = prepare(method, 64, "smooth")
        fit(method, lambda step: batch, 100)
        a, b = (z.double() for z in embeddings(method, batch))
        correlation = torch.corrcoef(a.T) - torch.eye(16)
        return {
            "deviation": float(a.std(0).mean()),
            "agreement": float(F.cosine_similarity(a - a.mean(0), b - b.mean(0)).mean()),
            "correlation": float(correlation.square().mean().sqrt()),
        }

    return run


def test_each_term_is_needed(trained):
    """Without variance the embedding collapses, without invariance the views have nothing in common, without covariance
    the coordinates repeat each other (table 7 of the paper)."""
    full = trained()
    assert full["deviation"] > 0.9 and full["agreement"] > 0.9 and full["correlation"] < 0.4, full
    collapsed = trained(variance=0.0)
    assert collapsed["deviation"] < 0.2 * full["deviation"], (full, collapsed)
    unrelated = trained(invariance=0.0)
    assert unrelated["agreement"] < full["agreement"] - 0.4, (full, unrelated)
    redundant = trained(covariance=0.0)
    assert redundant["correlation"] > 1.6 * full["correlation"], (full, redundant)
