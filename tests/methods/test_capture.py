"""Every method's step can be recorded and replayed: what changes from step to step lies in tensors that stay in place."""

import functools
from types import SimpleNamespace

import pytest
import torch

from selfsup.core import precision, rng
from selfsup.inputs import operations
from selfsup.training import capture, optim
from selfsup.training.step import Step
from tests.methods.test_contract import NAMES, VARIANTS, begin_epoch, build, prepare, raw, same, trainable
from tests.recorded import OnHost

TRAIN = SimpleNamespace(optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=0.25, clip=1.0)
LEARN = [name for name in NAMES if trainable(build(name))]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """A CPU makes the views of some images only, a GPU of all; oneDNN's LSTM keeps what is no tensor's content."""
    monkeypatch.setattr(operations, "only", lambda on, x, f, *args: torch.where(on.view(-1, 1, 1, 1), f(x, *args), x))
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags would set what this build does not have
    yield
    torch._C._set_mkldnn_enabled(True)


def trained(method, warm, monkeypatch, train=TRAIN):
    """Four of eight steps, the third in the second epoch; the losses, and all that there is afterwards."""
    monkeypatch.setattr(capture, "WARM", warm)
    optimizer = optim.build(method, train, capturable=True)
    prepared = functools.partial(prepare, method)
    step = Step(method, method, optimizer, train, 0, 8, method.after_step, prepare=prepared)
    step, losses = OnHost(step, torch.device("cpu"), "tiny"), []
    for number in (0, 1, 5, 7):
        if number in (0, 5):
            torch.manual_seed(rng.key(0, number, -1))
            begin_epoch(method, number // 4, optimizer)
        losses.append(step(number, raw(number))["loss"].clone())
    state = {f"{key}.{name}": value for key, of in enumerate(optimizer.state.values()) for name, value in of.items()}
    return torch.stack(losses), {**method.state_dict(), **state}


@pytest.fixture
def without_float64(monkeypatch):
    """As Apple's GPUs are, where recording asks what has it all the same."""
    monkeypatch.setitem(precision.WIDE, "cpu", torch.float32)


@pytest.mark.usefixtures("without_float64")
@pytest.mark.parametrize("name, args", [(name, args) for name in LEARN for args in ({}, *VARIANTS.get(name, []))])
def test_a_replayed_step_is_the_step(name, args, monkeypatch):
    usual, state = trained(build(name, args=args), 9, monkeypatch)
    replayed, again = trained(build(name, args=args), 1, monkeypatch)
    assert torch.equal(usual, replayed) and same(state, again)


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "larc"])
def test_so_it_is_by_any_optimizer(optimizer, monkeypatch):
    train = SimpleNamespace(**{**vars(TRAIN), "optimizer": optimizer})
    (usual, state), (replayed, again) = (trained(build("deepcluster"), warm, monkeypatch, train) for warm in (9, 1))
    assert torch.equal(usual, replayed) and same(state, again)


def moved(method, progress):
    method.seen = method.seen + progress


FAULTS = {
    "a number of the host's": lambda method, progress: method.seen.add_(float(progress)),
    "another tensor in its place": moved,
    "counted by the host": lambda method, progress: method.seen.add_(method.counts.append(1) or len(method.counts)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_graph_would_not_see_is_found(fault, monkeypatch):
    seen = []
    for warm in (9, 1):
        method = build("rotation")
        method.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        method.counts, method.after_step = [], functools.partial(FAULTS[fault], method)
        seen.append(trained(method, warm, monkeypatch)[1]["seen"])
    assert not torch.equal(*seen)


def test_a_batch_of_another_shape_is_made_as_usual(monkeypatch):
    monkeypatch.setattr(capture, "WARM", 0)
    made, method = [], build("rotation")
    step = Step(method, lambda batch: made.append(len(batch["key"])) or method(batch), optim.build(method, TRAIN, True),
                TRAIN, 0, 8, prepare=functools.partial(prepare, method))
    step = OnHost(step, torch.device("cpu"), "tiny")
    for number, part in enumerate((slice(None), slice(None), slice(4))):
        step(number, raw(number, part))
    assert made == [8, 4]  # the second was replayed


def test_what_cannot_be_captured_is_said_in_a_line_and_made_as_usual(monkeypatch, capsys):
    def broken(step):
        for p in step.step.net.parameters():
            p.grad = torch.ones_like(p)  # as a recording leaves them that breaks off behind the backward pass
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be reported")

    monkeypatch.setattr(OnHost, "record", broken)
    usual, state = trained(build("rotation"), 9, monkeypatch)
    replayed, again = trained(build("rotation"), 1, monkeypatch)
    assert torch.equal(usual, replayed) and same(state, again)
    said = "tiny: the step cannot be captured as a CUDA graph, and is made as usual: operation not permitted when"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("device, train, said", [
    ("cpu", {"accumulate": None, "capture": None}, None),
    ("cuda", {"accumulate": None, "capture": "off"}, None),
    ("cuda", {"accumulate": 2, "capture": None}, "train.accumulate"),
    ("cuda", {"accumulate": None, "capture": "auto"}, None),
])
def test_when_it_is_wanted(device, train, said, capsys):
    run = SimpleNamespace(name="tiny", train=SimpleNamespace(**train))
    assert capture.wanted(run, torch.device(device)) == (device == "cuda" and train["capture"] != "off" and not said)
    assert capsys.readouterr().err == (f"tiny: the step is not captured as a CUDA graph: {said}\n" if said else "")
