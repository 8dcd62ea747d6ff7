import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
from hypothesis import given
from hypothesis import strategies as st

from selfsup.training import optim

TRAIN = SimpleNamespace(lr=0.1, weight_decay=0.05, warmup=0.1, optimizer="adamw")


@given(st.integers(1, 500))
def test_schedule_is_positive_and_never_above_its_peak(steps):
    rates = [optim.learning_rate(s, steps, TRAIN) for s in range(steps)]
    assert all(0 < r <= TRAIN.lr * (1 + 1e-12) for r in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_schedule_against_the_formula():
    assert optim.learning_rate(0, 100, TRAIN) == pytest.approx(0.01)
    assert optim.learning_rate(10, 100, TRAIN) == pytest.approx(0.1)
    assert optim.learning_rate(55, 100, TRAIN) == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi / 2)))


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.critic = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), nn.Linear(3, 1)

    def param_groups(self):
        return [{"params": self.body.parameters()}, {"params": self.critic.parameters(), "lr_scale": 0.1}]


@pytest.mark.parametrize("name, kind", [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_vectors_are_not_decayed_and_each_group_has_its_rate(name, kind):
    toy = Toy()
    optimizer = optim.build(toy, SimpleNamespace(**{**vars(TRAIN), "optimizer": name}))
    assert isinstance(optimizer, kind)
    optim.set_learning_rate(optimizer, 0.5)
    found = {p: group for group in optimizer.param_groups for p in group["params"]}
    assert set(found) == set(toy.parameters())
    for parameter, group in found.items():
        assert group["weight_decay"] == (0.05 if parameter.dim() > 1 else 0.0)
    assert found[toy.critic.weight]["lr"] == pytest.approx(0.05)
    assert found[toy.body[0].weight]["lr"] == pytest.approx(0.5)
