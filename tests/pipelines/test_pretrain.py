"""pipelines/pretrain.py as its stage runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from selfsup import artefacts
from tests import quick

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def scripts(folder, *lines):
    command = [sys.executable, ROOT / "tests/several.py", *lines]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "ssl"), "SELFSUP_TRACKING": "off"})
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    params = quick.params()
    params["datasets"] = {"tiny": {"source": "scenes", "size": 16, "train": 80, "val": 40, "test": 40, "seed": 0, "max_bad": 0.0}}
    params["train"] |= {"images": 256, "batch": 32, "threads": 1}
    params["encoder"] = {"name": "convnet", "width": 4}
    params["protocols"] = {name: params["protocols"][name] for name in ("knn", "linear")}
    plain = {"method": "rotation", "data": "tiny", "seeds": [0]}
    params["runs"] = {"quick-plain": plain, "quick-seen": {**plain, "train": {"judge_every": 64}},
                      "quick-more": {**plain, "init": "quick-plain"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    scripts(folder, "shard.py tiny", *(f"pretrain.py {run}" for run in params["runs"]))
    return folder


def encoder(work, run):
    return work / f"data/encoders/quick/{run}/0"


def test_a_run_that_is_looked_at_learns_the_same(work):
    plain, seen = encoder(work, "quick-plain"), encoder(work, "quick-seen")
    assert (plain / "weights.safetensors").read_bytes() == (seen / "weights.safetensors").read_bytes()
    rows = [json.loads(line) for line in (seen / "judged.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [64, 128, 192, 256] and all(0 < row["knn_val_accuracy"] <= 100 for row in rows)
    assert not (plain / "judged.jsonl").exists()


def test_a_run_starts_where_another_ended(work):
    info = json.loads((encoder(work, "quick-more") / "encoder.json").read_text())
    assert info["init"] == "quick-plain" and not any(info["init_unfit"].values())
    assert (encoder(work, "quick-more") / "weights.safetensors").read_bytes() != (
        encoder(work, "quick-plain") / "weights.safetensors").read_bytes()


def test_costs_of_the_same_weights_stay(work):
    path = work / "data/results/quick/quick-plain/cost.json"
    before = json.loads(path.read_text())
    assert before["seeds"]["0"]["weights"] and before["seeds"]["0"]["images"] == 256
    made = artefacts.costs(path)["seeds"]["0"]["made"]
    assert made["date"].endswith(" UTC") and made["versions"]["torch"] == torch.__version__.partition("+")[0]
    before["seeds"]["0"]["seconds"] = 12345.0
    path.write_text(json.dumps(before, indent=1) + "\n")
    scripts(work, "pretrain.py quick-plain")
    assert json.loads(path.read_text()) == before, "the same weights: the times of then"
    before["seeds"]["0"]["weights"] = "0" * 64  # of another training
    path.write_text(json.dumps(before))
    scripts(work, "pretrain.py quick-plain")
    assert json.loads(path.read_text())["seeds"]["0"]["seconds"] != 12345.0
