"""docs/use.md: its lines, run in their order as they stand there, on a tiny encoder and a few pictures."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup import cli, config, encoder, nets

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")


def save(run):
    torch.manual_seed(0)
    net = nets.build("convnet", width=4)
    net.train()(torch.randn(16, 3, 32, 32))  # moves BatchNorm's statistics
    info = {"dim": net.dim, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "size": 32, "run": run, "seed": 0,
            "method": "simclr", "data": {"name": "tiny", "hash": "d" * 64}, "code": "c" * 64}
    encoder.save(config.encoders(run) / "0", {"encoder": net}, info)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with the page's run and photos, red or blue; $TEAM, a repository with the same run, and a DVC one here."""
    from dvc.cli import main as dvc

    monkeypatch.setenv("TEAM", str(tmp_path / "team"))
    rng = np.random.default_rng(0)
    for name in ("team", "work"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        save("quick-simclr")
        subprocess.run(["git", "init", "--quiet"], check=True)
        assert dvc(["init", "--quiet"]) == 0
        if name == "team":
            assert dvc(["add", "--quiet", "data/encoders/quick/quick-simclr"]) == 0
            subprocess.run([*GIT, "add", "--all"], check=True)
            subprocess.run([*GIT, "commit", "--quiet", "--message", "test"], check=True)
    for i in range(24):
        pixels = rng.integers(0, 60, (40, 50, 3), dtype=np.uint8)
        pixels[:, :, 2 * (i % 2)] += 150
        path = Path(f"photos/{'ab'[i % 2]}/{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return dvc


@pytest.mark.slow
def test_the_page_works_as_it_stands(work, capsys):
    told = {}
    for language, text in BLOCK.findall((ROOT / "docs/use.md").read_text()):
        if language == "python":
            exec(text, told)
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line.replace('"$TEAM"', shlex.quote(os.environ["TEAM"])))
            assert (cli.main(words) if command == "selfsup" else work(words)) in (None, 0), line
    assert told["accuracy"] > 0.9 and told["loss"] < 0.6, "red and blue are told apart"
    assert len(told["losses"]) == 3 and told["boxes"].shape[1] == 4
    assert all(p.grad is not None for p in told["backbone"].encoder.parameters()), "the detector trains the encoder, too"
    assert len(told["nearest"]) == 4 and {path[0] for path in told["nearest"]} == {told["found"]["path"][0][0]}
    assert "  1.000  photos/a/" not in (out := capsys.readouterr().out) and out.count("  photos/a/") == 3
    np.testing.assert_allclose(told["features"], told["theirs"](told["images"]), rtol=1e-3, atol=1e-4)


def test_the_page_is_named_where_encoders_are_spoken_of():
    assert "docs/use.md" in (ROOT / "README.md").read_text()
