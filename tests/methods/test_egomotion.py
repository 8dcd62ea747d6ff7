"""Egomotion: whose labels are differences of poses, and what is told by the frames is the motion between them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.methods.egomotion import Egomotion


def build(card, degrees=4, width=4, norm="group", **args):
    torch.manual_seed(0)
    card = card | {"schema": {"pose": {"shape": [4, degrees]}}}
    return Egomotion(nets.build("convnet", width=width, norm=norm), card, **{"hidden": 16, **args})


def test_exchanged_frames_negate_the_label(card):
    method = build(card, bins=7, reach=0.09)
    motion = torch.linspace(-0.2, 0.2, 401)
    label = method.binned(motion)
    assert torch.equal(method.binned(-motion), 6 - label) and label.unique().tolist() == list(range(7))
    assert label[200] == 3 and method.binned(torch.tensor(0.09 / 7 * 0.99)) == 3 and method.binned(torch.tensor(0.0129)) == 4
    with pytest.raises(UserError, match="should be an odd number"):
        build(card, bins=20)


def test_pairs_are_any_two_frames_and_the_motion_between_them(card):
    method, n = build(card), 600
    number = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(n, 4, 3, 2, 2)
    pose = torch.rand(n, 4, 4) * 0.18
    frames, label = method.pairs({"frames": number, "pose": pose, "key": rng.key(0, torch.arange(n))})
    first, second = frames[:, :, 0, 0, 0].long().unbind(1)
    assert len({*zip(first.tolist(), second.tolist())}) == 12 and (first != second).all()
    far, _ = build(card, apart=2).pairs({"frames": number, "pose": pose, "key": rng.key(0, torch.arange(n))})
    assert {abs(a - b) for a, b in far[:, :, 0, 0, 0].long().tolist()} == {2, 3}
    with pytest.raises(UserError, match="films of 4 frames have no two that are 4 apart"):
        build(card, apart=4)
    rows = torch.arange(n)
    assert torch.equal(label, method.binned(pose[rows, second] - pose[rows, first]))


def test_loss_and_majority_against_loops(card):
    method = build(card, bins=5)
    random = torch.Generator().manual_seed(0)
    logits, motion = torch.randn(6, 4, 5, generator=random), torch.randint(5, (6, 4), generator=random)
    loss, right, majority = 0.0, 0, 0.0
    for d in range(4):
        for n in range(6):
            e = np.exp(logits[n, d].double().numpy())
            loss -= np.log(e[motion[n, d]] / e.sum()) / 6
            right += int(e.argmax() == motion[n, d])
        majority += np.bincount(motion[:, d]).max() / 6 / 4
    out = method.compared(logits, motion)
    assert float(out["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(out["accuracy"]) == pytest.approx(right / 24) and float(out["accuracy_majority"]) == pytest.approx(majority)


def test_motion_is_told_by_the_two_frames_together(card, fit):
    """Shifts of a texture by up to two pixels: seen after a short training, and not in frames of different films."""
    method = build(card, degrees=2, width=8, norm="batch", bins=3, reach=2.5, hidden=32)

    def films(step, n=64):
        random = torch.Generator().manual_seed(step)
        scene = F.interpolate(torch.randn(n, 3, 4, 4, generator=random), (22, 22), mode="bilinear")
        shift = torch.randint(-2, 3, (n, 2), generator=random)  # x, y, of the camera
        first = scene[:, :, 3:19, 3:19]
        second = torch.stack([s[:, 3 + y : 19 + y, 3 + x : 19 + x] for s, (x, y) in zip(scene, shift.tolist())])
        pose = torch.stack([torch.zeros(n, 2), shift.float()], 1)
        return {"frames": torch.stack([first, second], 1), "pose": pose, "key": torch.arange(n) + step * n}

    fit(method, films, 110)
    method.eval()
    with torch.no_grad():
        batch = films(10**6, 256)
        out = method(batch)
        mixed = method({**batch, "frames": torch.stack([batch["frames"][:, 0], batch["frames"][:, 1].roll(1, 0)], 1)})
    assert out["accuracy"] > out["accuracy_majority"] + 0.15, out
    assert mixed["accuracy"] < mixed["accuracy_majority"] + 0.06, mixed
