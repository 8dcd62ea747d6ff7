"""SwAV against Algorithm 1 written as loops, its queue, and what Sinkhorn-Knopp is for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.methods.swav import SwAV
from selfsup.inputs.views import MultiCrop


def build(norm="group", small=2, **args):
    torch.manual_seed(0)
    defaults = {"hidden": 32, "dim": 16, "prototypes": 6, "queue": 20, "queue_from": 1}
    method = SwAV(nets.build("convnet", width=4, norm=norm), **{**defaults, **args})
    method.inputs = MultiCrop(small)
    return method


def embed(method, batch):
    """Unit vectors of the crops, large ones first: [(N, dim), ...]."""
    crops = [*batch["image"].unbind(1), *batch["small"].unbind(1)]
    with torch.no_grad():
        z = method.projector(torch.cat([method.encoder(x) for x in crops])).double().numpy()
    return np.split(z / np.linalg.norm(z, axis=1, keepdims=True), len(crops))


def sinkhorn(scores, eps=0.05):
    """Algorithm 1's; scores (samples, prototypes)."""
    q = np.exp(scores / eps).T
    q /= q.sum()
    k, n = q.shape
    for _ in range(3):
        q /= q.sum(1, keepdims=True) * k
        q /= q.sum(0, keepdims=True) * n
    return (q / q.sum(0)).T


def swapped(codes, crops, prototypes, temperature=0.1):
    """Every large view's codes predicted from every other crop."""
    losses = []
    for i, q in enumerate(codes):
        for v, z in enumerate(crops):
            if v != i:
                p = np.exp(z @ prototypes.T / temperature)
                p /= p.sum(1, keepdims=True)
                losses.append(np.mean([-sum(q[n] * np.log(p[n])) for n in range(len(q))]))
    return np.mean(losses)


@pytest.mark.parametrize("small", [0, 2])
def test_loss_is_algorithm_1(prepare, small):
    method = build(small=small)
    batch = prepare(method)
    crops = embed(method, batch)
    assert len(crops) == 2 + small
    prototypes = method.prototypes.detach().double().numpy()
    codes = [sinkhorn(z @ prototypes.T) for z in crops[:2]]
    expected = swapped(codes, crops, prototypes)
    assert float(method(batch)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_queue_helps_to_assign_from_its_share_of_the_budget_on_and_is_each_views_own(prepare):
    method, earlier = build(queue_from=0.5, queue=24), [[], []]
    for step in range(9):  # 8 images each: the queue is full after three steps of filling it, and used from then on
        batch = prepare(method, seed=step)
        crops = embed(method, batch)
        prototypes = method.prototypes.detach().double().numpy()
        together = [np.concatenate([z, *old])[: 8 + 24] if len(old) > 2 else z for z, old in zip(crops[:2], earlier)]
        codes = [sinkhorn(z @ prototypes.T)[:8] for z in together]
        loss = float(method(batch)["loss"].detach())
        assert loss == pytest.approx(swapped(codes, crops, prototypes), rel=1e-4)
        if step / 9 >= 0.5:
            for view in range(2):
                earlier[view].insert(0, crops[view])  # the newest first, cut above
                assert method.queues[view].keys.any(1).sum() == min(24, 8 * len(earlier[view]))
        else:
            assert not any(queue.keys.any() for queue in method.queues)
        method.after_step((step + 1) / 9)
    assert len(earlier[0]) > 3


def test_codes_take_no_gradient_and_prototypes_stay_on_the_sphere(prepare):
    method = build()
    batch = prepare(method)
    assert not method.codes(method.project(batch)[0][:, 0], method.queues[0]).requires_grad
    method(batch)["loss"].backward()
    with torch.no_grad():
        method.prototypes.sub_(method.prototypes.grad * 10)
    assert (method.prototypes.norm(dim=1) - 1).abs().max() > 0.01
    method.after_step(0.1)
    torch.testing.assert_close(method.prototypes.norm(dim=1), torch.ones(6))


def test_codes_stay_spread_over_the_prototypes_with_sinkhorn_and_collapse_without(prepare, fit):
    """used: exp(entropy) of the prototypes' shares, at most 6; only one is left where nothing divides the images
    evenly."""

    def train(method):
        def batches(step):
            if step:
                method.after_step(step / 60)
            return batch

        batch = prepare(method, 64, "smooth")
        out = fit(method, batches, 60)
        with torch.no_grad():
            z = method.project(batch)[0][:, 0]
        return out, (z @ method.prototypes.T).argmax(1).bincount(minlength=6).double() / 64

    even, share = train(build("batch"))
    assert even["used"] > 5.8 and share.max() < 0.5, (even, share)
    collapsed, share = train(build("batch", sinkhorn=False))
    assert collapsed["used"] < 2 and share.max() > 0.9, (collapsed, share)
