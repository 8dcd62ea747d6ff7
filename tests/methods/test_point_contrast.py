"""PointContrast against equation 2 written as loops, and its matches against the true transform."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core import rng
from selfsup.inputs.points import Scans, turned
from selfsup.methods.point_contrast import PointContrast, distances


def build(**args):
    torch.manual_seed(0)
    return PointContrast(nets.build("pointnet", width=4, neighbours=6, norm="group"), **{"dim": 8, "pairs": 12, **args})


def scans(n=6, points=50, seed=0):
    """Two partial views of a surface that are alike but for noise of 0.01, an order of their own and the transform."""
    random = torch.Generator().manual_seed(seed)
    key = rng.key(seed, torch.arange(n))
    whole = torch.rand(n, 2 * points, 3, generator=random) * torch.tensor([1, 1, 0.2])
    first, second = whole[:, :points], whole[:, points // 2 : points // 2 + points].flip(1)
    second = second + 0.01 * (torch.rand(second.shape, generator=random) - 0.5)
    turn, shift = turned(key, "any"), torch.randn(n, 1, 3, generator=random)
    second = second @ turn.mT + shift
    return {"points": torch.stack([first, second], 1), "transform": torch.cat([turn, shift.mT], 2),
            "index": torch.arange(n), "epoch": torch.zeros(n, dtype=torch.long)}  # fmt: skip


def prepared(data, **fields):
    return Scans(**{"radius": 0.05, **fields})(data, 0, [], [])


def test_every_match_lies_near_under_the_true_transform():
    data, met = scans(), 0
    for epoch in range(20):
        data["epoch"] = torch.full((6,), epoch)
        out = prepared(data)
        for n in range(6):
            turn, shift = data["transform"][n, :, :3], data["transform"][n, :, 3]
            near = (((data["points"][n, 0] @ turn.T + shift)[:, None] - data["points"][n, 1]).norm(dim=2)) <= 0.05
            for p, q in enumerate(out["match"][n].tolist()):
                assert near[p, q] if q >= 0 else not near[p].any()
            several = near.sum(1) > 1
            met += int((out["match"][n] != near.byte().argmax(1))[several].any())
    assert met > 20, "one of all at random, not the first"
    assert 0.4 < (out["match"] >= 0).float().mean() < 1


def test_matches_are_of_the_scans_not_of_their_views():
    """Turned together with their truth, scans have the same matches, however their views are turned."""
    data = scans()
    turn = turned(rng.key(9, torch.arange(6)), "any")
    move = data["transform"]
    other = {**data, "points": data["points"] @ turn[:, None].mT,
             "transform": torch.cat([turn @ move[:, :, :3] @ turn.mT, turn @ move[:, :, 3:]], 2)}  # fmt: skip
    assert (prepared(data)["match"] == prepared(other)["match"]).float().mean() > 0.99
    plain = prepared(data, turn="none", scale=(1.0, 1.0))
    assert torch.equal(plain["match"], prepared(data)["match"]) and torch.equal(plain["points"], data["points"])


def test_loss_is_equation_2():
    random = torch.Generator().manual_seed(0)
    first, second = (F.normalize(torch.randn(3, 4, 8, generator=random), dim=2) for _ in range(2))
    pair = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]]).bool()
    pairs = [(i, j) for i in range(3) for j in range(4) if pair[i, j]]
    expected, right = 0.0, 0
    for i, j in pairs:
        scores = np.array([float(first[i, j] @ second[k, m]) / 0.4 for k, m in pairs])
        own = float(first[i, j] @ second[i, j]) / 0.4
        expected -= np.log(np.exp(own) / np.exp(scores).sum()) / len(pairs)
        right += own == scores.max()
    out = build().compared(first, second, pair)
    assert float(out["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(out["accuracy"]) == pytest.approx(right / len(pairs))
    gone = build().compared(first, second, torch.zeros_like(pair))
    assert gone["loss"] == 0, "where nothing matches there is nothing to learn"
    far = distances(first, second, pair)
    apart = {(a, b): float((first[a] - second[b]).norm()) for a in pairs for b in pairs if a[0] == b[0]}
    assert float(far["distance"]) == pytest.approx(np.mean([apart[a, a] for a in pairs]), rel=1e-4)
    assert float(far["distance_unmatched"]) == pytest.approx(np.mean([d for (a, b), d in apart.items() if a != b]), rel=1e-4)


def test_pairs_are_matches():
    method, batch = build(pairs=30), prepared(scans())
    with torch.no_grad():
        first, second, pair = method.matched(batch)
        views = [F.normalize(method.head(method.encoder.points(view)), dim=2) for view in batch["points"].unbind(1)]
    assert pair.any() and not pair.all()
    for n in range(6):
        known = {(p, q) for p, q in enumerate(batch["match"][n].tolist()) if q >= 0}
        found = {(int((views[0][n] - a).norm(dim=1).argmin()), int((views[1][n] - b).norm(dim=1).argmin()))
                 for a, b, there in zip(first[n], second[n], pair[n]) if there}  # fmt: skip
        assert found <= known and len(found) == min(30, len(known))


def test_matched_points_come_nearer_than_unmatched_ones(fit):
    method = build()
    out = fit(method, lambda step: prepared(scans(seed=step)), 40, lr=1e-2)
    assert out["distance"] < 0.8 * out["distance_unmatched"]
