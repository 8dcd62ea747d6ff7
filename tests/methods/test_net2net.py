"""Net2Net: the larger network is the same function, where the paper says so, and no longer where it cannot be."""

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods.net2net import Net2Net, settle
from selfsup.training.state import Teacher

PARENT = {"name": "convnet", "width": 3}


@pytest.fixture
def parent(card, prepare, fit):
    """An encoder and its classifier, a little trained, so that BatchNorm has something to say."""
    from selfsup.methods.supervised import Supervised

    torch.manual_seed(1)
    method = Supervised(nets.build(**PARENT), card)
    fit(method, lambda step: prepare(method, 16, seed=step), 5)
    method.encoder.mean, method.encoder.std = card["mean"], card["std"]
    return method.eval()


def child(parent, card, noise=0.0, dtype=torch.float32, **encoder):
    given = copy.deepcopy(parent).to(dtype)
    with as_default(dtype):
        return grown(given, card, noise, encoder)


@contextlib.contextmanager
def as_default(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def grown(given, card, noise, encoder):
    teacher = Teacher(given.encoder, card, classifier=given.classifier)
    return Net2Net(nets.build(**{**PARENT, **encoder}), card, teacher, noise)


@torch.no_grad()
def logits(method, x):
    """As it is in its mode, without keeping what BatchNorm sees."""
    again = copy.deepcopy(method)
    return again.classifier(again.encoder(x))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("width", [4, 7, 12])
def test_wider_is_the_same_function_in_both_modes(parent, card, width, dtype, tolerance):
    """Whatever is copied how often: a part of what each one had goes to all copies, the first one too."""
    larger = child(parent, card, dtype=dtype, width=width)
    x = torch.randn(9, 3, 16, 16, dtype=dtype)
    for mode in (True, False):
        theirs, ours = (logits(method.to(dtype).train(mode), x) for method in (parent, larger))
        assert ours.shape == theirs.shape and (ours - theirs).abs().max() < tolerance * theirs.abs().max().clamp(min=1)
    assert larger.encoder.dim == 8 * width and not larger.new


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("encoder", [{"convs": 2}, {"convs": 3, "width": 5}])
def test_deeper_is_the_same_function_in_evaluation_and_on_the_batch_that_set_it(parent, card, encoder, dtype, tolerance):
    larger, parent = child(parent, card, dtype=dtype, **encoder), parent.to(dtype)
    first, other = torch.randn(2, 9, 3, 16, 16, dtype=dtype)

    def apart(x, mode):
        theirs, ours = (logits(method.train(mode), x) for method in (parent, larger))
        return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))

    assert apart(first, False) < tolerance and apart(first, True) > 1e-3  # BatchNorm knows of no batch yet
    statistics = {name: value.clone() for name, value in larger.named_buffers() if name.split(".")[3] == "1"}
    larger.before_epoch(SimpleNamespace(epoch=0, first=lambda: {"image": first}))
    assert apart(first, True) < tolerance and apart(first, False) < tolerance
    assert apart(other, False) < tolerance and apart(other, True) > 1e-3
    assert all(torch.equal(larger.get_buffer(name), value) for name, value in statistics.items())  # the parent's stay
    before = copy.deepcopy(larger.state_dict())
    larger.before_epoch(SimpleNamespace(epoch=1, first=lambda: {"image": other}))  # it is set once
    assert all(torch.equal(before[name], value) for name, value in larger.state_dict().items())


def test_copies_stay_copies_without_noise(parent, card, prepare):
    def gradients(noise):
        larger = child(parent, card, noise, width=6).train()
        larger(prepare(larger, 16))["loss"].backward()
        weight, gradient = larger.encoder.blocks[1][0].weight, larger.encoder.blocks[1][0].weight.grad
        biases = parent.encoder.blocks[1][1].bias
        parent_row = [int((biases - b).abs().argmin()) for b in larger.encoder.blocks[1][1].bias]
        twins = [(i, j) for i in range(len(weight)) for j in range(i) if parent_row[i] == parent_row[j]]
        assert twins and parent_row[:6] == list(range(6))
        return max(float((gradient[i] - gradient[j]).abs().max()) for i, j in twins) / float(gradient.abs().max())

    assert gradients(0.0) < 1e-4 < 1e-2 < gradients(0.05)


def test_starts_where_its_parent_stopped(parent, card, prepare):
    batch = prepare(parent, 32)
    larger = child(parent, card, 0.05, width=6, convs=2)
    larger.before_epoch(SimpleNamespace(epoch=0, first=lambda: batch))
    fresh = copy.deepcopy(larger)
    for module in fresh.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    loss = {name: float(method.train()(batch)["loss"].detach())
            for name, method in (("parent", parent), ("larger", larger), ("fresh", fresh))}
    assert abs(loss["larger"] - loss["parent"]) < 0.2 * abs(loss["fresh"] - loss["parent"])


def test_set_by_the_batch_of_all_processes(parent, card, monkeypatch):
    """What each process has of the batch counts alike: simulated by means that another half would bring."""
    from selfsup.core import distributed

    larger = child(parent, card, convs=2).double()
    whole = torch.rand(8, 24, 4, 4, dtype=torch.float64)
    norm = torch.nn.BatchNorm2d(24).double()
    kept = iter([whole.mean((0, 2, 3)), whole.var((0, 2, 3), correction=0)])
    monkeypatch.setattr(distributed, "mean", lambda value: next(kept))
    settle(torch.nn.Sequential(norm), [norm], whole[:4])
    torch.testing.assert_close(norm.eval()(whole), whole)
    assert larger.new == [f"blocks.{i}.4" for i in range(5)]


@pytest.mark.parametrize("encoder, says", [
    ({"width": 2}, "is smaller than its parent"),
    ({"norm": "group"}, "should be its parent's convnet"),
    ({"name": "vit", "size": 16, "dim": 8, "heads": 2}, "should be its parent's convnet, wider or deeper"),
])
def test_what_cannot_be_the_parents_function_is_refused(parent, card, encoder, says):
    own = {key: value for key, value in PARENT.items() if encoder.get("name", "convnet") == "convnet"}
    given = copy.deepcopy(parent)
    with pytest.raises(UserError, match=says):
        Net2Net(nets.build(**{**own, **encoder}), card, Teacher(given.encoder, card, classifier=given.classifier))
    with pytest.raises(UserError, match="holds no classifier"):
        Net2Net(nets.build(**PARENT), card, Teacher(given.encoder, card))
    grouped = nets.build(**PARENT, norm="group")
    grouped.mean, grouped.std = card["mean"], card["std"]
    with pytest.raises(UserError, match="GroupNorm takes statistics over a group"):
        linear = nets.build("linear", d_in=24, d_out=3)
        Net2Net(nets.build(**PARENT, norm="group"), card, Teacher(grouped, card, classifier=linear))
