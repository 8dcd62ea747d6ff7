"""Counting against equation 5 written as loops, and the collapse that its second term prevents."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods.counting import Counting
from tests.methods.conftest import smooth


def build(card, norm="group", **args):
    torch.manual_seed(0)
    return Counting(nets.build("convnet", width=4, norm=norm), {**card, "size": 32}, **args)


def phi(method, image):
    """Of one image, as numpy."""
    with torch.no_grad():
        return method.head(method.encoder(image[None]))[0].double().numpy()


@pytest.mark.parametrize("margin", [0.05, 10.0])  # beyond it, within it
@pytest.mark.parametrize("contrastive", [0.0, 0.5])
def test_loss_is_equation_5(card, margin, contrastive):
    method, x = build(card, counts=7, margin=margin, contrastive=contrastive).eval(), torch.randn(4, 3, 32, 32)
    halved = torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
    expected = 0.0
    for n in range(4):
        parts = sum(phi(method, x[n, :, top : top + 16, left : left + 16]) for top in (0, 16) for left in (0, 16))
        other = phi(method, halved[(n + 1) % 4])
        expected += ((phi(method, halved[n]) - parts) ** 2).sum()
        expected += contrastive * max(0, margin - ((other - parts) ** 2).sum())
    assert float(method({"image": x})["loss"].detach()) == pytest.approx(expected / 4, rel=1e-4)


def test_all_three_uses_of_phi_share_their_gradient(card):
    """Nothing is stopped: the whole, its parts and the other image are all moved."""
    method, x = build(card, counts=7).eval(), torch.randn(3, 3, 32, 32)
    whole, parts = method.count(x)
    loss = (whole - parts).square().sum(1) + (10 - (whole.roll(-1, 0) - parts).square().sum(1)).clamp(min=0)
    expected = torch.autograd.grad(loss.mean(), list(method.parameters()))
    got = torch.autograd.grad(method({"image": x})["loss"], list(method.parameters()))
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_counts_are_not_negative_and_add_up_over_quarters(card):
    method, x = build(card, counts=7).eval(), torch.randn(2, 3, 32, 32)
    whole, parts = method.count(x)
    assert whole.min() >= 0 and parts.min() >= 0
    tiled = x[..., :16, :16].repeat(1, 1, 2, 2)  # four times the same quarter
    _, four = method.count(tiled)
    np.testing.assert_allclose(four[0].detach(), 4 * phi(method, x[0, :, :16, :16]), rtol=1e-4, atol=1e-5)


def test_an_odd_side_cannot_be_halved(card):
    with pytest.raises(UserError, match="cannot halve images of 33 pixels"):
        Counting(nets.build("convnet", width=4), {**card, "size": 33})


def test_without_the_contrastive_term_everything_counts_as_nothing(card, fit):
    def batch(seed):
        x = smooth(32, 32, torch.Generator().manual_seed(seed)).float() / 127.5 - 1
        return {"image": x}

    counts = {}
    for contrastive in (0.0, 1.0):
        method = build(card, norm="batch", counts=32, contrastive=contrastive)
        before = method.eval()(batch(100))["count"].item()
        out = fit(method, lambda step: batch(step % 10), 60, lr=1e-2)
        counts[contrastive] = method.eval()(batch(100))["count"].item() / before
    assert counts[0.0] < 0.02 and counts[1.0] > 0.5
    assert out["different"] > 2 * out["same"]  # and tells images apart
