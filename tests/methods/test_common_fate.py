"""Common fate: the loss against the kernels written as loops, and what it does not depend on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.methods import common_fate
from selfsup.methods.common_fate import CommonFate
from tests.test_moving import film


def build(card, size=16, **args):
    torch.manual_seed(0)
    return CommonFate(nets.build("convnet", width=4, norm="group"), card | {"size": size}, **args)


def pixels(n=2, p=7, seed=0):
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, 5, p, generator=random), dim=1), torch.randn(n, 2, p, generator=random)


def loops(embedding, flow, scale, sigma):
    """(loss, entropy of S_u), means over pixels and frames: each column a softmax of kernel values, without its pixel."""
    loss, entropy, (n, _, p) = 0.0, 0.0, flow.shape
    for i in range(n):
        phi, u = embedding[i].double().numpy().T, flow[i].double().numpy().T
        for q in range(p):
            others = [o for o in range(p) if o != q]
            k_u = np.array([np.exp(-((u[o] - u[q]) ** 2).sum() / (2 * sigma**2)) for o in others])
            k_phi = np.array([scale * phi[o] @ phi[q] / np.linalg.norm(phi[o]) / np.linalg.norm(phi[q]) for o in others])
            s_u, s_phi = (np.exp(k) / np.exp(k).sum() for k in (k_u, k_phi))
            loss -= (s_u * np.log(s_phi)).sum() / (n * p)
            entropy -= (s_u * np.log(s_u)).sum() / (n * p)
    return loss, entropy


@pytest.mark.parametrize("scale, sigma", [(0.25, 0.5), (5.0, 1.0)])
def test_loss_is_the_cross_entropy_of_two_kernels(card, scale, sigma):
    embedding, flow = pixels()
    out = build(card, scale=scale, sigma=sigma).compared(embedding, flow)
    loss, entropy = loops(embedding, flow, scale, sigma)
    assert float(out["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(out["divergence"]) == pytest.approx(loss - entropy, abs=1e-5)
    assert float(out["divergence_flat"]) == pytest.approx(np.log(6) - entropy, abs=1e-5)


def test_what_it_does_not_depend_on(card):
    method, (embedding, flow) = build(card), pixels()
    whole = method.compared(embedding, flow)["loss"]
    torch.testing.assert_close(method.compared(embedding, flow + 3)["loss"], whole)  # the camera moves on
    order = torch.randperm(7)
    torch.testing.assert_close(method.compared(embedding[:, :, order], flow[:, :, order])["loss"], whole)
    out = method.compared(embedding, flow)
    assert out["divergence"] > 0, "above the entropy, unless the kernels are alike:"
    apart = (flow[:1, :, :, None] - flow[:1, :, None]).square().sum(1)
    kernel = (-apart / (2 * 0.5**2)).exp()[0].double()
    values, vectors = torch.linalg.eigh(kernel)  # unit vectors whose cosines are the kernel of the flow
    alike = (vectors * values.clamp(min=0).sqrt()).T[None].float()
    same = build(card, scale=1.0).compared(alike, flow[:1])
    assert abs(float(same["divergence"])) < 1e-5


def test_frames_in_which_nothing_moves_are_left_out(card):
    method, (embedding, flow) = build(card), pixels(3)
    flow[1:] = flow[1:, :, :1] + 0.2 * torch.rand(2, 2, 7)  # the camera alone
    embedding.requires_grad_()
    out = method.compared(embedding, flow)
    torch.testing.assert_close(out["loss"], method.compared(embedding[:1], flow[:1])["loss"])
    out["loss"].backward()
    assert embedding.grad[0].any() and not embedding.grad[1:].any()
    still = method.compared(embedding, torch.zeros_like(flow))
    assert still["loss"] == 0 and still["divergence_flat"] == 0


def test_the_same_pixels_of_embedding_and_flow(card, monkeypatch):
    """The embedding of the pixel that is drawn is held against the flow there; pixels are drawn without repetition."""
    method = build(card, size=32, pixels=20, side=8)
    place = torch.arange(64.0).view(1, 1, 8, 8)
    method.embed = lambda image: place.expand(len(image), 3, -1, -1)
    seen = []
    method.compared = lambda embedding, flow: seen.append((embedding, flow)) or {}
    flow = torch.zeros(5, 1, 2, 32, 32, dtype=torch.int16)
    moved = place.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(5, 2, 32, 32)
    monkeypatch.setattr(common_fate, "own", lambda given: moved if given is flow else None)
    method({"frames": torch.zeros(5, 2, 3, 32, 32), "flow": flow, "key": torch.arange(5)})
    embedding, moved = seen[0]
    assert torch.equal(embedding[:, 0], moved[:, 0]) and embedding.shape[2] == 20
    drawn = [set(row) for row in embedding[:, 0].tolist()]
    assert all(len(row) == 20 for row in drawn) and len({frozenset(row) for row in drawn}) == 5


def test_pixels_that_move_together_become_alike(card, fit):
    method = build(card, size=32, scale=4.0, pixels=100)
    frames, flow, truth, _ = film((2.0, 1.0), n=12)
    data = {"frames": frames, "flow": flow, "key": torch.arange(12)}
    out = fit(method, lambda step: {**data, "key": data["key"] + step}, 40)
    assert 0 <= out["divergence"] < 0.6 * out["divergence_flat"], out
