"""pipelines/shard.py and fetch.py as a user runs them."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import quick

ROOT = Path(__file__).parents[2]


def run(folder, script, *words):
    return subprocess.run([sys.executable, str(ROOT / "pipelines" / script), *words], cwd=folder, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "ssl")})


def project(folder, **changes):
    params = quick.params()
    params["datasets"]["scenes"] |= {"train": 12, "val": 4, "test": 4, **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def test_shard(tmp_path):
    done = run(project(tmp_path), "shard.py", "scenes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "scenes: 12 train, 4 val, 4 test\n"
    assert json.loads((tmp_path / "data/shards/scenes/card.json").read_text())["counts"]["train"] == 12
    assert sorted(path.name for path in (tmp_path / "data/shards").iterdir()) == ["scenes"]


@pytest.mark.parametrize("script, word, sentence", [
    ("shard.py", "scnes", 'error: params.yaml: datasets has no "scnes"; did you mean "scenes"?\n'),
    ("fetch.py", "CIFAR-10", 'error: torchvision has no data set "CIFAR-10"; did you mean "CIFAR10"?\n'),
])
def test_a_wrong_name_is_one_sentence(tmp_path, script, word, sentence):
    done = run(project(tmp_path), script, word)
    assert done.returncode == 1 and done.stderr == sentence
    assert not (tmp_path / "data").exists()
