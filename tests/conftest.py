"""The repository as a scratch clone with the experiment `tiny` run in it, for the tests of the workflow."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import settings

settings.register_profile("selfsup", deadline=None)  # a busy machine makes no test wrong
settings.load_profile("selfsup")

ROOT = Path(__file__).parents[1]
GIT = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "test"), ("EMAIL", "test@example.org"))}


class Clone:
    """A working tree of this repository, and commands in it."""

    def __init__(self, folder):
        self.folder = folder
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        self.env = {**os.environ, **GIT, "PATH": path, "PYTHONPATH": "ssl", "SELFSUP_TRACKING": "off"}

    def __truediv__(self, name):
        return self.folder / name

    def run(self, *command, **env):
        """What the command prints; an AssertionError with it if it fails."""
        done = subprocess.run([str(word) for word in command], cwd=self.folder, env={**self.env, **env}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"{command} exits with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def repro(self, *options):
        """Names of the stages that `dvc repro` ran."""
        lines = self.run("dvc", "repro", *options).splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    def stale(self):
        """Names of the stages that `dvc status` finds changed themselves, without those downstream of them."""
        from dvc.repo import Repo  # once, where the command imports it every time

        with contextlib.chdir(self.folder), Repo() as repo:
            return set(repo.status())

    def commit(self):
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "test")

    def switch(self, experiment):
        self.run(sys.executable, "pipelines/experiment.py", experiment)

    def edit(self, change):
        """`change(params)` of params.yaml, and what derives from it."""
        params = yaml.safe_load((self / "params.yaml").read_text())
        change(params)
        (self / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        self.run(sys.executable, "pipelines/experiment.py", "--params")

    def append(self, name, text):
        with open(self / name, "a") as file:
            file.write(text)


# The longest first, so that xdist's workers end together; those that use `ran` not side by side, or one waits for the other.
FIRST = ["test_workflow.py", "test_train.py", "test_docs.py", "test_contract.py", "test_sharing.py", "test_distributed.py"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(autouse=True)
def seeded():
    """A test sees the same random numbers whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """Made once, by the worker that wants it first, and left as it is: work in copies, since others copy it meanwhile."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers of this session
    clone, stages = Clone(shared / "ran"), shared / "ran.json"
    with open(shared / "ran.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stages.exists():
            shutil.rmtree(clone.folder, ignore_errors=True)  # of one that failed
            stages.write_text(json.dumps(sorted(run_tiny(clone))))
    clone.first = set(json.loads(stages.read_text()))
    return clone


def run_tiny(clone):
    """The tree as it stands, uncommitted edits too, after `dvc repro` of `tiny`, whose stages are returned."""
    tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    (clone / ".venv").symlink_to(ROOT / ".venv")  # for make
    clone.run("git", "init", "--quiet")
    clone.switch("tiny")
    clone.commit()
    first = clone.repro()
    clone.commit()
    return first


@pytest.fixture
def clone(ran, tmp_path):
    """A copy of it to work in, DVC's cache included."""
    shutil.copytree(ran.folder, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")
