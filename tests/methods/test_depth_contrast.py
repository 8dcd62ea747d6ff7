"""DepthContrast: its four losses written as loops, its two queues and moving copies step by step."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.methods.depth_contrast import DepthContrast


def build(**args):
    torch.manual_seed(0)
    method = DepthContrast(nets.build("pointnet", width=4, neighbours=4, norm="group"), **{
        "hidden": 16, "hidden_voxels": 12, "dim": 8, "queue": 10, "grid": 8, "width": 2, **args})  # fmt: skip
    return method


def views(n=4, seed=1):
    random = torch.Generator().manual_seed(seed)
    return {"points": torch.randn(n, 2, 20, 3, generator=random), "key": torch.randperm(n, generator=random)}


def test_loss_is_half_of_four():
    method = build().eval()
    batch = views()
    with torch.no_grad():
        q = [F.normalize(net(batch["points"][:, 0]), dim=1).double().numpy() for net in method.queries]
        k = [F.normalize(net(batch["points"][:, 1]), dim=1).double().numpy() for net in (method.key, method.key_voxels)]
        out = method(batch)
    queues = [queue.keys.double().numpy() for queue in (method.queue, method.queue_voxels)]

    def one(i, j):
        loss = 0.0
        for a, b in zip(q[i], k[j]):
            scores = np.exp(np.array([a @ b, *(queues[j] @ a)]) / 0.1)
            loss -= np.log(scores[0] / scores.sum()) / len(q[i])
        return loss

    within, across = (one(0, 0) + one(1, 1)) / 2, (one(0, 1) + one(1, 0)) / 2
    assert float(out["loss"]) == pytest.approx(within + across, rel=1e-4)
    assert float(out["loss_within"]) == pytest.approx(within, rel=1e-4)
    found = np.mean([(k[1] @ a).argmax() == i for i, a in enumerate(q[0])])
    assert float(out["retrieved"]) == pytest.approx(found) and float(out["retrieved_chance"]) == 0.25


def test_queues_hold_the_keys_of_their_format_and_never_their_own_batchs():
    method = build()
    for seed in range(4):
        batch = views(seed=seed)
        with torch.no_grad():
            keys = method.keys(batch["points"][:, 1], batch["key"])
        queues = method.queue, method.queue_voxels
        for key, queue in zip(keys, queues):
            assert (queue.keys @ key.T).max() < 1 - 1e-6
        before = [queue.keys.clone() for queue in queues]
        loss = method(batch)["loss"]
        expected = method.contrasted([method.embed(net, batch["points"][:, 0]) for net in method.queries], keys, before)
        torch.testing.assert_close(loss, expected["loss"])
        for key, queue in zip(keys, queues):
            assert all((queue.keys - row).norm(dim=1).min() < 1e-5 for row in key)


def test_copies_of_both_formats_and_their_heads_move_by_momentum():
    method = build(momentum=0.9)
    pairs = [*zip((method.key, method.key_voxels), method.queries)]
    start = [[p.detach().clone() for p in query.parameters()] for _, query in pairs]
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.5)
    method(views())["loss"].backward()
    optimizer.step()
    method.after_step(0.5)
    for (key, query), old in zip(pairs, start):
        assert len(old) == len(list(key.parameters())) > 4
        for moved, now, before in zip(key.parameters(), query.parameters(), old):
            torch.testing.assert_close(moved, 0.9 * before + 0.1 * now.detach(), rtol=1e-5, atol=1e-7)
        assert not any(p.requires_grad for p in key.parameters())


def test_things_find_themselves_in_the_other_format(fit):
    method = build(queue=32, temperature=0.2, momentum=0.5)

    def things(step, n=16):
        method.after_step(0.5)  # as the trainer does after each
        random = torch.Generator().manual_seed(step)
        extent = torch.rand(n, 1, 1, 3, generator=random) ** 2
        return {"points": torch.randn(n, 2, 40, 3, generator=random) * extent, "key": torch.arange(n) + step}

    fit(method, things, 90, lr=3e-3)
    with torch.no_grad():
        out = method.eval()(things(1000, 48))
    assert out["retrieved"] > 3 * out["retrieved_chance"], out
