"""Gradients by parts of a batch where the network draws and keeps statistics; that they are the whole batch's without
either, of every method that has them, is the contract's (tests/methods/test_contract.py)."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
import torch.nn as nn

from selfsup import nets
from selfsup.core import distributed, rng
from selfsup.data import order
from selfsup.errors import UserError
from selfsup.methods.moco import MoCo
from selfsup.methods.rotation import Rotation
from selfsup.methods.simclr import SimCLR
from selfsup.training import accumulate, measure


def simclr():
    method = SimCLR(nets.build("convnet", width=4), hidden=16, dim=8)
    method.projector = nn.Sequential(nn.Dropout(0.5), method.projector)
    return method, {"image": torch.randn(8, 2, 3, 16, 16), "key": torch.arange(8)}


def test_both_passes_draw_the_same_and_statistics_of_a_part_count_once():
    ours, batch = simclr()
    theirs, parts = copy.deepcopy(ours), [{name: column[i : i + 4] for name, column in batch.items()} for i in (0, 4)]
    told = accumulate.Accumulation(ours, ours, 2).backward(batch, 3, 1)
    z = []
    for number, part in enumerate(parts):
        torch.manual_seed(rng.key(3, 1, number))
        z += theirs.project(part)
    out = theirs.objective(torch.cat(z))
    out["loss"].backward()
    torch.testing.assert_close(told["loss"], out["loss"].detach())
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert not any(value.requires_grad for value in told.values())


def test_a_step_costs_a_forward_pass_more_where_the_batch_is_embedded_twice():
    method, batch = simclr()
    once, twice = measure.flops(method, batch), measure.flops(method, batch, accumulate.alone)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method.project(batch)
    assert twice - once == counter.get_total_flops() // 8


def test_a_step_is_counted_of_whole_groups():
    """32 rows of a batch stand for it; of a method that takes groups apart as many whole ones as these hold."""
    method, seen = Rotation(nets.build("convnet", width=4)), []
    method.order = order.Labelled(4)
    batch = {"image": torch.randn(40, 3, 16, 16), "key": torch.arange(40)}
    measure.flops(method, batch, lambda method, part: seen.append(len(part["key"])))
    method.order = order.Labelled(49)
    measure.flops(method, batch, lambda method, part: seen.append(len(part["key"])))
    assert seen == [30, 40]


def run(method, batch=32, parts=4):
    return SimpleNamespace(name="r", method=method, train=SimpleNamespace(batch=batch, accumulate=parts))


class Paired(Rotation):
    order = order.Pairs()


@pytest.mark.parametrize("method, given, processes, said", [
    (MoCo, run("moco"), 1, "runs.r.train.accumulate: moco cannot be trained by parts of a batch"),
    (SimCLR, run("simclr"), 2, "simclr compares the images of a batch and .* in one process only, not in 2"),
    (Rotation, run("rotation", 36, 6), 4, "36 cannot be cut into 6 parts of .* 2 images on each of 4 processes"),
    (Rotation, run("rotation", 24, 6), 4, "24 cannot be cut into 6 parts of .* 2 images on each of 4 processes"),
    (Paired, run("rotation", 36, 4), 1, "a batch of 36 cannot be cut into 4 parts .* 2 images of whole groups of 2"),
    (SimCLR, run("simclr"), 1, None),
    (Rotation, run("rotation"), 2, None),
    (Paired, run("rotation"), 2, None),
    (MoCo, run("moco", parts=None), 2, None),
])  # fmt: skip
def test_what_cannot_be_cut_is_refused(method, given, processes, said, monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: processes)
    if said is None:
        return accumulate.check(given, method)
    with pytest.raises(UserError, match=said):
        accumulate.check(given, method)
