"""BYOL against equation 2 written as loops, its target step by step, and that it does not collapse."""

import math

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.byol import BYOL


def build(**args):
    torch.manual_seed(0)
    return BYOL(nets.build("convnet", width=4), **{"hidden": 32, "dim": 16, **args})


def weights(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def apart(method):
    """The target differs from the online network, as after some steps."""
    with torch.no_grad():
        for p in method.target.parameters():
            p.add_(0.2 * p.abs().mean() * torch.randn_like(p))
    return method


def test_loss_is_equation_2(prepare):
    method = apart(build())
    batch = prepare(method)
    with torch.no_grad():
        views = batch["image"].unbind(1)
        q = [method.predictor(method.projector(method.encoder(x))).double().numpy() for x in views]
        z = [method.target(x).double().numpy() for x in views]

    def squared_distance(q, z):
        return np.mean([((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2).sum() for a, b in zip(q, z)])

    expected = squared_distance(q[0], z[1]) + squared_distance(q[1], z[0])
    assert float(method(batch)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_target_moves_by_ema_exactly_and_momentum_rises(prepare):
    method = build(momentum=0.9)
    expected = weights(method.encoder, method.projector)
    assert all(map(torch.equal, weights(method.target), expected))  # starts equal; the predictor has no average
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    for step in range(4):
        optimizer.zero_grad()
        method(prepare(method, seed=step))["loss"].backward()
        optimizer.step()
        assert all(p.grad is None for p in method.target.parameters())
        assert all(torch.equal(a, b) for a, b in zip(weights(method.target), expected)) or step  # not before after_step
        method.after_step((step + 1) / 4)
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * (step + 1) / 4) + 1) / 2
        now = weights(method.encoder, method.projector)
        expected = [momentum * e + (1 - momentum) * p for e, p in zip(expected, now)]
        for target, value in zip(weights(method.target), expected, strict=True):
            torch.testing.assert_close(target, value, rtol=1e-5, atol=1e-6)
    assert momentum == 1


def test_solarize_is_on_one_view_and_each_view_is_predicted_from_the_other(prepare):
    method = apart(build()).eval()
    batch = prepare(method)
    swapped = {**batch, "image": batch["image"].flip(1)}
    torch.testing.assert_close(method(swapped)["loss"], method(batch)["loss"])
    same = {**batch, "image": batch["image"][:, :1].expand(-1, 2, -1, -1, -1)}
    assert not torch.isclose(method(same)["loss"], method(batch)["loss"])


def test_does_not_collapse(prepare, fit):
    """It agrees, and still tells images apart: std is 1 on a filled sphere and 0 where all are the same."""

    def moving(step):
        if step:
            method.after_step(step / 60)
        return prepare(method, 32, "smooth", step)

    method = build(momentum=0.9)
    before = float(method(moving(0))["loss"].detach())
    after = fit(method, moving, 60)
    assert after["loss"] < 0.6 * before
    assert after["std"] > 0.5 and after["rank"] > 4
