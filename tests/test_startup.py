"""What a stage imports before it does anything: some forty of them start in an experiment, and each pays it in seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torch._dynamo", "sympy", "triton", "accelerate", "torchvision", "timm", "mlflow", "pandas", "sklearn", "scipy",
         "matplotlib", "onnxruntime", "pyarrow", "webdataset", "dvc"}
TRAINED = """
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
    return f"import runpy; runpy.run_path('pipelines/{name}.py', run_name='{name}')"


# What is run, and which of the heavy packages that may have imported.
STARTS = {
    "experiment": (stage("experiment"), set()),
    "launcher": ("import selfsup.launch", set()),
    "pretrain": (stage("pretrain"), set()),  # before params are read; what a trainer itself needs it imports then
    "command": ("import selfsup.cli", set()),
    "shard": (stage("shard"), set()),  # a source says what it needs
    "judge": (stage("evaluate") + "; evals.load('linear')", {"torch"}),
    "report": (stage("report"), {"torch"}),
    "training": (TRAINED, {"torch"}),
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_imports_what_it_uses(kind):
    code, may = STARTS[kind]
    env = {**os.environ, "PYTHONPATH": "ssl", "PYTHONDONTWRITEBYTECODE": "1"}
    code = f"import sys\nfrom selfsup import evals\n{code}\nprint(*sys.modules)" if kind == "judge" else (
        f"import sys\n{code}\nprint(*sys.modules)")
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "selfsup" in found.stdout
    assert set(found.stdout.split()) & HEAVY <= may
