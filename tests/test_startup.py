"""What a stage imports: some forty of them start in an experiment, and each pays it in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfsup import shards

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "torch._dynamo", "torch.distributed.tensor", "sympy", "triton", "accelerate", "torchvision", "timm", "mlflow",
    "pandas", "sklearn", "scipy", "matplotlib", "onnxruntime", "pyarrow", "webdataset", "dvc",
}  # fmt: skip
PRETRAIN = """
from pathlib import Path
from accelerate import Accelerator
from selfsup import config
from selfsup.training import loop
train = {"images": 64, "batch": 32, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0,
         "precision": "fp32", "threads": 1, "workers": 0, "reader": "auto", "checkpoint_every": 1e9}
run = config.Run(name="tiny", method="simclr", data="tiny", seeds=[0], encoder={"name": "convnet", "width": 4}, args={},
                 train=config.Train(**train))
folder = Path(sys.argv[1])
assert loop.pretrain(run, 0, Accelerator(), folder / "tiny", *(folder / name for name in "ers"))["flops_per_image"]
"""
FIT = """
import torch
from types import SimpleNamespace
from selfsup.training.step import fit
net = torch.nn.Linear(2, 2)
net.param_groups = lambda: [{"params": net.parameters()}]
for name in ("adamw", "sgd", "lars", "larc"):
    train = SimpleNamespace(optimizer=name, lr=0.1, weight_decay=0.1, warmup=0.0, clip=1.0)
    assert fit(net, lambda x: {"loss": net(x).square().sum()}, [torch.ones(1, 2)] * 2, 2, train)
"""


def stage(name):
    return f"import runpy; runpy.run_path('pipelines/{name}.py')"


# What is run, and which of the heavy ones it may import.
STARTS = {
    "experiment": (stage("experiment"), set()),
    "launcher": ("import selfsup.launch", set()),
    "command": ("import selfsup.cli", set()),
    "shard": (stage("shard"), set()),  # a source knows what it needs
    "judge": (stage("evaluate") + "\nfrom selfsup import evals\nevals.load('knn'), evals.load('linear')", {"torch"}),
    "report": (stage("report"), {"torch"}),
    "fit": (FIT, {"torch"}),
    "pretrain": (PRETRAIN, {"torch", "accelerate", "triton"}),  # the last one by what counts operations
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_stage_imports_what_it_uses(kind, tmp_path):
    code, may = STARTS[kind]
    if kind == "pretrain":
        spec = {"source": "scenes", "size": 16, "max_bad": 0.0, "train": 64, "val": 32, "test": 32, "seed": 0}
        shards.write("tiny", spec, tmp_path / "tiny", workers=1)
    words = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)", tmp_path]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": "ssl"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & HEAVY <= may
