"""The experiment cifar10_resnet18, which a GPU is for: every run of it is started, and its budget is one number."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from selfsup import config, data, methods, shards
from selfsup.config import compose
from selfsup.training import loop
from selfsup.training.start import Start
from selfsup.training.step import Step

ROOT, NAME = Path(__file__).parents[1], "cifar10_resnet18"
SCENES = {"source": "scenes", "size": 32, "train": 8, "val": 2, "test": 2, "seed": 0, "max_bad": 0.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(params of the experiment, shards of a few pictures as large as CIFAR's)."""
    folder = tmp_path_factory.mktemp(NAME)
    compose.write(folder / "params.yaml", ROOT / "conf", f"experiment={NAME}")
    shards.write(NAME, SCENES, folder / "shards", workers=1)
    return config.load(folder / "params.yaml"), folder / "shards"


RUNS = ["random", "random-vit", "supervised", "supervised-vit", "simclr", "simclr-lightly", "moco", "moco_v3", "byol",
        "simsiam", "barlow_twins", "vicreg", "swav", "dino", "mae"]  # fmt: skip


def test_each_run_says_what_it_should_reach(made):
    params, _ = made
    assert list(params.runs) == [f"{NAME}-{run}" for run in RUNS] == list(params.notes)


@pytest.mark.parametrize("run", RUNS)
def test_each_run_starts(made, tmp_path, run):
    """Two steps by its own optimiser, views and arguments, in its own precision; only the batch is less."""
    params, pictures = made
    run = params.runs[f"{NAME}-{run}"]
    run = run.model_copy(update={"train": run.train.model_copy(update={"images": 8, "batch": 4, "threads": 1})})
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if run.train.precision == "bf16" else "no")
    columns = methods.load(run.method).inputs.columns
    split = data.open(pictures, "train", cache=tmp_path / "cache", columns=columns)
    training = loop.Training(run, 0, accelerator, split, Start(run, 0, tmp_path, split.card), tmp_path / "runs")
    assert training.method.encoder.dim == (384 if run.encoder["name"] == "vit" else 512)
    if run.method == "random":
        assert training.steps == 0
        return
    method = training.method.train()
    before = [p.detach().clone() for p in method.encoder.parameters()]
    step = Step(method, training.model, training.optimizer, run.train, 0, 2, method.after_step)
    for number, batch in enumerate(split.batches(0, 4, 8)):
        assert step(number, training.prepare(batch))["loss"].isfinite()
    after = [p.detach() for p in method.encoder.parameters()]
    assert all(p.isfinite().all() for p in after) and not all(map(torch.equal, before, after))


def test_the_budget_is_one_number(tmp_path):
    compose.write(tmp_path / "params.yaml", ROOT / "conf", f"experiment={NAME}", "train.images=1000000")
    assert {run.train.images for run in config.load(tmp_path / "params.yaml").runs.values()} == {10**6}
