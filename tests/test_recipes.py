"""The experiments that a GPU is for, cifar10_resnet18 and cifar10_semi: every run of them is started."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from selfsup import config, data, nets, shards
from selfsup.config import compose
from selfsup.training import loop, setup
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
    params, pictures = made
    run = params.runs[f"{NAME}-{run}"]
    method = begun(run, pictures, tmp_path, 4)
    assert method.encoder.dim == (384 if run.encoder["name"] == "vit" else 512)


def begun(run, pictures, folder, batch, teacher=None, labels=None):
    """The method of a run after two steps by its own optimiser, views and arguments, in its own precision; only the
    batch and its labels are less."""
    run = run.model_copy(update={"train": run.train.model_copy(update={"images": 2 * batch, "batch": batch, "threads": 1})})
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if run.train.precision == "bf16" else "no")
    columns = setup.inputs_of(run).columns
    split = data.open(pictures, "train", cache=folder / "cache", columns=columns, labels=labels)
    start = Start(run.model_copy(update={"from_": None}), 0, folder, split.card)
    if teacher:
        start.teacher, start.parts = teacher
    training = loop.Training(run, 0, accelerator, split, start, folder / "runs")
    if run.method == "random":
        assert training.steps == 0
        return training.method
    method = training.method.train()
    before = [p.detach().clone() for p in method.encoder.parameters()]
    step = Step(method, training.model, training.optimizer, run.train, 0, 2, method.after_step)
    for number, batch in enumerate(split.batches(0, batch, 2 * batch, order=method.order)):
        assert step(number, training.prepare(batch))["loss"].isfinite()
    after = [p.detach() for p in method.encoder.parameters()]
    assert all(p.isfinite().all() for p in after) and not all(map(torch.equal, before, after))
    return method


def test_the_budget_is_one_number(tmp_path):
    compose.write(tmp_path / "params.yaml", ROOT / "conf", f"experiment={NAME}", "train.images=1000000")
    assert {run.train.images for run in config.load(tmp_path / "params.yaml").runs.values()} == {10**6}


SEMI, LABELS = "cifar10_semi", (40, 250, 4000)
FEW = {  # and their batch here
    "supervised": 4, "fixmatch": 8, "mixmatch": 4, "uda": 8, "mean_teacher": 8, "simclr_v2-finetuned": 4, "simclr_v2": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def semi(tmp_path_factory):
    """(params of the experiment, shards of a few small pictures, a pretraining that others go on from)."""
    folder = tmp_path_factory.mktemp(SEMI)
    compose.write(folder / "params.yaml", ROOT / "conf", f"experiment={SEMI}")
    shards.write("tiny", {**SCENES, "size": 16}, folder / "shards", workers=1)
    params = config.load(folder / "params.yaml")
    return params, folder / "shards", taught(begun(params.runs[f"{SEMI}-simclr_v2-pretrained"], folder / "shards", folder, 4))


def taught(method):
    """What a run that names this one by `from` starts from."""
    parts = {name: part.eval() for name, part in method.parts().items()}
    net = parts.pop("encoder")
    net.mean, net.std = [0.5] * 3, [0.25] * 3
    return net, parts


def test_each_run_with_few_labels_says_what_it_should_reach(semi):
    params, *_ = semi
    names = [f"{name}-{labels}" for name in FEW for labels in LABELS]
    assert {*names, "supervised-all", "simclr_v2-pretrained"} == {name.removeprefix(f"{SEMI}-") for name in params.runs}
    assert {*params.notes} == {*params.runs}
    config.check(params)
    for name in names:
        run = params.runs[f"{SEMI}-{name}"]
        assert f"{SEMI}-{name}".endswith(f"-{run.labels}") and run.val_labels == "same"
    for run in params.runs.values():  # the default encoder's width is another one
        own = {"name": "resnet18"} if "simclr" in run.name else {"name": "wide_resnet", "depth": 28, "width": 2}
        assert run.encoder == own
    assert params.runs[f"{SEMI}-fixmatch-40"].train.images == 2**20 * 64 * 8


@pytest.mark.parametrize("name", FEW)
def test_each_run_with_few_labels_starts(semi, tmp_path, name):
    """That of 250 labels; those of 40 and of 4,000 differ from it in that, and in how long they are fine-tuned."""
    params, pictures, pretraining = semi
    runs, teacher = [params.runs[f"{SEMI}-{name}-{labels}"] for labels in LABELS], None
    for run in runs:
        one = {**run.model_dump(), "name": "", "labels": 0, "from_": (run.from_ or "").removesuffix(f"-{run.labels}")}
        if name.endswith("finetuned"):
            assert run.train.images == 100 * run.labels and run.labels % run.train.batch == 0
            one["train"] |= {"images": 0, "batch": 0}
        assert one == {**one, **(first := one if run is runs[0] else first)}
    if runs[1].from_:
        assert all(run.from_ in params.runs for run in runs)
        classifier = nets.build("mlp", d_in=512, hidden=512, d_out=10, layers=2)
        teacher = pretraining if name.endswith("finetuned") else (pretraining[0], {"classifier": classifier.eval()})
    begun(runs[1], pictures, tmp_path, FEW[name], teacher, labels=5)
