"""SimCLR against Algorithm 1 written as loops."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.simclr import SimCLR


def build(**args):
    torch.manual_seed(0)
    return SimCLR(nets.build("convnet", width=4, norm="group"), **args)


def views(n=5, size=16):
    return {"image": torch.randn(n, 2, 3, size, size)}


def nt_xent(z, temperature):
    """Algorithm 1: z[2k], z[2k + 1] (from 0) are the projections of image k's two views."""
    s = np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in z] for a in z])

    def one(i, j):
        below = sum(np.exp(s[i, k] / temperature) for k in range(len(z)) if k != i)
        return -np.log(np.exp(s[i, j] / temperature) / below)

    pairs = range(len(z) // 2)
    return sum(one(2 * k, 2 * k + 1) + one(2 * k + 1, 2 * k) for k in pairs) / len(z)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_loss_is_algorithm_1(temperature):
    method, batch = build(hidden=16, dim=8, temperature=temperature).eval(), views()
    with torch.no_grad():
        first, second = (method.projector(method.encoder(batch["image"][:, v])) for v in range(2))
    interleaved = torch.stack([first, second], 1).flatten(0, 1).double().numpy()
    assert float(method(batch)["loss"].detach()) == pytest.approx(nt_xent(interleaved, temperature), rel=1e-5)


def test_order_of_views_and_of_images_does_not_matter():
    method, batch = build().eval(), views()
    loss = method(batch)["loss"]
    torch.testing.assert_close(method({"image": batch["image"].flip(1)})["loss"], loss)
    torch.testing.assert_close(method({"image": batch["image"].flip(0)})["loss"], loss)


def test_an_image_is_not_its_own_negative():
    """With one image nothing competes with the other view; were the view itself in the sum, the loss would be above 0."""
    out = build().eval()(views(1))
    assert out["loss"] == 0 and out["accuracy"] == 1


def test_gradient_is_that_of_the_whole_loss():
    """Every view is also a negative of others and is moved as such; a gather without gradient would leave that out."""
    method, batch = build(hidden=16, dim=8).eval(), views(4)
    batch["image"].requires_grad_()
    z = method.project(batch)[0]
    s = (z @ z.T / 0.5).exp()
    below = s.sum(1) - s.diagonal()
    reference = torch.stack([(below[i] / s[i, i ^ 1]).log() for i in range(8)]).mean()
    (expected,) = torch.autograd.grad(reference, batch["image"])
    (gradient,) = torch.autograd.grad(method(batch)["loss"], batch["image"])
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_affinity_picture_shows_pairs_as_bright_blocks_after_training():
    method, batch = build(temperature=0.1), views(8)
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = method(batch)["loss"]
        loss.backward()
        optimizer.step()
    picture = method.eval().pictures(batch)["affinity"]
    assert picture.shape == (16 * 8, 16 * 8)
    similarity = picture[4::8, 4::8]
    pairs = torch.arange(16)
    assert (similarity[pairs, pairs] > 0.999).all()
    others = similarity.clone()
    others[pairs, pairs] = others[pairs, pairs ^ 1] = -1
    assert similarity[pairs, pairs ^ 1].mean() > others[others >= 0].mean() + 0.2


@pytest.mark.parametrize("layers, kinds", [(0, []), (1, ["Linear"]), (2, ["Linear", "BatchNorm1d", "ReLU", "Linear"])])
def test_projector_of_figure_8(layers, kinds):
    method = SimCLR(nets.build("convnet", width=4), hidden=8, dim=6, layers=layers)
    assert [type(layer).__name__ for layer in method.projector.children()] == kinds
    x = torch.randn(3, 2, 3, 16, 16)
    assert method.project({"image": x})[0].shape == (6, 6 if layers else method.encoder.dim)
