"""Tracking: the authors' choice of negatives as loops, the fixed divisor, and patches of the same thing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core import rng
from selfsup.methods.tracking import Tracking
from tests.test_moving import SIDE, film


def build(card, **args):
    torch.manual_seed(0)
    return Tracking(nets.build("convnet", width=4, norm="group"), card | {"size": SIDE}, **{"hidden": 16, "dim": 8, **args})


def tracks(n=6, seed=0, near=0.5):
    random = torch.Generator().manual_seed(seed)
    first = F.normalize(torch.randn(n, 8, generator=random), dim=1)
    last = F.normalize(first + near * torch.randn(n, 8, generator=random), dim=1)
    return torch.stack([first, last], 1), rng.key(seed, torch.arange(n))


def violations(method, z, there):
    n, patches = len(z), z.flatten(0, 1)
    violation = torch.tensor([[float(method.margin + z[i, 0] @ x - z[i, 0] @ z[i, 1]) for x in patches] for i in range(n)])
    other = torch.tensor([[j // 2 != i and bool(there[j // 2]) for j in range(2 * n)] for i in range(n)])
    return violation, other


def test_negatives_are_those_of_the_code(card):
    """Of the others that violate the margin: all, if they are four at most; else two of the four closest, and two more."""
    method, counts = build(card), set()
    there = torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    for seed in range(30):
        z, key = tracks(seed=seed, near=0.2 + 0.05 * seed)
        violation, other = violations(method, z, there)
        method.after_step(0.5)
        chosen, negative = method.chosen(violation, other, key)
        for i in range(6):
            violating = {j for j in range(12) if other[i, j] and violation[i, j] > 0}
            found = [j for j, there_is in zip(chosen[i].tolist(), negative[i].tolist()) if there_is]
            assert len(set(found)) == len(found) == min(4, len(violating)) and set(found) <= violating
            closest = sorted(violating, key=lambda j: -float(violation[i, j]))[:4]
            assert len(set(found) & set(closest)) >= min(2, len(violating))
            counts.add((len(violating) > 4, len(set(found) & set(closest)) < 4))
        method.after_step(0.2)
        chosen, negative = method.chosen(violation, other, key)
        assert negative.all() and other.gather(1, chosen).all() and all(len(set(row)) == 4 for row in chosen.tolist())
    assert (True, True) in counts, "some of the rest"


@pytest.mark.parametrize("progress", [0.1, 0.9])
def test_loss_is_the_codes(card, progress):
    """Both patches with the same negatives, divided by how many there might be; gradients of what violates alone."""
    method = build(card)
    method.after_step(progress)
    z, key = tracks(8, near=0.6)
    there = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1]).bool()
    z.requires_grad_()
    out = method.ranked(z, there, key)
    violation, other = violations(method, z.detach(), there)
    chosen, negative = method.chosen(violation, other, key)
    patches, loss, active = z.detach().flatten(0, 1).double(), 0.0, set()
    for i in range(8):
        near = float(patches[2 * i] @ patches[2 * i + 1])
        for j, counts in zip(chosen[i].tolist(), negative[i].tolist()):
            for anchor in (2 * i, 2 * i + 1):
                hinge = max(0.0, float(patches[anchor] @ patches[j]) - near + 0.5) * counts * bool(there[i])
                loss += hinge / (7 * 4 * 2)
                active |= {anchor, j, 2 * i, 2 * i + 1} if hinge else set()
    assert float(out["loss"].detach()) == pytest.approx(loss, rel=1e-4)
    out["loss"].backward()
    assert {i for i, row in enumerate(z.grad.flatten(0, 1)) if row.any()} == active and len(active) < 16
    right = [float(patches[a] @ patches[j]) < float(patches[2 * i] @ patches[2 * i + 1])
             for i in range(8) for a in (2 * i, 2 * i + 1) for j in range(16) if other[i, j] and there[i]]  # fmt: skip
    assert float(out["accuracy"]) == pytest.approx(np.mean(right))


def test_patches_are_of_what_moves_at_both_ends(card):
    method = build(card, patch=0.25)
    frames, flow, truth, start = film((2.0, 1.0), n=12, noise=0.1)
    for t in range(4):  # what moves is light, in all frames
        for n in range(12):
            top, left = int(start[n, 0]) + t, int(start[n, 1]) + 2 * t
            frames[n, t] = -1
            frames[n, t, :, top : top + 11, left : left + 11] = 1
    data = {"frames": frames, "flow": flow, "key": torch.arange(12)}
    patches, there = method.tracks(data)
    assert there.all() and patches.shape == (12, 2, 3, SIDE, SIDE)
    assert ((patches > 0).float().mean((2, 3, 4)) > 0.8).float().mean() > 0.9
    changed, _ = build(card, patch=0.25, jitter=0.5).tracks(data)
    moved = (changed - patches).mean((3, 4))  # by half a channel, and one deviation, at most
    assert moved.abs().max() <= 1.5 + 1e-3 and moved.std(2).mean() > 0.2 and moved.std(1).mean() > 0.2, "each for itself"
    _, there = method.tracks({**data, "flow": torch.zeros_like(flow)})
    assert not there.any()


def test_no_track_is_no_loss(card):
    z, key = tracks(4)
    out = build(card).ranked(z, torch.zeros(4, dtype=torch.bool), key)
    assert out["loss"] == 0 and all(value.isfinite() for value in out.values())
