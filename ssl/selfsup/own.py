"""An experiment on a folder of one's own, for `selfsup train`: its file in conf/experiment, and a run of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from . import config, methods, nets
from .errors import UserError, nearest, nearest_path

CONF = Path("conf/experiment")
SHARE = 0.1  # of a folder's images, for val, and where it is judged for test: unless its folders say which those are
READ = {"image", "label"}  # what a folder of images has


def write(folder, method, encoder, images, size, judge=None):
    """Writes the experiment, unless its file is there already with the same content -> its name.

    folder: of images, for training; judge: of images in class folders, which is judged on; None: `folder`, if it has
    classes. The rest as in a run; encoder and images None: what conf/config.yaml has. Raises UserError for what is no
    folder, method or encoder, for a method that wants more than images, and where another experiment has the name."""
    if not CONF.is_dir() or not Path("dvc.yaml").exists():
        raise UserError("run this in the top folder of a checkout, where conf and dvc.yaml are: the experiment is written there")
    for path in filter(None, (folder, judge)):
        if not path.is_dir():
            raise UserError(f"no such folder: {path}{nearest_path(path)}")
    if method not in methods.names():
        raise UserError(f'there is no method "{method}"{nearest(method, methods.names())}')
    wants = set(methods.load(method).inputs.columns) - READ
    if wants:
        raise UserError(f"method {method} also reads {', '.join(sorted(wants))}, which a folder of images does not have: "
                        "docs/data.md says what has, and conf/experiment how it is used")
    if encoder and encoder not in nets.names():
        from .nets import timm

        timm.maker(encoder, nets.names())
    name = re.sub(r"\W+", "_", folder.resolve().name.lower()).strip("_") or "own"
    path, text = CONF / f"{name}.yaml", content(name, folder, method, encoder, images, size, judge)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path} is there, with another content: run it by `make experiment E={name}` and `make repro`, "
                        "after an edit or as it is; or remove it")
    path.write_text(text, encoding="utf-8")
    return name


def content(name, folder, method, encoder, images, size, judge):
    """Text of the experiment's file: the method and its floor, an untrained encoder, on one seed."""
    def data(root):
        return {"source": "folder", "root": place(root), "size": size, "val_share": SHARE, "max_bad": 0.01}

    net = {"encoder": {"name": encoder}} if encoder else {}
    runs = {f"{name}-{each}": {"method": each, "data": name, "seeds": [0], **net} for each in dict.fromkeys(("random", method))}
    raw = {"datasets": {name: data(folder)}, "train": {"images": images} if images else {},
           "protocols": {}, "runs": runs}
    if judge:
        raw["datasets"][f"{name}_judge"] = data(judge)
        raw["protocols"] = {key: {"runs": dict.fromkeys(runs, f"{name}_judge")} for key in ("knn", "linear")}
    lines = ["# @package _global_",
             f"# Written by `selfsup train`, to be edited, repeated and shared: `make experiment E={name} && make repro` runs it.",
             f"experiment: {name}"]
    for key, value in raw.items():
        if value:
            nested = key in ("datasets", "protocols", "runs")
            lines += ["", f"{key}:" if nested else f"{key}: {flow(value)}"]
            lines += [f"  {inner}: {flow(entry)}" for inner, entry in value.items()] if nested else []
    return "\n".join(lines) + "\n"


def flow(value):
    """As the files of conf/experiment have it, in one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()


def place(path):
    """As it stands in the file: from the checkout's top where it lies in there, else in full."""
    path, top = path.resolve(), Path.cwd().resolve()
    return (path.relative_to(top) if path.is_relative_to(top) else path).as_posix()


def run(name):
    """Runs what is out of date of the experiment `name`, whose file is there, as `make experiment` and `make repro` do.
    Returns {run: folder of its encoders} and the report's file. Raises UserError where a stage failed."""
    for words in (["pipelines/experiment.py", name], ["-m", "dvc", "repro"], ["pipelines/experiment.py", "--save"]):
        done = subprocess.run([sys.executable, *words], env={**os.environ, "PYTHONPATH": "ssl"})
        if done.returncode:
            raise UserError(f"that stage failed: `make repro` goes on from there, with {CONF / name}.yaml edited or not")
    runs = config.load("params.yaml").runs
    return {run: config.encoders(run) for run in runs}, Path("data/report", name, "report.html")
