"""Pictures without labels, end to end as DVC runs it: shards, training, judges that are skipped, a report without accuracy."""

import io
import json
import re
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from selfsup import config, evals, report
from tests.test_bad_inputs import PARAMS, TARS, script

RUNS = {"tiny-random": {"method": "random", "data": "plain", "seeds": [0]},
        "tiny-simclr": {"method": "simclr", "data": "plain", "seeds": [0]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlabelled")
    generator = np.random.default_rng(0)
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars/one.tar", "w") as tar:
        for i in range(120):
            file = io.BytesIO()
            Image.fromarray(generator.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(file, "png")
            member = tarfile.TarInfo(f"{i:04d}.png")
            member.size = len(file.getvalue())
            tar.addfile(member, io.BytesIO(file.getvalue()))
    params = {**PARAMS, "datasets": {"plain": TARS}, "runs": RUNS}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SELFSUP_TRACKING", "off")
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody answers there
        patch.setattr(sys, "argv", sys.argv)
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        assert script("shard", "plain") == 0
        for run in RUNS:
            assert script("pretrain", run) == 0
            for protocol in ("knn", "linear"):
                assert script("evaluate", protocol, run) == 0
        assert script("report") == 0
    return folder


def test_judges_say_why_they_were_skipped(folder):
    for protocol in ("knn", "linear"):
        result = json.loads((folder / f"data/results/tiny/tiny-simclr/{protocol}.json").read_text())
        assert result == {"run": "tiny-simclr", "protocol": protocol, "skipped": "the data has no labels"}


def test_the_report_has_curves_pictures_and_no_accuracy(folder):
    text, table = ((folder / "data/report/tiny" / name).read_text() for name in ("report.html", "table.md"))
    for word in ('id="collapse"', 'id="maps"', "learning rate", "Nearest val images<", 'alt="query images"',
                 "coloured by cluster, since there are no labels", "no labels, hash", "has no labels: what is trained on it"):
        assert word in text, word
    assert "Accuracy on test" not in text and "above floor" not in text and "coloured by class" not in text
    assert text.count('alt="val images"') > 1 and "kNN %" not in text
    head = next(line for line in table.splitlines() if line.startswith("| Run"))
    assert head.split(" | ")[:5] == ["| Run", "Method", "Encoder", "Verdict", "Images seen"]
    assert re.search(r"^\| simclr \| simclr \| .* \|  \| 64 \|", table, re.MULTILINE)


def test_plots_and_metrics(folder):
    assert json.loads((folder / "data/results/tiny.accuracy.json").read_text()) == []
    assert {row["run"] for row in json.loads((folder / "data/report/tiny/loss.json").read_text())} == {"simclr"}
    assert yaml.safe_load((folder / "data/results/tiny.yaml").read_text()) == {"Run": "random\nsimclr"}


def test_samples_without_a_label_are_left_out_by_judges_and_nobody_else(tmp_path, monkeypatch):
    """Two thirds have a label; which the others would have had, and that they are there at all, changes no judgement."""
    generator = np.random.default_rng(1)
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars/one.tar", "w") as tar:
        for i in range(150):
            file = io.BytesIO()
            colour = generator.integers(60, size=(16, 16, 3), dtype=np.uint8) + np.uint8(190 * (i % 2))
            Image.fromarray(colour).save(file, "png")
            for end, content in [("png", file.getvalue()), ("cls", b"%d" % (i % 2 if i % 3 < 2 else -1))]:
                member = tarfile.TarInfo(f"{i:04d}.{end}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_TRACKING", "off")
    monkeypatch.setattr(sys, "argv", sys.argv)
    runs = {"tiny-random": RUNS["tiny-random"]}
    Path("params.yaml").write_text(yaml.safe_dump({**PARAMS, "datasets": {"plain": TARS}, "runs": runs}, sort_keys=False))
    assert script("shard", "plain") == script("pretrain", "tiny-random") == script("evaluate", "knn", "tiny-random") == 0
    card = json.loads(Path("data/shards/plain/card.json").read_text())
    assert sum(card["unlabelled"].values()) == 50 and sum(card["counts"].values()) == 150
    data = evals.Data("data/shards/plain")
    for name in ("train", "val", "test"):
        split = getattr(data, name)
        assert len(split) == card["counts"][name] - card["unlabelled"][name] and (split.values["label"] >= 0).all()
    assert json.loads(Path("data/results/tiny/tiny-random/knn.json").read_text())["accuracy"] > 90
    page = report.build(config.load(), tmp_path).read_text()
    assert "2 classes (50 without a label)" in page and "coloured by class" in page


@pytest.mark.parametrize("lacks, why", [
    ({"val_share": 0.0}, "the val split is empty"),
    ({"test_share": 0.0}, "the test split is empty"),
])
def test_without_a_split_training_ends_and_nothing_is_judged(tmp_path, monkeypatch, capfd, lacks, why):
    """Said before training, in one line each; then every stage ends well."""
    for i in range(120):
        picture = tmp_path / f"pictures/{'ab'[i % 2]}/{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (2 * i, 100 * (i % 2), 50)).save(picture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_TRACKING", "off")
    monkeypatch.setattr(sys, "argv", sys.argv)
    folder = {"source": "folder", "root": "pictures", "size": 16, "val_share": 0.2, "test_share": 0.2, "max_bad": 0.0}
    runs = {"tiny-supervised": {"method": "supervised", "data": "plain", "seeds": [0]}}
    params = {**PARAMS, "datasets": {"plain": folder | lacks}, "runs": runs}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert script("shard", "plain") == 0
    capfd.readouterr()
    assert script("pretrain", "tiny-supervised") == 0
    lines = capfd.readouterr().err.replace("\r", "\n").splitlines()
    said = [line for line in lines if line.startswith("tiny-supervised") and "|" not in line]
    assert said[0] == f"tiny-supervised: nothing will be judged: {why}" and len(said) == 1 + ("val_share" in lacks)
    assert script("evaluate", "knn", "tiny-supervised") == 0 and script("report") == 0
    assert json.loads(Path("data/results/tiny/tiny-supervised/knn.json").read_text())["skipped"] == why
    assert why in Path("data/report/tiny/report.html").read_text()
