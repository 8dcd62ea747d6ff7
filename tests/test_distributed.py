"""The gather on two real processes (as a script this file is one of them), and a training of two that is killed."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml

from selfsup.core import distributed


def loss(mine, everyone, weight):
    """A share of a loss that couples all rows with all rows, and is not symmetric."""
    return ((mine * weight) @ everyone.T).sin().sum()


def work(rank, store, out):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4), torch.randn(4, requires_grad=True)
    mine = x[3 * rank : 3 * rank + 3].clone().requires_grad_()
    everyone = distributed.gather(mine)
    loss(mine, everyone, weight).backward()
    rows = distributed.gather_rows(mine)
    result = {
        "gathered": everyone.detach(),
        "gradient": mine.grad,
        "weight": weight.grad,
        "rows": rows,
        "labels": distributed.gather_rows(torch.arange(2) + 10 * rank),
        "mean": distributed.mean(torch.tensor(float(rank), requires_grad=True)),
        "total": distributed.total(torch.ones(2) * (rank + 1)),
        "flags": torch.tensor([rows.requires_grad, everyone.requires_grad, distributed.rank(), distributed.world()]),
    }
    torch.save(result, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    env = dict(os.environ, PYTHONPATH=str(Path(distributed.__file__).parents[1]), OMP_NUM_THREADS="1")
    command = [sys.executable, __file__, f"{folder}/store", str(folder)]
    both = [subprocess.Popen([*command, str(rank)], env=env) for rank in range(2)]
    try:
        assert [p.wait(120) for p in both] == [0, 0]
    finally:
        for p in both:
            p.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_gather_on_two_processes(two):
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4).requires_grad_(), torch.randn(4, requires_grad=True)
    loss(x, x, weight).backward()
    for result in two:
        assert torch.equal(result["gathered"], x.detach()) and torch.equal(result["rows"], x.detach())
        assert result["labels"].tolist() == [0, 1, 10, 11]
        assert result["mean"] == 0.5 and result["total"].tolist() == [3, 3]
    # The gradient of the sum of both ranks' losses, each with respect to its own rows and through the other's.
    torch.testing.assert_close(torch.cat([result["gradient"] for result in two]), x.grad)
    torch.testing.assert_close(two[0]["weight"] + two[1]["weight"], weight.grad)
    assert two[1]["flags"].tolist() == [0, 1, 1, 2]


def test_one_process_is_the_identity():
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(x) is x
    assert not distributed.gather_rows(x).requires_grad
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert torch.equal(distributed.mean(x), x) and not distributed.mean(x).requires_grad


@pytest.mark.slow
def test_two_processes_killed_and_started_again_end_with_the_same_bytes(tmp_path):
    """README's line, on CPUs; and with a val that is too small for two processes, which is said before training."""
    from selfsup import shards
    from tests.test_bad_inputs import PARAMS, ROOT, SCENES, TRAIN

    train = {**TRAIN, "images": 32 * 50, "checkpoint_every": 1e-9}
    sources = {"tiny": {**SCENES, "val": 1}}
    runs = {"tiny-rotation": {"method": "rotation", "data": "tiny", "seeds": [0]}}
    shards.write("tiny", sources["tiny"], tmp_path / "shards/tiny", workers=1)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "ssl"), "SELFSUP_TRACKING": "off", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        (folder / "data").mkdir(parents=True)
        (folder / "data/shards").symlink_to(tmp_path / "shards")
        params = {**PARAMS, "train": train, "datasets": sources, "runs": runs}
        (folder / "params.yaml").write_text(yaml.safe_dump(params))

    def start(*words):
        words = [*command, *map(str, words)]
        return subprocess.Popen(words, cwd=killed, env=env, stderr=subprocess.PIPE, text=True)

    def made(folder):
        return {file.name: file.read_bytes() for file in (folder / "data/encoders/tiny/tiny-rotation/0").glob("*.*")}

    running = start(ROOT / "pipelines/pretrain.py", "tiny-rotation")
    while not list(killed.glob("data/runs/*/checkpoint.pt")):
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.communicate()
    assert not (killed / "data/encoders/tiny").exists()
    lines = [line for folder in (killed, whole, killed) for line in (f"cd {shlex.quote(str(folder))}", "pretrain.py tiny-rotation")]
    running = start(ROOT / "tests/several.py", *lines)  # also when it is complete
    said = running.communicate(timeout=300)[1]
    assert running.returncode == 0, said
    assert said.count("no val_loss: val has 1 samples, and the smallest batch of 2 processes has 2") == 3, "once each"
    assert made(killed) == made(whole) and b"val_loss" not in made(whole)["history.jsonl"]
    cost = json.loads((killed / "data/results/tiny/tiny-rotation/cost.json").read_text())
    assert cost["seeds"]["0"]["processes"] == 2


if __name__ == "__main__":
    work(int(sys.argv[3]), sys.argv[1], sys.argv[2])
