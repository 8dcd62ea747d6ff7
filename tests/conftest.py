"""The repository as a scratch clone with the experiment `tiny` run in it, for the tests of the workflow."""

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
        return set(json.loads(self.run("dvc", "status", "--json")))

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


@pytest.fixture(autouse=True)
def seeded():
    """A test sees the same random numbers whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """Made once, and left as it is: the tree as it stands, uncommitted edits too, after `dvc repro` of `tiny`."""
    clone = Clone(tmp_path_factory.mktemp("ran"))
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
    clone.first = clone.repro()
    clone.commit()
    return clone


@pytest.fixture
def clone(ran, tmp_path):
    """A copy of it to work in, DVC's cache included."""
    shutil.copytree(ran.folder, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")
