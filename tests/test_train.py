"""The loop's promises: the same bytes after a kill, the same curve for one and two processes, clear refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import selfsup
from selfsup import config, methods
from selfsup.training import loop
from selfsup.core.colour import rgb_to_lab
from selfsup import shards
from selfsup.errors import UserError

ROOT = Path(__file__).parent.parent
TRAIN = {
    "images": 320, "batch": 32, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0,
    "precision": "fp32", "threads": 1, "workers": 0, "reader": "auto", "checkpoint_every": 1e-9,
}  # fmt: skip
METHODS = {
    "simclr": {}, "moco": {"queue": 50}, "deepcluster": {"clusters": 8}, "context_encoder": {}, "clip": {"dim": 16},
    "mae": {}, "supervised": {}, "rotation": {}, "denoising_autoencoder": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "tiny"
    spec = {"source": "scenes", "size": 16, "max_bad": 0.0, "train": 100, "val": 40, "test": 40, "seed": 0}
    shards.write("tiny", spec, folder, workers=1)
    return folder


def make_run(method, **changes):
    vit = {"name": "vit", "size": 16, "dim": 32, "depth": 2, "heads": 2}
    encoder = vit if method == "mae" else {"name": "convnet", "width": 4}
    args = changes.pop("args", METHODS.get(method, {}))
    encoder = changes.pop("encoder", encoder)
    return config.Run(
        name=f"tiny-{method}", method=method, data="tiny", seeds=[0], encoder=encoder, args=args,
        train=config.Train(**{**TRAIN, **changes}),
    )  # fmt: skip


def pretrain(run, scenes, folder, tracker=None, seed=0):
    AcceleratorState._reset_state(reset_partial_state=True)  # one process, several precisions
    accelerator = Accelerator(mixed_precision="bf16" if run.train.precision == "bf16" else "no", cpu=True)
    out = folder / "out" / str(seed)
    cost = loop.pretrain(run, seed, accelerator, scenes, out, folder / "runs", folder / "cache", tracker)
    return out, cost


def content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


class Killer:
    """A tracker that ends the training in the middle of step `at`, as a signal would."""

    def __init__(self, at):
        self.at = at

    def log(self, rows):
        if rows and rows[-1]["step"] >= self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_with_the_same_bytes(method, scenes, tmp_path):
    run = make_run(method)
    whole, _ = pretrain(run, scenes, tmp_path / "whole")
    for at in (3, 6, 6):  # within the first epoch and twice later: 100 images are 3.1 steps of 32
        with pytest.raises(KeyboardInterrupt):
            pretrain(run, scenes, tmp_path / "killed", Killer(at))
    resumed, cost = pretrain(run, scenes, tmp_path / "killed")
    assert content(resumed) == content(whole)
    assert cost["steps"] == 10 and cost["flops_per_image"] > 0
    again, _ = pretrain(run, scenes, tmp_path / "killed")
    assert content(again) == content(whole)


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
    initial = loop.build(run, 0, {}).encoder.state_dict()
    net = selfsup.load(folder)
    assert all((initial[k] == v).all() for k, v in net.state_dict().items())
    assert not net.training and net.dim == 32 and net.size == 16 and net.info["method"] == "random"
    other, _ = pretrain(run, scenes, tmp_path / "other", seed=1)
    assert content(other)["weights.safetensors"] != content(folder)["weights.safetensors"]


def test_a_non_finite_loss_stops_with_a_sentence_and_no_output(scenes, tmp_path):
    with pytest.raises(UserError, match=r"loss became .* at step \d+; lower train.lr"):
        pretrain(make_run("rotation", lr=1e30, clip=0.0), scenes, tmp_path)
    assert not (tmp_path / "out").exists()


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


def test_fingerprint_covers_params_data_and_code():
    card = {"hash": "a"}
    base = loop.fingerprint(make_run("simclr"), 0, card, "code")
    same = loop.fingerprint(make_run("simclr", checkpoint_every=5.0), 0, card, "code")
    assert same == base
    others = [
        loop.fingerprint(make_run("simclr", lr=2e-3), 0, card, "code"),
        loop.fingerprint(make_run("simclr", args={"temperature": 0.1}), 0, card, "code"),
        loop.fingerprint(make_run("simclr", encoder={"name": "convnet", "width": 8}), 0, card, "code"),
        loop.fingerprint(make_run("simclr"), 1, card, "code"),
        loop.fingerprint(make_run("simclr"), 0, {"hash": "b"}, "code"),
        loop.fingerprint(make_run("simclr"), 0, card, "other"),
    ]
    assert len({base, *others}) == 7


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(scenes, tmp_path):
    """torchrun on two gloo processes against one, the real script, at the same global batch and without BatchNorm."""
    runs = {
        "tiny-rotation": {"method": "rotation"},
        "tiny-moco": {"method": "moco", "args": {"queue": 50}},
        "tiny-context_encoder": {"method": "context_encoder", "args": {"norm": "group"}},
        "tiny-clip": {"method": "clip", "args": {"dim": 16}},
    }
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"experiment": "tiny", "train": TRAIN}
    params["encoder"] = {"name": "convnet", "width": 4, "norm": "group"}
    params["runs"] = {name: {**entry, "data": "tiny", "seeds": [0]} for name, entry in runs.items()}
    for protocol in params["protocols"].values():
        if "runs" in protocol:
            protocol["runs"] = {}
    tiny = {"source": "scenes", "root": ".", "size": 16, "max_bad": 0.0, "train": 100, "val": 40, "test": 40, "seed": 0}
    params["datasets"] = {"tiny": tiny}
    env = {**os.environ, "PYTHONPATH": str(ROOT / "ssl"), "MLFLOW_TRACKING_URI": "", "CUDA_VISIBLE_DEVICES": ""}
    curves = {}
    for count in (1, 2):
        folder = tmp_path / str(count)
        (folder / "data/shards").mkdir(parents=True)
        (folder / "data/shards/tiny").symlink_to(scenes)
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        for name in runs:
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
            command = [*launch, str(ROOT / "pipelines/pretrain.py"), name]
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            rows = (folder / f"data/encoders/tiny/{name}/0/history.jsonl").read_text().splitlines()
            curves[name, count] = [json.loads(row)["loss"] for row in rows if '"loss"' in row]
            cost = json.loads((folder / f"data/results/tiny/{name}/cost.json").read_text())["seeds"]["0"]
            assert cost["processes"] == count
    for name in runs:
        assert curves[name, 2] == pytest.approx(curves[name, 1], rel=2e-4), name


@pytest.mark.parametrize("method, args", [("simclr", {"augment": "moco_v1"}), ("moco", {"head": "linear", "augment": "vicreg"})])
def test_args_that_are_the_views_own(method, args):
    """`build` gives them to the method's inputs, also where those depend on its other arguments."""
    run = SimpleNamespace(method=method, encoder={"name": "convnet", "width": 4}, args={"hidden": 8, **args})
    inputs = loop.build(run, 0, {}).inputs
    assert (inputs.augment, inputs.count) == (args["augment"], 2)
    assert methods.load(method).inputs.augment != args["augment"]  # the class's own stay as they are


def test_encoders_of_colours_know_what_images_were_normalised_with():
    """Also those of `random`, or a floor would see other colours than what it is the floor of."""
    card, x = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(card[key])[:, None, None] for key in ("mean", "std"))

    def build(**encoder):
        return loop.build(SimpleNamespace(method="random", encoder=encoder, args={}), 0, card).encoder

    lightness, colour = build(name="split", half={"name": "convnet", "width": 4}).lab((x - mean) / std)
    lab = rgb_to_lab(x)
    torch.testing.assert_close(lightness, lab[:, :1] / 50 - 1, atol=1e-4, rtol=0)
    torch.testing.assert_close(colour, lab[:, 1:] / 50, atol=1e-4, rtol=0)
    net = build(name="pixel_transformer", pixels=8, dim=16)
    shown = net.image(net.quantise((x - mean) / std)) * std + mean
    assert (shown - x).abs().max() <= 0.5 / net.levels + 1e-4  # the palette's nearest colour
