"""The loop's promises: the same bytes after a kill, the same curve for one and two processes, clear refusals."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

import selfsup
from selfsup import config, data, embed, evals, methods, process
from selfsup.core import files
from selfsup.training.publish import _png
from selfsup.training import code, loop, measure, setup
from selfsup.training.start import digest
from selfsup.core import curves
from selfsup.core.colour import rgb_to_lab
from selfsup import shards
from selfsup.errors import UserError
from selfsup.inputs import operations
from tests import quick
from tests.recorded import OnHost

ROOT = Path(__file__).parent.parent
TRAIN = {
    "images": 320, "batch": 32, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0,
    "precision": "fp32", "threads": 1, "workers": 0, "reader": "auto", "checkpoint_every": 1e-9,
}  # fmt: skip
ARGS = {"moco": {"queue": 50}, "deepcluster": {"clusters": 8}, "clip": {"dim": 16}}


SPEC = {"source": "scenes", "size": 16, "max_bad": 0.0, "train": 100, "val": 40, "test": 40, "seed": 0}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "tiny"
    shards.write("tiny", SPEC, folder, workers=1)
    return folder


def make_run(method, **changes):
    vit = {"name": "vit", "size": 16, "dim": 32, "depth": 2, "heads": 2}
    encoder = vit if method == "mae" else {"name": "convnet", "width": 4}
    args = changes.pop("args", ARGS.get(method, {}))
    encoder = changes.pop("encoder", encoder)
    return config.Run(
        name=f"tiny-{method}", method=method, data="tiny", seeds=[0], encoder=encoder, args=args,
        train=config.Train(**{**TRAIN, **changes}),
    )  # fmt: skip


def having(run, train=None, **more):
    """The run with other values of these fields."""
    return run.model_copy(update={"train": run.train.model_copy(update=train or {}), **more})


def pretrain(run, scenes, folder, tracker=None, seed=0, **more):
    AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
    accelerator = setup.accelerator(run.train, cpu=True)
    out = folder / "out" / str(seed)
    cost = loop.pretrain(run, seed, accelerator, scenes, out, folder / "runs", folder / "cache", tracker, **more)
    return out, cost


def content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def rows_of(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


class Killer:
    """A tracker that ends the training in the middle of step `at`, as a signal would."""

    def __init__(self, at):
        self.at = at

    def log(self, rows):
        if rows and rows[-1]["step"] >= self.at:
            raise KeyboardInterrupt


# A queue and an average; clusters, made anew each epoch; an adversary with the method's; a second column and encoder; masks.
@pytest.mark.parametrize("method", ["moco", "deepcluster", "context_encoder", "clip", "mae"])
def test_a_killed_run_ends_with_the_same_bytes(method, scenes, tmp_path):
    run = make_run(method)
    whole, _ = pretrain(run, scenes, tmp_path / "whole")
    for at in (3, 6, 6):  # within the first epoch and twice later: 100 images are 3.1 steps of 32
        with pytest.raises(KeyboardInterrupt):
            pretrain(run, scenes, tmp_path / "killed", Killer(at))
    assert b"goes on from step 5 of 10 when it is run again" in process._kept
    resumed, cost = pretrain(run, scenes, tmp_path / "killed")
    assert content(resumed) == content(whole)
    assert cost["steps"] == 10 and cost["flops_per_image"] > 0
    again, _ = pretrain(run, scenes, tmp_path / "killed")
    assert content(again) == content(whole)


@pytest.mark.parametrize("method", ["moco", "deepcluster"])
def test_a_captured_run_trains_as_usual_and_is_killed_without_a_trace(method, scenes, tmp_path, monkeypatch):
    usual, _ = pretrain(make_run(method), scenes, tmp_path / "usual")
    monkeypatch.setattr(loop, "wanted", lambda run, device: True)
    monkeypatch.setattr(loop, "Captured", OnHost)
    monkeypatch.setattr(operations, "only", lambda on, x, f, *args: torch.where(on.view(-1, 1, 1, 1), f(x, *args), x))
    whole, _ = pretrain(make_run(method), scenes, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(make_run(method), scenes, tmp_path / "killed", Killer(6))
    resumed, _ = pretrain(make_run(method), scenes, tmp_path / "killed")
    assert content(resumed) == content(whole)
    for row, other in zip(rows_of(usual, "history"), rows_of(whole, "history"), strict=True):
        assert row == pytest.approx(other, rel=1e-3)  # another way to add up an update


@pytest.mark.parametrize("method", ["simclr", "rotation"])  # embedded twice, a mean over images
def test_a_batch_in_parts_trains_like_the_whole_one_and_is_killed_like_it(method, scenes, tmp_path):
    norm = {"name": "convnet", "width": 4, "norm": "group"}
    args = {"simclr": {"layers": 1}, "rotation": {}}[method]  # without BatchNorm
    run = make_run(method, accumulate=4, encoder=norm, args=args)
    whole, cost = pretrain(run, scenes, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(run, scenes, tmp_path / "killed", Killer(6))
    assert content(pretrain(run, scenes, tmp_path / "killed")[0]) == content(whole)
    uncut, cost_uncut = pretrain(having(run, {"accumulate": None}), scenes, tmp_path / "uncut")
    half, _ = pretrain(having(run, {"precision": "bf16"}), scenes, tmp_path / "half")
    assert content(half)["weights.safetensors"] != content(whole)["weights.safetensors"]
    for ours, theirs, bf16 in zip(*(rows_of(folder, "history") for folder in (whole, uncut, half)), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3) and bf16["step"] == ours["step"]
        for name in ours.keys() & {"loss", "val_loss"}:
            assert bf16[name] == pytest.approx(ours[name], rel=0.02)
    assert (cost["flops_per_image"] > cost_uncut["flops_per_image"]) == (method == "simclr")


def test_parts_are_refused_before_training_where_the_loss_is_not_of_parts(scenes, tmp_path):
    with pytest.raises(UserError, match="runs.tiny-moco.train.accumulate: moco cannot be trained by parts of a batch"):
        pretrain(make_run("moco", accumulate=4), scenes, tmp_path)
    pretrain(make_run("random", accumulate=4), scenes, tmp_path)  # nothing is trained
    assert {file.name for file in (tmp_path / "runs").glob("tiny-moco*/*")} <= {"lock"}


def test_batch_norm_of_one_image_is_known_before_training(scenes, tmp_path):
    """As one of several processes may have it: params have no batch below 2."""
    run = having(make_run("jigsaw", args={"permutations": 4, "tile": 4}), {"batch": 1})
    with pytest.raises(UserError, match="runs.tiny-jigsaw.train.batch: 1 images over 1 processes leave BatchNorm one value"):
        pretrain(run, scenes, tmp_path)
    assert not (tmp_path / "out").exists()


def test_history_says_what_happened(scenes, tmp_path):
    folder, _ = pretrain(make_run("rotation"), scenes, tmp_path)
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    steps = [row for row in history if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 11)) and steps[-1]["images"] == 320
    assert {"loss", "accuracy", "lr"} <= set(steps[0])
    assert "val_accuracy" in history[-1]


def test_random_is_its_initialisation_and_load_gives_the_encoder(scenes, tmp_path):
    run = make_run("random")
    folder, cost = pretrain(run, scenes, tmp_path)
    assert cost["steps"] == 0
    initial = setup.build(run, 0, {}).encoder.state_dict()
    net = selfsup.load(folder)
    assert all((initial[k] == v).all() for k, v in net.state_dict().items())
    assert not net.training and net.dim == 32 and net.size == 16 and net.info["method"] == "random"
    other, _ = pretrain(run, scenes, tmp_path / "other", seed=1)
    assert content(other)["weights.safetensors"] != content(folder)["weights.safetensors"]


def test_a_non_finite_loss_stops_with_a_sentence_and_no_output(scenes, tmp_path):
    with pytest.raises(UserError, match=r"loss became .* at step \d+; lower train.lr"):
        pretrain(make_run("rotation", lr=1e30, clip=0.0), scenes, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method, steps, judge_every", [
    ("simclr", 4, None), ("simclr", 1, None), ("vicreg", 3, None), ("dino", 1, None),  # within, after the last step
    ("supervised", 3, None), ("deepcluster", 5, None), ("byol", 3, 32),  # weights, clusters, a judge
])  # fmt: skip
def test_divergence_is_a_sentence_wherever_it_is_met(method, steps, judge_every, scenes, tmp_path):
    judge = (lambda net, step: pytest.fail("asked of weights that are no numbers") if step > 2 else {}) if judge_every else None
    args = {"prototypes": 40, "small": 2} if method == "dino" else ARGS.get(method, {})
    run = make_run(method, args=args, optimizer="sgd", lr=1e6, clip=0.0, images=steps * 32, judge_every=judge_every)
    with pytest.raises(UserError, match=r"became (nan|inf) at step \d+; lower train.lr .* clip gradients") as caught:
        pretrain(run, scenes, tmp_path, judge=judge)
    assert ("raise args.temperature (now" in str(caught.value)) == (method in ("simclr", "dino"))
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_none_at_the_first_step_does_not_blame_the_rate(scenes, tmp_path):
    with pytest.raises(UserError, match=r"nan at the first step.*runs.tiny-simclr.args \(temperature: 1e-42\)") as caught:
        pretrain(make_run("simclr", args={"temperature": 1e-42}), scenes, tmp_path)
    assert "train.lr" not in str(caught.value)


def test_the_spread_is_measured_on_recorded_steps_alone(scenes, tmp_path, monkeypatch):
    """Of 12 steps every third is recorded: its own spread, but the mean loss of three."""
    run = make_run("simclr", images=12 * 32)
    every, _ = pretrain(run, scenes, tmp_path / "every")
    calls = []
    monkeypatch.setattr(measure, "spread", lambda z, spread=measure.spread: calls.append(len(z)) or spread(z))
    monkeypatch.setattr(loop, "LOGGED", 4)
    third, _ = pretrain(run, scenes, tmp_path / "third")
    assert calls[:4] == [64] * 4 and len(calls) == 5  # the last is of validation
    assert content(every)["weights.safetensors"] == content(third)["weights.safetensors"]
    every, third = (rows_of(folder, "history") for folder in (every, third))
    assert [row["step"] for row in third] == [3, 6, 9, 12, 12]
    for row, three in zip(third, zip(*[iter(every[:12])] * 3)):
        assert (row["std"], row["rank"], row["lr"]) == tuple(three[-1][name] for name in ("std", "rank", "lr"))
        for name in ("loss", "accuracy"):
            assert row[name] == pytest.approx(sum(one[name] for one in three) / 3, rel=1e-12)
    assert third[-1] == every[-1]


# ---------------------------------------------------------------------------------------------- judged while training


def test_that_embeddings_have_collapsed_is_said_once_and_while_it_happens(scenes, tmp_path, monkeypatch, capsys):
    pretrain(make_run("simclr"), scenes, tmp_path / "sound")
    assert "collapsed" not in capsys.readouterr().err
    monkeypatch.setattr(curves, "STD", 2.0)  # above what any embeddings reach
    pretrain(make_run("simclr"), scenes, tmp_path / "collapsed")
    said = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    assert len(said) == 1 and said[0].startswith("tiny-simclr seed 0: embeddings have collapsed at step 2 of 10: spread ")


def judge(net, step):
    """What a judge may do: read the encoder, draw numbers, even leave gradients on."""
    assert not net.training and net.mean and net.std and net.size == 16
    torch.rand(3), np.random.rand(3), random.random()
    return {"norm": sum(p.norm() for p in net.parameters()).item(), "step_seen": step}


@pytest.mark.parametrize("method", ["moco", "deepcluster", "supervised"])
def test_judging_changes_nothing_that_is_learned(scenes, tmp_path, method):
    plain, _ = pretrain(make_run(method), scenes, tmp_path / "plain")
    seen, _ = pretrain(having(make_run(method), train={"judge_every": 100}), scenes, tmp_path / "seen", judge=judge)
    plain, told = content(plain), content(seen)
    rows = [json.loads(line) for line in told.pop("judged.jsonl").decode().splitlines()]
    assert plain.pop("encoder.json") != told.pop("encoder.json") and plain == told  # train.judge_every is told
    assert [row["step"] for row in rows] == [4, 7, 10] == [row["step_seen"] for row in rows]  # 128, 224, 320 images
    assert [row["images"] for row in rows] == [128, 224, 320] and len({row["norm"] for row in rows}) == 3


def test_what_was_judged_survives_a_kill(scenes, tmp_path):
    run = having(make_run("rotation"), train={"judge_every": 64})
    whole, _ = pretrain(run, scenes, tmp_path / "whole", judge=judge)
    for at in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            pretrain(run, scenes, tmp_path / "killed", Killer(at), judge=judge)
    resumed, _ = pretrain(run, scenes, tmp_path / "killed", judge=judge)
    assert content(resumed) == content(whole) and len(rows_of(whole, "judged")) == 5


def test_without_a_judge_or_an_interval_nothing_is_judged(scenes, tmp_path):
    folder, _ = pretrain(make_run("rotation"), scenes, tmp_path, judge=judge)
    assert not (folder / "judged.jsonl").exists()


# ---------------------------------------------------------------------------------------------- other weights


@pytest.fixture(scope="module")
def others(scenes, tmp_path_factory):
    """Encoders of the run tiny-rotation, seeds 0 and 2, as the pipeline lays them out."""
    encoders, scratch = tmp_path_factory.mktemp("encoders"), tmp_path_factory.mktemp("scratch")
    for seed in (0, 2):
        out, _ = pretrain(make_run("rotation"), scenes, scratch, seed=seed)
        shutil.copytree(out, encoders / "tiny/tiny-rotation" / str(seed))
    return encoders


def initialised(scenes, others, folder, method="random", seed=0, init=None, **changes):
    run = having(make_run(method, **changes), init=init)
    return pretrain(run, scenes, folder, seed=seed, encoders=others)[0]


@pytest.mark.parametrize("seed, start", [(0, 0), (2, 2), (1, 0)])
def test_init_starts_from_the_same_seed_of_a_run_or_the_lowest(scenes, others, tmp_path, seed, start):
    out = initialised(scenes, others, tmp_path, seed=seed, init="tiny-rotation")
    source = others / "tiny/tiny-rotation" / str(start)
    assert content(out)["weights.safetensors"] == content(source)["weights.safetensors"]
    info = selfsup.load(out).info
    assert info["init"] == "tiny-rotation" and not any(info["init_unfit"].values())
    assert info["init_hash"] == digest(selfsup.load(source).state_dict())


def test_init_trains_on_from_a_folder_and_is_another_training(scenes, others, tmp_path, capsys):
    fresh, _ = pretrain(make_run("simclr"), scenes, tmp_path / "fresh")
    found = [
        content(initialised(scenes, others, tmp_path, "simclr", init=str(others / f"tiny/tiny-rotation/{seed}")))
        for seed in (0, 2)
    ]
    assert len({folder["weights.safetensors"] for folder in (content(fresh), *found)}) == 3
    assert len(list((tmp_path / "runs").iterdir())) == 2  # each its own checkpoint
    assert "init" not in capsys.readouterr().err.replace("initial", "")
    assert not {"init", "from", "labels"} & selfsup.load(fresh).info.keys()


def test_init_tells_what_does_not_fit(scenes, others, tmp_path, capsys):
    wide = {"name": "convnet", "width": 4, "norm": "group"}  # as wide, with other norms: no statistics
    out = initialised(scenes, others, tmp_path, encoder=wide, init="tiny-rotation")
    unfit = selfsup.load(out).info["init_unfit"]
    assert unfit["unexpected"] and all("running" in name or "num_batches" in name for name in unfit["unexpected"])
    assert f"runs.tiny-random.init: unexpected: {', '.join(unfit['unexpected'])}" in capsys.readouterr().err
    wider = {"name": "convnet", "width": 8}
    wider = initialised(scenes, others, tmp_path / "wider", encoder=wider, init="tiny-rotation")
    assert selfsup.load(wider).info["init_unfit"]["other_shape"]
    vit = {"name": "vit", "size": 16, "dim": 32, "depth": 1, "heads": 2}
    with pytest.raises(UserError, match="runs.tiny-random.init: nothing of tiny-rotation fits the encoder vit"):
        initialised(scenes, others, tmp_path, encoder=vit, init="tiny-rotation")
    with pytest.raises(UserError, match="tiny-rotations: no encoder here"):
        initialised(scenes, others, tmp_path, init="tiny-rotations")


TIMM = {"name": "test_resnet"}  # timm's own, for tests: small


def test_init_takes_timms_weights_from_its_cache_and_never_asks_again(scenes, others, tmp_path, monkeypatch):
    import timm
    from huggingface_hub import constants

    for name, value in (("HF_HUB_OFFLINE", True), ("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HOME", str(tmp_path))):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("timm.models._hub.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    with pytest.raises(UserError, match="runs.tiny-random.init: timm has no weights of test_resnet in its cache"):
        initialised(scenes, others, tmp_path, encoder=TIMM, init="timm")
    given = timm.create_model("test_resnet")
    repository = tmp_path / "hub" / ("models--" + given.pretrained_cfg["hf_hub_id"].replace("/", "--"))
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    save_file(given.state_dict(), repository / "snapshots/abc/model.safetensors")
    out = initialised(scenes, others, tmp_path, encoder=TIMM, init="timm")
    shutil.rmtree(repository)
    net = selfsup.load(out)
    assert net.info["parts"]["encoder"] == TIMM and not any(net.info["init_unfit"].values())
    assert all(torch.equal(given.state_dict()[name], value) for name, value in net.net.state_dict().items())
    with pytest.raises(UserError, match="timm has no weights for our own network convnet"):
        initialised(scenes, others, tmp_path, init="timm")
    with pytest.raises(UserError, match="init: timm"):
        pretrain(make_run("random", encoder={**TIMM, "pretrained": True}), scenes, tmp_path)


class Imitation(methods.Method):
    """Learns the features of the teacher."""

    def __init__(self, encoder, teacher):
        super().__init__(encoder)
        self.teacher = teacher

    def forward(self, batch):
        return {"loss": (self.encoder(batch["image"]) - self.teacher(batch["image"])).square().mean()}


def test_from_hands_a_frozen_teacher_to_a_method_that_names_one(scenes, others, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "load", lambda name: Imitation)
    monkeypatch.setattr(loop, "code_hash", lambda run: "c0de")
    with pytest.raises(UserError, match="method imitation needs another run's encoder: .* runs.tiny-imitation.from"):
        pretrain(make_run("imitation"), scenes, tmp_path)
    run = having(make_run("imitation"), from_="tiny-rotation")
    kept = {}
    monkeypatch.setattr(loop, "shown", lambda method, *_: kept.update(method=method) or ({}, {}))
    out, cost = pretrain(run, scenes, tmp_path, encoders=others)
    teacher, source = kept["method"].teacher, selfsup.load(others / "tiny/tiny-rotation/0")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in teacher.net.state_dict().items())
    assert cost["parameters_method"] == cost["parameters"]  # the teacher's learn nothing
    losses = [row["loss"] for row in rows_of(out, "history") if "loss" in row]
    assert losses[-1] < losses[0]
    info = selfsup.load(out).info
    assert (info["from"], info["from_hash"]) == ("tiny-rotation", digest(source.state_dict()))
    assert list(info["parts"]) == ["encoder"]


def test_runs_go_on_from_one_another(scenes, tmp_path):
    """SimCLR v2's three runs, and two generations of Noisy Student: each is given what the folder of the one before holds."""
    encoders, nets = tmp_path / "encoders", {}

    def trained(name, method, from_=None, **args):
        run = having(make_run(method, args=args, images=64), name=f"tiny-{name}", labels=30, from_=from_ and f"tiny-{from_}")
        out, _ = pretrain(run, scenes, tmp_path / name, encoders=encoders)
        shutil.copytree(out, encoders / "tiny" / f"tiny-{name}" / "0")
        nets[name] = [selfsup.load(out, part=part) for part in selfsup.load(out).info["parts"]]
        return selfsup.load(out).info

    assert set(trained("pretrained", "simclr_v2", dim=8)["parts"]) == {"encoder", "projector"}
    fine = trained("fine", "simclr_v2_finetune", "pretrained")
    given = dict(zip(("encoder", "projector"), (net.state_dict() for net in nets["pretrained"])))
    whole = given["encoder"] | {f"projector.{name}": value for name, value in given["projector"].items()}
    assert fine["from_hash"] == digest(whole)  # another projector is another training
    assert fine["parts"]["classifier"] == {"name": "mlp", "d_in": 32, "hidden": 32, "d_out": 10, "layers": 2}
    assert set(trained("small", "simclr_v2_distil", "fine")["parts"]) == {"encoder", "classifier"}
    trained("teacher", "noisy_student")
    trained("student", "noisy_student", "teacher", least=0.0)
    rows = rows_of(tmp_path / "student" / "out" / "0", "history")
    assert rows[0]["kept"] == 1 and rows[-1]["unlabelled"] > 0
    with pytest.raises(UserError, match="holds no classifier: .* \\(it holds encoder, projector\\)"):
        trained("wrong", "noisy_student", "pretrained")


def test_labels_reach_the_data(scenes, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(data, "open", lambda *args, real=data.open, labels=None, seed=None, **options: (
        opened.append((args[1], labels, seed)) or real(*args, **options)))  # fmt: skip
    out, _ = pretrain(having(make_run("supervised"), labels=20), scenes, tmp_path, seed=3)
    assert opened[0] == ("train", 20, 3) and all(labels is None for split, labels, _ in opened if split != "train")
    assert selfsup.load(out).info["labels"] == 20


def test_a_missing_column_is_refused_before_training(tmp_path):
    spec = {"source": "digits", "size": 16, "max_bad": 0.0, "val_share": 0.2, "test_share": 0.2}
    shards.write("digits", spec, tmp_path / "digits", workers=1)
    card = json.loads((tmp_path / "digits/card.json").read_text())
    with pytest.raises(UserError, match="method clip needs the column 'caption'"):
        pretrain(make_run("clip"), tmp_path / "digits", tmp_path)
    assert "caption" not in card["columns"]


def test_bf16_and_streaming_train(scenes, tmp_path):
    plain, _ = pretrain(make_run("rotation"), scenes, tmp_path / "plain")
    half, _ = pretrain(make_run("rotation", precision="bf16"), scenes, tmp_path / "half")
    stream, _ = pretrain(make_run("rotation", reader="streaming"), scenes, tmp_path / "stream")
    weights = [content(folder)["weights.safetensors"] for folder in (plain, half, stream)]
    assert len(set(weights)) == 3
    losses = [json.loads((f / "history.jsonl").read_text().splitlines()[-1])["val_loss"] for f in (plain, half, stream)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[2] == pytest.approx(losses[0], rel=0.2)


def test_fingerprint_covers_params_data_code_and_other_weights():
    card = {"hash": "a"}

    def fingerprint(run=None, seed=0, card=card, code="code", **more):
        return loop.fingerprint(run or make_run("simclr"), seed, card, code, **more)

    base = fingerprint()
    run = make_run("simclr").model_dump(include={"method", "encoder", "args", "train"})
    del run["train"]["checkpoint_every"], run["train"]["workers"]
    run["train"] = {key: value for key, value in run["train"].items() if value is not None}
    plain = json.dumps([run, 0, "a", "code", torch.__version__], sort_keys=True)
    assert base == hashlib.sha256(plain.encode()).hexdigest()[:12], "what a run does not set leaves no trace"
    for same in ({"checkpoint_every": 5.0}, {"judge_every": 100}, {"judge_every": None}):
        assert fingerprint(having(make_run("simclr"), train=same)) == base
    assert fingerprint(having(make_run("simclr"), init=None, from_=None, labels=None), origin={}) == base
    others = [
        fingerprint(make_run("simclr", lr=2e-3)),
        fingerprint(make_run("simclr", args={"temperature": 0.1})),
        fingerprint(make_run("simclr", encoder={"name": "convnet", "width": 8})),
        fingerprint(seed=1),
        fingerprint(card={"hash": "b"}),
        fingerprint(code="other"),
        fingerprint(origin={"init": "a"}),
        fingerprint(origin={"init": "b"}),
        fingerprint(origin={"from": "a"}),
        fingerprint(having(make_run("simclr"), labels=10)),
        fingerprint(having(make_run("simclr"), labels=0.1)),
        fingerprint(make_run("simclr", decay_vectors=True)),
        fingerprint(make_run("simclr", scale_lr=True)),
        fingerprint(make_run("simclr", accumulate=2)),
    ]
    assert len({base, *others}) == 15


# ---------------------------------------------------------------------------------------------- which code it was

NET = {"name": "convnet", "width": 4}


def hash_of(package, monkeypatch):
    monkeypatch.setattr(code, "PACKAGE", package)
    return code.code_hash(SimpleNamespace(method="simclr", encoder=NET))


@pytest.mark.parametrize(
    "file, edit, stale",
    [
        ("methods/simclr.py", "\nTHIS = 1\n", True),
        ("methods/simclr.py", "\n# Said more clearly.\n", False),
        ("methods/moco.py", "\nTHIS = 1\n", False),
        ("methods/base.py", "\nTHIS = 1\n", True),
        ("nets/convnet.py", "\nTHIS = 1\n", True),
        ("nets/split.py", "\nTHIS = 1\n", False),
        ("nets/__init__.py", "\nTHIS = 1\n", True),
        ("core/rng.py", "\nTHIS = 1\n", True),
        ("training/new.py", "THIS = 1\n", True),
        ("evals/knn.py", "\nTHIS = 1\n", False),
        ("report.py", "\nTHIS = 1\n", False),
    ],
)
def test_a_run_is_the_work_of_its_own_code_alone(tmp_path, monkeypatch, file, edit, stale):
    shutil.copytree(code.PACKAGE, tmp_path / "selfsup", ignore=shutil.ignore_patterns("__pycache__"))
    before = hash_of(tmp_path / "selfsup", monkeypatch)
    with open(tmp_path / "selfsup" / file, "a") as opened:
        opened.write(edit)
    assert (hash_of(tmp_path / "selfsup", monkeypatch) != before) is stale


def test_the_networks_within_a_network_are_its_own():
    split = {"name": "split", "half": {"name": "resnet18"}}
    assert code.networks(split) == {"split", "resnet18"}
    hashes = {
        code.code_hash(SimpleNamespace(method="cmc", encoder=encoder))
        for encoder in (split, {"name": "split", "half": NET}, NET, {"name": "resnet26"})  # the last of timm's
    }
    assert len(hashes) == 4


def test_docstrings_comments_and_layout_mean_nothing_and_all_else_does():
    plain = 'def f(x, y="a"):\n    return x + 1\n\n\nclass A:\n    pass\n'
    told = '"""Module."""\n\ndef f(\n    x,\n    y=\'a\',\n):\n    """Says."""\n    return x + 1  # one\n'
    told += '\nclass A:\n    "Is."\n'
    assert code.meaning(told) == code.meaning(plain)
    others = [plain.replace("x + 1", "x + 2"), plain.replace('"a"', '"b"'), plain.replace("pass", 'b = "Is."')]
    assert len({code.meaning(text) for text in (plain, *others)}) == 4


def test_a_comment_makes_no_result_stale(scenes, tmp_path, monkeypatch):
    run = make_run("rotation")
    shutil.copytree(code.PACKAGE, tmp_path / "selfsup", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "selfsup")
    first, cost = pretrain(run, scenes, tmp_path)
    before = content(first)
    with open(tmp_path / "selfsup/methods/rotation.py", "a") as file:
        file.write("# Said more clearly.\n")
    monkeypatch.setattr(loop.Step, "__call__", None)  # it takes no step any more
    again, cost_again = pretrain(run, scenes, tmp_path)
    assert content(again) == before and cost_again == cost


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(scenes, tmp_path):
    """torchrun on two gloo processes against one, the real script, at the same global batch and without BatchNorm."""
    runs = {
        "tiny-moco": {"method": "moco", "args": {"queue": 50}},
        "tiny-context_encoder": {"method": "context_encoder", "args": {"norm": "group"}},
    }
    params = quick.params() | {"experiment": "tiny", "train": TRAIN}
    params["encoder"] = {"name": "convnet", "width": 4, "norm": "group"}
    params["runs"] = {name: {**entry, "data": "tiny", "seeds": [0]} for name, entry in runs.items()}
    for protocol in params["protocols"].values():
        if "runs" in protocol:
            protocol["runs"] = {}
    tiny = {"source": "scenes", "size": 16, "max_bad": 0.0, "train": 100, "val": 40, "test": 40, "seed": 0}
    params["datasets"] = {"tiny": tiny}
    env = {**os.environ, "PYTHONPATH": str(ROOT / "ssl"), "SELFSUP_TRACKING": "off", "CUDA_VISIBLE_DEVICES": ""}
    (tmp_path / "data/shards").mkdir(parents=True)
    (tmp_path / "data/shards/tiny").symlink_to(scenes)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, ROOT / "tests/several.py", *(f"pretrain.py {name}" for name in runs)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    curves = {}
    for name, run in config.load(tmp_path / "params.yaml").runs.items():
        one, _ = pretrain(run, scenes, tmp_path / "one" / name)
        for count, folder in ((1, one), (2, tmp_path / f"data/encoders/tiny/{name}/0")):
            curves[name, count] = [row["loss"] for row in rows_of(folder, "history") if "loss" in row]
        cost = json.loads((tmp_path / f"data/results/tiny/{name}/cost.json").read_text())["seeds"]["0"]
        assert cost["processes"] == 2
    for name in runs:
        assert curves[name, 2] == pytest.approx(curves[name, 1], rel=2e-4), name


@pytest.mark.parametrize("method, args", [("simclr", {"augment": "moco_v1"}), ("moco", {"head": "linear", "augment": "vicreg"})])
def test_args_that_are_the_views_own(method, args):
    """`build` gives them to the method's inputs, also where those depend on its other arguments."""
    run = SimpleNamespace(method=method, encoder={"name": "convnet", "width": 4}, args={"hidden": 8, **args})
    inputs = setup.build(run, 0, {}).inputs
    assert (inputs.augment, inputs.count) == (args["augment"], 2)
    assert methods.load(method).inputs.augment != args["augment"]  # the class's own stay as they are


def test_encoders_of_colours_know_what_images_were_normalised_with():
    """Also those of `random`, or a floor would see other colours than what it is the floor of."""
    card, x = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(card[key])[:, None, None] for key in ("mean", "std"))

    def build(**encoder):
        return setup.build(SimpleNamespace(method="random", encoder=encoder, args={}), 0, card).encoder

    lightness, colour = build(name="split", half={"name": "convnet", "width": 4}).lab((x - mean) / std)
    lab = rgb_to_lab(x)
    torch.testing.assert_close(lightness, lab[:, :1] / 50 - 1, atol=1e-4, rtol=0)
    torch.testing.assert_close(colour, lab[:, 1:] / 50, atol=1e-4, rtol=0)
    net = build(name="pixel_transformer", pixels=8, dim=16)
    shown = net.image(net.quantise((x - mean) / std)) * std + mean
    assert (shown - x).abs().max() <= 0.5 / net.levels + 1e-4  # the palette's nearest colour


def test_labels_that_a_run_may_not_see_change_neither_its_encoder_nor_its_judgement(scenes, tmp_path, monkeypatch):
    """Of a run with 20 labels. The others are made wrong in the tars, after it was settled which are revealed."""
    from selfsup import evals
    from selfsup.data import order
    from selfsup.sources import scenes as source

    whole = data.open(scenes, "train", cache=tmp_path / "cache").numbers("label")
    shown = order.revealed(whole, 20, 0)
    wrong, original = ((whole + 1) % 10).where(~shown, whole), source.samples

    def changed(split, *args, **options):
        for i, sample in enumerate(original(split, *args, **options), options["start"]):
            yield {**sample, "label": int(wrong[i])} if split == "train" else sample

    with monkeypatch.context() as patch:
        patch.setattr(source, "samples", changed)
        shards.write("tiny", SPEC, tmp_path / "other", workers=1)
    monkeypatch.setattr(order, "revealed", lambda labels, budget, seed: shown)
    found = []
    for folder in (scenes, tmp_path / "other"):
        out, _ = pretrain(having(make_run("supervised"), labels=20), folder, tmp_path / folder.name)
        judged, net = evals.Data(folder, labels=20, seed=0, cache=tmp_path / "cache"), selfsup.load(out)
        found.append([(out / "weights.safetensors").read_bytes(), evals.judge("knn", net, judged, k=[3], temperature=[0.1]),
                      evals.judge("linear", net, judged, weight_decay=[0.01])])
    assert found[0] == found[1]
    whole, _ = pretrain(make_run("supervised"), scenes, tmp_path / "whole")
    assert (whole / "weights.safetensors").read_bytes() != found[0][0]


def test_views_of_a_size_of_their_own(tmp_path):
    """From images of 24 pixels to the features of a file: all see views of 16."""
    scenes = tmp_path / "tiny"
    shards.write("tiny", {**SPEC, "size": 24, "train": 64}, scenes, workers=1)
    vit = {"name": "vit", "dim": 32, "depth": 1, "heads": 2}
    run = make_run("simclr", args={"size": 16, "augment": "crop_flip"}, encoder=vit, images=64, judge_every=32)
    watched = []
    out, cost = pretrain(run, scenes, tmp_path, judge=lambda net, step: watched.append(net.size) or {"knn": 1.0})
    assert cost["flops_per_image"] < pretrain(make_run("simclr", encoder=vit, images=64), scenes, tmp_path / "whole")[1][
        "flops_per_image"]
    net = selfsup.load(out)
    assert watched == [16, 16] and net.size == net.config["size"] == net.info["size"] == 16
    assert selfsup.encoder.stored(net) == 24
    val = data.open(scenes, "val", cache=tmp_path / "cache")
    features, _ = evals.embed(net, val)
    assert torch.equal(features, net(net.prepare(val.values["image"])))
    (tmp_path / "pictures").mkdir()
    files.write(tmp_path / "pictures/a.png", _png(val.values["image"][3] / 255))
    (positions, found), = embed.features(net, [tmp_path / "pictures/a.png"])
    torch.testing.assert_close(found[0], features[3])
