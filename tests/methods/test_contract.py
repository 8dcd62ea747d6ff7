"""What every file in methods/ must keep to. Run as a script, this file is one of two processes, or a fresh interpreter.

A method's own tests say that it is the paper's; these say that the trainer can rely on it.
"""

import contextlib
import copy
import dataclasses
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from selfsup import config, methods, nets
from selfsup.config import catalogue
from selfsup.core import distributed
from selfsup.inputs.augment import augmentation
from selfsup.training import accumulate, loop, measure, optim, setup

# Only where the default does not fit 32 images of 32 pixels.
VIT = {"name": "vit", "patch": 8, "dim": 32, "depth": 2, "heads": 2}
SPLIT = {"name": "split", "half": {"name": "convnet", "width": 4}}
ENCODERS = {
    "mae": VIT,
    "dino": VIT,
    "moco_v3": VIT,
    "split_brain": SPLIT,
    "cmc": SPLIT,
    "co_training": SPLIT,
    # For one or four numbers a channel, the map of a small patch, GroupNorm magnifies rounding beyond what is asked here.
    "relative_patch": VIT,
    "jigsaw": VIT,
    "pixel_autoregression": {"name": "pixel_transformer", "pixels": 8, "dim": 16, "depth": 2, "heads": 2},
    "next_token": {"name": "token_transformer", "dim": 16, "depth": 1, "heads": 2, "causal": True},
    "masked_token": {"name": "token_transformer", "dim": 16, "depth": 1, "heads": 2},
    "elmo": {"name": "token_lstm", "dim": 8, "depth": 2, "directions": 2},
    "word2vec": {"name": "word_vectors", "dim": 8},
    "point_contrast": {"name": "pointnet", "width": 2, "neighbours": 4},
    "depth_contrast": {"name": "pointnet", "width": 2, "neighbours": 4},
    "net2net": {"name": "convnet", "width": 3, "convs": 2},
    "maml": {"name": "convnet", "width": 4, "norm": "group"},
}
ARGS = {
    "moco": {"queue": 20},
    "deepcluster": {"clusters": 5},
    "simsiam": {"hidden": 64, "dim": 32, "bottleneck": 8},
    "byol": {"hidden": 64, "dim": 32},
    "barlow_twins": {"hidden": 64, "dim": 32},
    "vicreg": {"hidden": 64, "dim": 32},
    "swav": {"hidden": 64, "dim": 32, "prototypes": 12, "small": 2, "queue": 20, "queue_from": 0},
    "dino": {"hidden": 64, "bottleneck": 16, "prototypes": 40, "small": 2},
    "moco_v3": {"hidden": 64, "dim": 32},
    "deepercluster": {"groups": 2, "clusters": 6},
    "jigsaw": {"permutations": 10},
    "deep_infomax": {"hidden": 64, "dim": 32},
    "amdim": {"hidden": 64, "dim": 32},
    "cpc": {"hidden": 16, "dim": 16},
    "pixel_autoregression": {"depth": 1, "heads": 2},
    "align": {"dim": 32},
    "virtex": {"width": 32, "heads": 2},
    "icmlm": {"dim": 32, "depth": 1},
    "audio_visual": {"mels": 16, "width": 4},
    "cross_modal_labels": {"mels": 16, "width": 4},
    "egomotion": {"hidden": 16},
    "maml": {"ways": 2, "shots": 1, "queries": 1},
    "prototypical": {"ways": 2, "shots": 1, "queries": 1},
    "tracking": {"hidden": 32, "dim": 16},
    "common_fate": {"pixels": 64},
    "point_contrast": {"pairs": 6, "radius": 0.1},
    "depth_contrast": {"hidden": 32, "hidden_voxels": 16, "dim": 16, "queue": 20, "grid": 8, "width": 2},
    "fixmatch": {"ratio": 3, "threshold": 0.2},  # some are above, untrained
    "noisy_student": {"least": 0.2},
    "multi_task": {"tasks": ["class", "colour", "size"], "sharing": "soft"},
    "vat": {"ratio": 3, "xi": 1.0},  # a smaller difference magnifies rounding beyond what is asked here
}
PARENTS = {"net2net": {"name": "convnet", "width": 2}}  # smaller than the encoder that grows of it, and with a linear classifier
FROM_ZERO = ("word2vec",)  # its output starts at 0, so that the vectors learn from the second step on
ABSENT = ("dvc", "mlflow", "webdataset", "snakemake")  # what a GPU box may not have
N, BATCH = 32, 8
NAMES = methods.names()


def card():
    """A tiny data set, in memory: its card, and its columns."""
    random = torch.Generator().manual_seed(0)
    columns = {
        "image": torch.randint(256, (N, 3, 32, 32), dtype=torch.uint8, generator=random),
        "label": torch.arange(N) % 4,
        "caption": torch.randint(1, 20, (N, 6), generator=random),
        "cluster": torch.arange(N) % 5,
        "index": torch.arange(N),
    }
    columns["caption"][::2, 4:] = 0  # padding
    columns["text"] = torch.randint(4, 20, (N, 12), generator=random)
    columns["text"][:, 0] = 1
    columns["text"][::2, 8] = 2
    columns["text"][::2, 9:] = 0
    columns["sound"] = torch.randint(-(2**15), 2**15, (N, 1, 800), generator=random).short()
    columns["frames"] = torch.randint(256, (N, 4, 3, 32, 32), dtype=torch.uint8, generator=random)
    columns["pose"] = torch.arange(4)[:, None] * 0.03 * (2 * torch.rand(N, 1, 4, generator=random) - 1)
    columns["flow"] = torch.randint(-20, 20, (N, 3, 2, 32, 32), generator=random).short()
    columns["flow"][:, :, 0, 8:24, 8:24] += 32  # what moves
    columns["points"] = torch.rand(N, 1, 40, 3, generator=random).repeat(1, 2, 1, 1)
    columns["points"][:, 1, :, 0] += 2
    columns["transform"] = torch.eye(3, 4).repeat(N, 1, 1)
    columns["transform"][:, 0, 3] = 2
    columns["attributes"] = torch.stack([torch.arange(N) % 3, torch.arange(N) / N - 0.5], 1)
    described = {"classes": ["a", "b", "c", "d"], "counts": {"train": N, "val": N, "test": N}, "size": 32, "channels": 3}
    described |= {"vocabulary": 20, "caption_length": 12, "token_counts": [0, 32, 16, 0, *range(5, 21)]}
    described["schema"] = {name: {"shape": list(columns[name].shape[1:])} for name in ("frames", "pose", "points")}
    described["schema"]["sound"] = {"kind": "sound", "shape": [1, 800], "dtype": "int16", "rate": 4000}
    described |= {"attributes": {"colour": 3, "size": None}}
    described |= {"concepts": [5, 7, 9, 11, 13], "clusters": 5, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    return described, columns


CARD, COLUMNS = card()


def build(name, seed=0, norm="batch", args=None):
    encoder = ENCODERS.get(name, {"name": "convnet", "width": 4, "norm": norm})
    args = {**ARGS.get(name, {}), **(args or {})}
    run = SimpleNamespace(name=f"tiny-{name}", method=name, encoder=encoder, args=args)
    takes = inspect.signature(methods.load(name).__init__).parameters
    start = taught(PARENTS.get(name, encoder), name) if "teacher" in takes else None
    method = setup.build(run, seed, CARD, start)
    return method if norm == "batch" else without_batch_norm(method)


def taught(encoder, name):
    """What a run starts from that names a teacher by `from`: always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        net = nets.build(**encoder, card=CARD)
        widths = {"d_in": net.dim, "hidden": 16}
        heads = {"classifier": {"d_out": 4, "layers": 2}, "projector": {"d_out": 8, "layers": 3}}
        parts = {part: nets.build("mlp", **widths, **of) for part, of in heads.items()}
        if name in PARENTS:
            parts["classifier"] = nets.build("linear", d_in=net.dim, d_out=4)
    net.mean, net.std = CARD["mean"], CARD["std"]
    return SimpleNamespace(teacher=net, parts=parts, initialise=lambda net: None)


def without_batch_norm(module):
    """BatchNorm's statistics are a process's own: nothing with it can be equal on one and two."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, nn.Identity())
        without_batch_norm(child)
    return module


def raw(step, part=slice(None)):
    """The loader's batch of a step, or a rank's slice of it."""
    positions = torch.arange(step * BATCH, (step + 1) * BATCH)[part]
    batch = {name: column[positions % N] for name, column in COLUMNS.items()}
    return {**batch, "epoch": positions // N}


def prepare(method, batch, seed=0):
    return method.inputs(batch, seed, CARD["mean"], CARD["std"])


def begin_epoch(method, epoch=0, optimizer=None, log=None):
    """before_epoch with what the trainer offers."""

    @torch.no_grad()
    def embed(net=None):
        net = net or method.encoder
        x = COLUMNS[net.takes] if net.takes != "image" else COLUMNS["image"].float() / 127.5 - 1
        net.eval()
        return net(x)

    restart = loop.forget(optimizer) if optimizer else lambda module: None
    method.before_epoch(loop.Epoch(epoch, 0, embed, restart, log or (lambda **row: None), lambda: prepare(method, raw(0))))
    method.train()


def trainable(method):
    return {name: p for name, p in method.named_parameters() if p.requires_grad}


def started(name, **kwargs):
    method = build(name, **kwargs)
    begin_epoch(method)
    return method, prepare(method, raw(0))


def step(method, optimizer, number):
    """What the trainer does in a step; returns the loss."""
    torch.manual_seed(number)
    optimizer.zero_grad()
    loss = method(prepare(method, raw(number)))["loss"]
    if trainable(method):
        loss.backward()
        optimizer.step()
        method.after_step((number + 1) / 10)
    return loss.detach()


def optimizer_of(method):
    settings = SimpleNamespace(optimizer="adamw", lr=1e-3, weight_decay=0.05)
    return optim.build(method, settings) if trainable(method) else None


def snapshot(method):
    return copy.deepcopy(method.state_dict())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------------------------------- one process


@pytest.mark.parametrize("name", NAMES)
def test_what_tuning_tries_is_another_value_that_the_method_takes(name):
    method = methods.load(name)
    if method.sensitive is None:
        return
    argument, value = method.sensitive
    assert value != config.arguments(method)[argument][1]
    if argument == "augment":
        augmentation(value)
    else:
        config.section(method)(**{argument: value})
    method, batch = started(name, args={argument: value})
    assert method(batch)["loss"].isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_finite_and_extras_are_scalars_but_an_embedding(name):
    method, batch = started(name)
    out = method(batch)
    embedding = out.pop("embedding", torch.zeros(BATCH, 1))
    assert all(isinstance(value, torch.Tensor) and value.dim() == 0 and value.isfinite() for value in out.values())
    assert out["loss"].is_floating_point()
    assert embedding.dim() == 2 and len(embedding) >= BATCH and embedding.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_gets_a_gradient_and_nothing_else(name):
    method, batch = started(name)
    loss = method(batch)["loss"]
    if not trainable(method):
        assert name == "random" and not loss.requires_grad
        return
    loss.backward()
    if name in FROM_ZERO:
        torch.optim.SGD(method.param_groups(), lr=1.0).step()
        method(batch)["loss"].backward()
    without = [p_name for p_name, p in trainable(method).items() if p.grad is None or not p.grad.any()]
    assert not without
    assert all(p.grad.isfinite().all() for p in trainable(method).values())
    assert not [p_name for p_name, p in method.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not [b_name for b_name, b in method.named_buffers() if b.requires_grad]
    assert not [column for column, values in batch.items() if values.requires_grad]


@pytest.mark.parametrize("name", NAMES)
def test_param_groups_hold_every_trainable_parameter_once(name):
    method = build(name)
    listed = [id(p) for group in method.param_groups() for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in trainable(method).values())


@pytest.mark.parametrize("name", NAMES)
def test_state_saved_and_loaded_gives_the_same_next_step(name, tmp_path):
    method = build(name)
    optimizer = optimizer_of(method)
    if optimizer is None:
        other = build(name, seed=1)
        other.load_state_dict(method.state_dict())
        assert same(method.state_dict(), other.state_dict())
        return
    begin_epoch(method, 0, optimizer)
    for number in range(3):
        step(method, optimizer, number)
    torch.save([method.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    other = build(name, seed=1)  # other weights, other queue: all of it must come from the file
    saved, saved_optimizer = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(saved)
    other_optimizer = optimizer_of(other)
    other_optimizer.load_state_dict(saved_optimizer)
    for number in (3, 4):  # across the border of an epoch
        if number == 4:
            begin_epoch(method, 1, optimizer)
            begin_epoch(other, 1, other_optimizer)
        assert torch.equal(step(method, optimizer, number), step(other, other_optimizer, number))
        assert same(method.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_has_two_names(name):
    state = build(name).state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)


@pytest.mark.parametrize("name", NAMES)
def test_forward_leaves_its_input_alone(name):
    method, batch = started(name)
    before = copy.deepcopy(batch)
    method(batch)
    assert same(batch, before)


@pytest.mark.parametrize("name", NAMES)
def test_noise_comes_from_the_samples_keys_alone(name):
    """The same loss whatever the global generator has been used for, so views and masks survive a resume."""
    losses = []
    for seed in (1, 2):
        method, batch = started(name)
        torch.manual_seed(seed)
        losses.append(method(batch)["loss"])
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_leaves_the_state_alone(name):
    method, batch = started(name)
    method.eval()
    before = snapshot(method)
    with torch.no_grad():
        assert torch.equal(method(batch)["loss"], method(batch)["loss"])
    method.pictures(batch)
    assert same(method.state_dict(), before)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_pictures(name):
    method, batch = started(name)
    method.eval()
    before = copy.deepcopy(batch)
    pictures = method.pictures(batch)
    assert pictures
    told = catalogue.pictures(type(method))
    assert pictures.keys() <= told.keys(), "its docstring says what each shows"
    assert all(text[0].isupper() and text.endswith(".") for text in told.values())
    for title, picture in pictures.items():
        assert title.isidentifier()
        assert picture.dim() == 2 or picture.dim() == 3 and len(picture) == 3
        assert picture.is_floating_point() and 0 <= picture.min() and picture.max() <= 1 and not picture.requires_grad
        assert picture.std() > 0  # something to see
    assert same(batch, before)


@pytest.mark.parametrize("name", [name for name in NAMES if methods.load(name).texts is not methods.base.Method.texts])
def test_texts_are_tables_of_strings(name):
    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)), id_to_token=str)
    method = build(name).eval()
    tables = method.texts(prepare(method, raw(0)), tokenizer)
    for heads, rows in tables.values():
        assert rows and all(isinstance(cell, str) for row in [heads, *rows] for cell in row)
        assert {len(row) for row in rows} == {len(heads)}


@pytest.mark.parametrize("name", NAMES)
def test_declared_inputs_are_all_it_needs_and_all_needed(name):
    method = build(name)
    columns = method.inputs.columns
    assert set(columns) <= set(COLUMNS) - {"index"} and columns == methods.load(name).inputs.columns
    begin_epoch(method)
    batch = {column: value for column, value in raw(0).items() if column in (*columns, "index", "epoch")}
    method(prepare(method, batch))
    for column in columns:
        method = build(name)
        begin_epoch(method)
        with pytest.raises(KeyError, match=column):
            method(prepare(method, {c: value for c, value in batch.items() if c != column}))


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_without_the_column_is_refused(name):
    run = SimpleNamespace(method=name, data="bare")
    with pytest.raises(loop.UserError, match=f"method {name} needs the column '.*', which data set bare"):
        setup.check_columns(run, methods.load(name).inputs.columns, {"columns": ["meta"]})
    setup.check_columns(run, methods.load(name).inputs.columns, {"columns": list(COLUMNS)})


@pytest.mark.parametrize("name", NAMES)
def test_parts_can_be_rebuilt_from_what_the_encoder_folder_records(name):
    method = build(name)
    parts = method.parts()
    assert parts["encoder"].config == method.encoder.config and parts["encoder"].dim == method.encoder.dim
    assert all(part in list(method.modules()) for part in parts.values())
    for part in parts.values():
        rebuilt = nets.build(**json.loads(json.dumps(part.config)))
        rebuilt.load_state_dict(part.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_says_its_paper(name):
    cls = methods.load(name)
    assert cls.__doc__ and (name in ("random", "supervised") or "https://" in cls.__doc__)


PARTS = [name for name in NAMES if (cls := methods.load(name)).means or hasattr(cls, "project")]


@pytest.mark.parametrize("name", PARTS)
def test_a_batch_in_parts_gives_what_the_whole_one_gives(name):
    """What the method says of its loss, a mean over images or one over embeddings, and state that it changes once."""
    whole, batch = started(name, norm="group")
    cut = copy.deepcopy(whole)
    out = whole(batch)
    if trainable(whole):
        out["loss"].backward()
        said = accumulate.Accumulation(cut, cut, 4).backward(batch, 0)
        close(said, out)
        close({key: p.grad for key, p in trainable(cut).items()}, {key: p.grad for key, p in trainable(whole).items()})
        close(cut.state_dict(), whole.state_dict())
        close(accumulate.Accumulation(cut.eval(), cut, 3).evaluate(batch), whole.eval()(batch))  # of 3, 3 and 2 images


def close(ours, theirs):
    """By name, but for the order of an embedding's rows, which its spread does not see."""
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if name == measure.MEASURED:
            a, b = measure.spread(ours[name]), measure.spread(value)
            close(a, b)
        else:
            tolerance = {"atol": 1e-5, "rtol": 1e-4}
            torch.testing.assert_close(ours[name], value.detach(), **tolerance, msg=lambda text: f"{name}: {text}")


GPU = "cuda:7"  # hardly a real one, for which constants may be kept: those made here have no content


class OnDevice(TorchDispatchMode):
    """Refuses what a GPU's step must not do, where tensors claim to be on one: copies from and to the host, which make
    constants and read values back, choosing by a mask, and decompositions, which wait to see whether they converged.
    What has a value or a shape that depends on data (`item`, `nonzero`, `bincount`) FakeTensorMode refuses itself."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        devices = {value.device.type for value in tree_leaves([args, kwargs, out]) if isinstance(value, torch.Tensor)}
        assert name not in ("_to_copy", "copy_") or len(devices) == 1, f"{name} between {devices}"
        masks = tree_leaves(args[1]) if name in ("index", "index_put", "index_put_") else []
        assert torch.bool not in [mask.dtype for mask in masks if isinstance(mask, torch.Tensor)], f"{name} by a mask"
        assert "linalg" not in name or name == "linalg_vector_norm", name
        return out


def as_if_on_a_gpu(values, mode):
    """Tensors by name, or in their place those of a module, without content on a device that need not exist."""
    if isinstance(values, dict):
        return {name: mode.from_tensor(value).to(GPU) for name, value in values.items()}
    for module in values.modules():
        module._buffers.update(as_if_on_a_gpu({n: b for n, b in module._buffers.items() if b is not None}, mode))
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(mode.from_tensor(value.detach()).to(GPU), value.requires_grad)
        if isinstance(module, nn.RNNBase):  # which keeps them in a list, too
            module._flat_weights = [module._parameters[name] for name in module._flat_weights_names]


def step_on_a_gpu(method, batch=None):
    """Inputs, forward and after_step, as no GPU would do them; of `batch`, the method's inputs, without the inputs.

    In a process's first step constants are made that are kept for the next ones, so the second is looked at."""
    mode, method = FakeTensorMode(allow_non_fake_inputs=True), copy.deepcopy(method)
    # LSTMs would ask cuDNN whether it takes them, and who asks for a gradient on the way, as VAT, a device to exist.
    gradient = mock.patch.object(torch.autograd, "grad", lambda out, *of: tuple(map(torch.zeros_like, of)))
    with mode, gradient, torch.backends.cudnn.flags(enabled=False):
        as_if_on_a_gpu(method, mode)
        given = as_if_on_a_gpu(batch or raw(0), mode)
        mean, std = (torch.tensor(CARD[key], device=GPU) for key in ("mean", "std"))
        for watch in (contextlib.nullcontext(), OnDevice()):
            with watch:
                method(given if batch else method.inputs(given, 0, mean, std))
                method.after_step(0.5)


VARIANTS = {
    "icmlm": [{"image": False}],
    "co_training": [{"views": "caption"}],
    "fixmatch": [{"temperature": 0.4}],
    "entropy_minimization": [{"temperature": 0.5}],
    "colorization": [{"loss": "l2"}],
    "context_encoder": [{"region": "central"}, {"adversarial": 0}],
    "deep_infomax": [{"estimator": "infonce"}],
    "instance_discrimination": [{"negatives": 10}],
    "moco": [{"head": "linear"}],
    "maml": [{"first_order": True}],
    "multi_task": [{"sharing": "hard"}],
    "relative_patch": [{"colour": "drop"}, {"colour": "none"}],
    "split_brain": [{"loss": "l2"}],
    "super_resolution": [{"adversarial": 0}],
    "swav": [{"sinkhorn": False}, {"queue_from": 0.5}],
}


def no_gradient(objective):
    """In place of torch.func.grad, whose backward wants a GPU that is there: torch's own, it is not what is looked at."""
    return lambda weights: {name: value * objective(weights) for name, value in weights.items()}


@pytest.mark.parametrize("name, args", [(name, args) for name in NAMES for args in ({}, *VARIANTS.get(name, []))])
def test_a_step_reads_nothing_back_from_a_gpu_and_sends_no_constants(name, args, monkeypatch):
    monkeypatch.setattr(torch.func, "grad", no_gradient)
    method = build(name, args=args)
    begin_epoch(method)
    step_on_a_gpu(method, prepare(method, raw(0)))


@pytest.mark.parametrize("inputs", sorted({methods.load(name).inputs for name in NAMES}, key=repr), ids=str)
def test_inputs_read_nothing_back_from_a_gpu_and_send_no_constants(inputs):
    method = build("rotation")
    method.forward = lambda batch: None
    method.inputs = dataclasses.replace(inputs, small=2) if hasattr(inputs, "small") else inputs  # each is made alike
    step_on_a_gpu(method)


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x.sum().item(),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0].sum(),
        lambda x: x.masked_fill_(x > 0, 0) * torch.tensor([1.0, 2.0, 3.0], device=x.device)[:, None, None],
        lambda x: x.index_put_((x > 0,), torch.zeros((), device=x.device)),
        lambda x: x[:, [0, 2]],
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x.cpu(),
        lambda x: torch.linalg.eigvalsh(x[:, 0]),
        lambda x: x.long().flatten().unique(),
    ],
)
def test_what_a_gpu_would_wait_for_is_found(fault):
    method = build("rotation")
    step_on_a_gpu(method, prepare(method, raw(0)))
    method.forward = lambda batch: fault(batch["image"])
    with pytest.raises((AssertionError, RuntimeError)):
        step_on_a_gpu(method, prepare(method, raw(0)))


NETWORKS_OWN = {  # pooling of maps, sums of maps between layers, a convolution by a dictionary
    "amdim": {"mean"}, "deep_infomax": {"mean"}, "sparse_autoencoder": {"convolution"},
    "super_resolution": {"relu", "add", "upsample_nearest2d"}, "elmo": {"add"}, "point_contrast": {"amax"},
}  # fmt: skip
SHAPES = set("""_to_copy _unsafe_view _reshape_alias alias as_strided cat chunk clone constant_pad_nd copy_ detach expand flip
gather index neg permute repeat roll select slice split split_with_sizes stack squeeze t transpose unbind unsqueeze view
""".split())  # what does not round


class RoundsOutsideNetworks(TorchDispatchMode):
    """Names of operations with results of 16 bits that no network, a module within the method, has computed."""

    def __init__(self, method):
        super().__init__()
        self.depth, self.found = 0, set()
        for module in method.modules():
            if module is not method:
                module.register_forward_pre_hook(lambda *_: setattr(self, "depth", self.depth + 1))
                module.register_forward_hook(lambda *_: setattr(self, "depth", self.depth - 1))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out, name = function(*args, **(kwargs or {})), function.overloadpacket.__name__
        if not self.depth and name not in SHAPES:
            if any(isinstance(o, torch.Tensor) and o.dtype == torch.bfloat16 for o in tree_leaves(out)):
                self.found.add(name)
        return out


def loss_of(method, batch):
    with torch.no_grad():
        return float(copy.deepcopy(method)(batch)["loss"])


def unlike(method, batch, seed):
    """The loss where every layer's output is off by as much as rounding it, its weights and its input to bfloat16 may
    do, each by half of 2⁻⁷ at most."""
    method, noise = copy.deepcopy(method), torch.Generator().manual_seed(seed)

    def shake(layer, inputs, out):
        if isinstance(out, tuple):  # an LSTM's, with its states
            return tuple(shake(layer, inputs, each) for each in out)
        return out * (1 + 3 * 2**-8 * (2 * torch.rand(out.shape, generator=noise) - 1)) if out.is_floating_point() else out

    for layer in method.modules():
        if not list(layer.children()) and layer is not method:
            layer.register_forward_hook(shake)
    return loss_of(method, batch)


@pytest.mark.parametrize("name, args", [(name, args) for name in NAMES for args in ({}, *VARIANTS.get(name, []))])
def test_in_bf16_networks_round_and_nothing_else(name, args):
    method = build(name, args=args)
    optimizer = optimizer_of(method)
    begin_epoch(method, 0, optimizer)
    batch = prepare(method, raw(0))
    exact, others = loss_of(method, batch), [unlike(method, batch, seed) for seed in range(3)]
    watched = copy.deepcopy(method)
    with RoundsOutsideNetworks(watched) as watch, torch.autocast("cpu", torch.bfloat16):
        out = watched(batch)
    assert watch.found <= NETWORKS_OWN.get(name, set())
    assert all(value.dtype in (torch.float32, torch.float64) for key, value in out.items() if key != "embedding")
    assert abs(float(out["loss"]) - exact) <= 2 * max(abs(other - exact) for other in others) + 1e-5 * abs(exact)
    if trainable(method):
        for number in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = method(prepare(method, raw(number)))["loss"]
            loss.backward()
            assert all(p.grad.isfinite().all() for p in trainable(method).values())
            optimizer.step()
            optimizer.zero_grad()
            method.after_step((number + 1) / 2)
    assert all(value.isfinite().all() and value.dtype != torch.bfloat16 for value in method.state_dict().values())


def test_unknown_method_is_one_sentence():
    with pytest.raises(methods.UserError, match='unknown method \'simclrr\'; did you mean "simclr"'):
        methods.load("simclrr")


# ---------------------------------------------------------------------------------------------- two processes


def two_steps(name, part=slice(None)):
    """Losses and averaged gradients of two steps, so that what the first leaves behind (a queue, an average) counts."""
    method = build(name, norm="group")
    begin_epoch(method)
    if not trainable(method):
        return {"losses": [float(method(prepare(method, raw(0, part)))["loss"].detach())] * 2, "gradients": {}, "scalars": []}
    model = nn.parallel.DistributedDataParallel(method) if distributed.on() else method
    sgd = torch.optim.SGD(method.param_groups(), lr=0.01)  # not Adam: it would blow up rounding where a gradient is 0
    scalars = []
    for number in range(2):
        sgd.zero_grad()
        out = model(prepare(method, raw(number, part)))
        out["loss"].backward()
        sgd.step()
        method.after_step((number + 1) / 2)
        told = {**measure.scalars(out), **measure.spread_of(out)}
        scalars.append({key: float(distributed.mean(value)) for key, value in told.items()})
    gradients = {key: p.grad.clone() for key, p in trainable(method).items()}
    buffers = {key: value.clone() for key, value in method.named_buffers()}
    return {"scalars": scalars, "gradients": gradients, "buffers": buffers}


def work(store, out, rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    results = {}
    for name in NAMES:
        try:
            results[name] = two_steps(name, half)
        except Exception as error:  # to be told of by that method's test
            results[name] = repr(error)
    torch.save(results, f"{out}/{rank}.pt")
    dist.destroy_process_group()


def environment():
    return dict(os.environ, PYTHONPATH=str(Path(methods.__file__).parents[2]), OMP_NUM_THREADS="1")


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """All methods on two gloo processes, started once."""
    folder = tmp_path_factory.mktemp("pair")
    command = [sys.executable, __file__, "two", f"{folder}/store", str(folder)]
    both = [subprocess.Popen([*command, str(rank)], env=environment()) for rank in range(2)]
    limit = time.monotonic() + 300
    try:
        while None in (codes := [p.poll() for p in both]) and not any(codes) and time.monotonic() < limit:
            time.sleep(0.1)  # when one dies the other would wait for it
        assert codes == [0, 0]
    finally:
        for p in both:
            p.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(name, pair):
    alone, ranks = two_steps(name), [rank[name] for rank in pair]
    for two in ranks:
        assert not isinstance(two, str), two
        for a, b in zip(two["scalars"], alone["scalars"], strict=True):
            assert a == pytest.approx(b, abs=1e-5, rel=1e-5)
        assert two["gradients"].keys() == alone["gradients"].keys()
        for key, gradient in alone["gradients"].items():
            torch.testing.assert_close(two["gradients"][key], gradient, atol=1e-5, rtol=1e-5)
        for key, value in alone.get("buffers", {}).items():
            torch.testing.assert_close(two["buffers"][key], value, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------------------------- a fresh interpreter


def fresh():
    """Every method by name where the packages in ABSENT cannot be imported; prints what happened as JSON."""
    for module in ABSENT:
        sys.modules[module] = None
    told = {}
    for name in NAMES:
        try:
            method, batch = started(name)
            told[name] = float(method(batch)["loss"].detach())
        except Exception as error:
            told[name] = repr(error)
    print(json.dumps(told))


@pytest.fixture(scope="session")
def elsewhere():
    done = subprocess.run([sys.executable, __file__, "fresh"], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_runs_by_name_from_a_fresh_import_without_the_pipeline_packages(name, elsewhere):
    method, batch = started(name)
    assert elsewhere[name] == pytest.approx(float(method(batch)["loss"].detach()), rel=1e-4)


if __name__ == "__main__":
    if sys.argv[1] == "two":
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        fresh()
