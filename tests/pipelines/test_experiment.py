"""Choosing an experiment: params.yaml, what Hydra composes by default, and each experiment's own lock."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selfsup.config import compose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path):
    """What choosing needs of the repository."""
    for name in ("conf", "pipelines", "ssl"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return tmp_path


def experiment(tree, *words, code=0):
    done = subprocess.run([sys.executable, "pipelines/experiment.py", *words], cwd=tree, text=True, capture_output=True)
    assert done.returncode == code, done.stderr
    return done.stderr


def lock(tree, *stages):
    text = "".join(f"  {stage}:\n    cmd: {stage}\n    outs:\n    - path: data/x\n" for stage in stages)
    (tree / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{text}")


def locked(tree, path="dvc.lock"):
    return set(yaml.safe_load((tree / path).read_text())["stages"]) if (tree / path).exists() else set()


def test_what_was_chosen_stays_chosen(tree):
    experiment(tree, "tiny")
    assert yaml.safe_load((tree / "params.yaml").read_text())["experiment"] == "tiny"
    compose.write(tree / "again.yaml", tree / "conf")  # as `dvc exp run` does, without being told which
    assert (tree / "again.yaml").read_text() == (tree / "params.yaml").read_text()


def test_each_experiment_has_its_lock(tree):
    experiment(tree, "tiny")
    lock(tree, "shard@tiny", "pretrain@tiny-simclr", "report@tiny")
    before = (tree / "dvc.lock").read_text()
    experiment(tree, "quick")
    assert locked(tree) == set() and locked(tree, "data/results/tiny/dvc.lock") == locked(tree, "data/results/tiny/dvc.lock")
    lock(tree, "shard@scenes", "pretrain@quick-moco")
    experiment(tree, "tiny")
    assert (tree / "dvc.lock").read_text() == before, "as DVC wrote it"
    assert locked(tree, "data/results/quick/dvc.lock") == {"shard@scenes", "pretrain@quick-moco"}


def test_two_experiments_in_one_lock_are_parted(tree):
    """`dvc exp run -S experiment=…` adds another experiment's stages to the lock."""
    experiment(tree, "tiny")
    lock(tree, "fetch@CIFAR10", "shard@tiny", "pretrain@tiny-simclr", "pretrain@quick-moco", "knn@quick-moco")
    experiment(tree, "--save")
    assert locked(tree, "data/results/tiny/dvc.lock") == {"fetch@CIFAR10", "shard@tiny", "pretrain@tiny-simclr"}
    assert locked(tree, "data/results/quick/dvc.lock") >= {"pretrain@quick-moco", "knn@quick-moco"}
    experiment(tree, "quick")
    assert locked(tree) == {"fetch@CIFAR10", "pretrain@quick-moco", "knn@quick-moco"}
    experiment(tree, "tiny")
    assert locked(tree) == {"fetch@CIFAR10", "shard@tiny", "pretrain@tiny-simclr"}


def test_an_edit_by_hand_is_taken_in(tree):
    experiment(tree, "tiny")
    params = yaml.safe_load((tree / "params.yaml").read_text())
    params["train"]["lr"] = 0.5
    (tree / "params.yaml").write_text(yaml.safe_dump(params))
    experiment(tree, "--params")
    plan = yaml.safe_load((tree / "params.yaml").read_text())["plan"]
    assert {item["run"]["train"]["lr"] for item in plan["pretrain"].values()} == {0.5}


def test_mistakes_leave_what_was_there(tree):
    experiment(tree, "tiny")
    before = (tree / "params.yaml").read_text()
    assert experiment(tree, "tinny", code=1).startswith('error: there is no experiment "tinny"; did you mean "tiny"?')
    text = (tree / "conf/experiment/quick.yaml").read_text()
    (tree / "conf/experiment/quick.yaml").write_text(text.replace("method: moco", "method: mocco").replace("seeds:", "seed:", 1))
    said = experiment(tree, "quick", code=1)
    assert said.startswith("error: conf: ") and 'no method "mocco"; did you mean "moco"?' in said and 'unknown key "seed"' in said
    assert (tree / "params.yaml").read_text() == before
