import copy
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


KINDS = [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("lars", optim.Lars), ("larc", optim.Lars)]


@pytest.mark.parametrize("name, kind", KINDS)
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


@pytest.mark.parametrize("name, kind", KINDS)
def test_without_what_serves_torch_compile_an_optimiser_makes_the_same_steps(monkeypatch, name, kind):
    def trained():
        torch.manual_seed(0)
        toy = Toy()
        optimizer = optim.build(toy, SimpleNamespace(**{**vars(TRAIN), "optimizer": name}))
        for number in range(4):
            toy.critic(toy.body(torch.randn(8, 2))).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if number == 1:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        return nn.utils.parameters_to_vector(toy.parameters()), optimizer

    ours, optimizer = trained()
    monkeypatch.setattr(optim, "eager", lambda kind: kind)
    theirs, whole = trained()
    assert type(whole) is kind and type(optimizer) is not kind
    assert torch.equal(ours, theirs) and not ours.isnan().any()
    assert str(optimizer.state_dict()) == str(whole.state_dict())  # a checkpoint is of either


def slow_lars(w, g, v, lr, decay, trust, clipped):
    """You et al., Algorithm 1, of one weight as a flat list; clipped as in apex's LARC, whose rate is constant here."""
    norm, slope = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in g))
    rate = lr
    if norm and slope:
        ratio = trust * norm / (slope + decay * norm)
        rate = lr * (min(ratio / lr, 1) if clipped else ratio)
    v = [0.9 * old + rate * (x + decay * y) for old, x, y in zip(v, g, w)]
    return [x - y for x, y in zip(w, v)], v


@pytest.mark.parametrize("name, trust, clipped", [("lars", 0.001, False), ("larc", 0.02, True)])
@pytest.mark.parametrize("decay_vectors", [None, True])
def test_lars_makes_the_steps_of_the_paper(name, trust, clipped, decay_vectors):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3), nn.Linear(3, 2)).double()
    nn.init.zeros_(net[2].weight)  # has no ratio
    net.param_groups = lambda: [{"params": net.parameters()}]
    lr = 0.02 if clipped else 2.0  # the first: some ratios are above it, some below
    train = SimpleNamespace(optimizer=name, lr=lr, weight_decay=0.1, decay_vectors=decay_vectors)
    optimizer = optim.build(net, train)
    optim.set_learning_rate(optimizer, lr)
    expected = [(p.flatten().tolist(), [0.0] * p.numel()) for p in net.parameters()]
    x, above = torch.randn(16, 4).double(), []
    for factor in (0.01, 1, 0.1, 3, 0.3):
        optimizer.zero_grad()
        (factor * net(x).square().sum()).backward()
        for i, p in enumerate(net.parameters()):
            (w, v), g, vector = expected[i], p.grad.flatten().tolist(), p.dim() == 1
            if not vector and p.norm() > 0 and p.grad.norm() > 0:
                above.append(bool(trust * p.norm() / (p.grad.norm() + 0.1 * p.norm()) > lr))
            own = (0.1 if decay_vectors or not vector else 0.0), (trust if not vector else math.inf), clipped or vector
            expected[i] = slow_lars(w, g, v, lr, *own)
        optimizer.step()
        for p, (w, _) in zip(net.parameters(), expected):
            assert p.flatten().tolist() == pytest.approx(w, rel=1e-10, abs=1e-14)
    assert len(set(above)) == (2 if clipped else 1)


def test_lars_goes_on_from_its_state():
    weights = []
    for stop in (False, True):
        torch.manual_seed(0)
        toy = Toy()
        optimizer = optim.build(toy, SimpleNamespace(**{**vars(TRAIN), "optimizer": "lars"}))
        for number in range(4):
            if stop and number == 2:
                state = optimizer.state_dict()
                optimizer = optim.build(toy, SimpleNamespace(**{**vars(TRAIN), "optimizer": "lars"}))
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            toy.critic(toy.body(torch.ones(4, 2) * torch.arange(4)[:, None])).square().sum().backward()
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in toy.parameters()]))
    assert torch.equal(*weights)


def test_optional_keys_decay_vectors_and_scale_the_rate():
    toy, train = Toy(), SimpleNamespace(**vars(TRAIN), decay_vectors=True, scale_lr=True, batch=1024)
    assert {group["weight_decay"] for group in optim.build(toy, train).param_groups} == {0.05}
    for step in (0, 10, 55, 99):
        assert optim.learning_rate(step, 100, train) == pytest.approx(4 * optim.learning_rate(step, 100, TRAIN))
        train.scale_lr = False
        assert optim.learning_rate(step, 100, train) == optim.learning_rate(step, 100, TRAIN)
        train.scale_lr = True
