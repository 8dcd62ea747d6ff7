"""SimSiam against Algorithm 1 written as loops, and its collapse without the stop-gradient."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.simsiam import SimSiam


def build(**args):
    torch.manual_seed(0)
    return SimSiam(nets.build("convnet", width=4), **{"hidden": 64, "dim": 32, "bottleneck": 8, **args})


def outputs(method, image):
    """z1, z2, p1, p2 of Algorithm 1, each (N, dim)."""
    z = [method.projector(method.encoder(image[:, v])) for v in range(2)]
    return [*z, *(method.predictor(one) for one in z)]


def test_loss_is_algorithm_1(prepare):
    method = build()
    batch = prepare(method)
    with torch.no_grad():
        z1, z2, p1, p2 = (v.double().numpy() for v in outputs(method, batch["image"]))

    def distance(p, z):
        return np.mean([-(a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)) for a, b in zip(p, z)])

    expected = distance(p1, z2) / 2 + distance(p2, z1) / 2
    assert float(method(batch)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_comes_through_the_predictor_alone(prepare):
    method = build()
    batch = prepare(method)
    method(batch)["loss"].backward()
    gradient = method.encoder.blocks[0][0].weight.grad.clone()
    for stop in (True, False):
        method.zero_grad()
        z1, z2, p1, p2 = outputs(method, batch["image"])
        if stop:
            z1, z2 = z1.detach(), z2.detach()
        pairs = [(p1, z2), (p2, z1)]
        (-sum(torch.cosine_similarity(p, z).mean() for p, z in pairs) / 2).backward()
        assert torch.allclose(gradient, method.encoder.blocks[0][0].weight.grad, rtol=1e-3, atol=1e-6) == stop


@pytest.mark.parametrize("layers", [3, 2])
def test_projections_are_standardised_whatever_the_encoder_gives(prepare, layers):
    """BatchNorm is on the projector's output too, without ReLU and without a scale of its own."""
    method = build(layers=layers)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in method.projector) == layers
    z = method.projector(100 + 7 * torch.randn(64, method.encoder.dim))
    torch.testing.assert_close(z.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, unbiased=False), torch.ones(32), atol=1e-3, rtol=0)


def test_without_the_stop_gradient_it_collapses(prepare, fit):
    """std, of unit vectors, is 1 where they fill the sphere; the rank is at most 32, that of the projections."""
    kept, lost = (
        fit(method, lambda step, m=method: prepare(m, 32, "smooth", step), 60)
        for method in (build(), build(stop_gradient=False))
    )
    assert kept["std"] > 0.85 and kept["rank"] > 8
    assert lost["std"] < 0.75 and lost["rank"] < 4
    assert lost["loss"] < kept["loss"] - 0.3  # the collapsed one is the "better" by its own measure
