"""Installing: what pyproject.toml asks for, what requirements.txt pins, and which Python the Makefile takes."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from selfsup import encoder, nets
from tests.test_nets import INFO

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_a_checkout_has_what_the_library_and_the_pipeline_ask_for():
    text = (ROOT / "constraints.txt").read_text() + (ROOT / "requirements.txt").read_text()
    pins = map(Requirement, re.findall(r"^\w[^#\n]*", text, re.MULTILINE))
    pinned = {pin.name.lower(): str(pin.specifier).removeprefix("==") for pin in pins}
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["pipeline"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name.lower()]), line


@pytest.mark.parametrize("there, taken", [(["3.12", "3.13"], "3.12"), (["3.11", "3.13"], "3.11"), (["3.10"], None)])
def test_make_takes_the_first_python_that_there_is(there, taken, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "sed", "id", "test"):
        (tools / name).symlink_to(shutil.which(name))
    for version in there:
        (tools / f"python{version}").write_text("#!/bin/sh\n")
        (tools / f"python{version}").chmod(0o755)
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(["make", ".venv/installed"], cwd=tmp_path, env={"PATH": str(tools), "HOME": "/"},
                          capture_output=True, text=True)
    assert done.returncode != 0  # these make no environment
    if taken:
        assert f"bin/python{taken} -m venv .venv\n" in done.stdout
    else:
        assert done.stderr.startswith("error: there is no python3.11, python3.12 or python3.13 here")


@pytest.mark.slow
def test_another_project_loads_an_encoder(tmp_path):
    """By what `pip install` puts there; what it depends on is here."""
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "ssl", tmp_path / "ssl", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    there = tmp_path / "there"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", there, tmp_path]
    subprocess.run(pip, check=True)
    encoder.save(tmp_path / "encoder", {"encoder": nets.build("convnet", width=4)}, INFO)
    code = (f"import selfsup, torch; net = selfsup.load({str(tmp_path / 'encoder')!r}); print(selfsup.__file__)\n"
            "assert net(torch.zeros(2, 3, 16, 16)).shape == (2, net.dim)")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(there)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(str(there)), done.stderr
