"""The method's own classifier, and how many labels of val a choice may be made by."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from selfsup import encoder as encoders
from selfsup import evals, nets, report, shards
from selfsup.evals import classify
from tests import test_bad_inputs as bad


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    shards.write("scenes", {"source": "scenes", "size": 8, "train": 60, "val": 40, "test": 20, "seed": 0, "max_bad": 0.0},
                 folder, workers=1)
    return folder


def test_the_classifier_is_asked_as_it_is(encoder, data):
    classifier = nets.build("linear", d_in=encoder.dim, d_out=4)
    features, labels = evals.embed(encoder, data.test)
    right = (features @ classifier.weight.T + classifier.bias).argmax(1) == labels
    found = dict(evals.run("classify", encoder, data, bootstrap=50, classifier=classifier))
    assert found["accuracy"] == evals.percent(right.float().mean()) and found["low"] <= found["accuracy"] <= found["high"]
    with torch.no_grad():  # the centres of the classes are linear: w = c, b = -|c|² / 2
        train, own = evals.embed(encoder, data.train)
        centres = torch.stack([train[own == c].mean(0) for c in range(4)])
        classifier.weight.copy_(centres)
        classifier.bias.copy_(-centres.square().sum(1) / 2)
    assert evals.judge("classify", encoder, data, classifier=classifier)["val_accuracy"] > 90


def test_whether_it_is_as_right_as_it_is_sure(encoder, data):
    classifier = nets.build("linear", d_in=encoder.dim, d_out=4)
    features, labels = evals.embed(encoder, data.test)
    with torch.no_grad():
        classifier.weight.mul_(30)  # some are sure, and some of these wrong
    p = (features @ classifier.weight.T + classifier.bias).softmax(1).max(1)
    right, error = (p.indices == labels).double().numpy(), 0.0
    for i in range(15):  # (i/15, (i+1)/15]
        these = [k for k, q in enumerate(p.values) if i / 15 < q <= (i + 1) / 15]
        if these:
            error += len(these) / len(right) * abs(right[these].mean() - p.values[these].double().mean().item())
    found = dict(evals.run("classify", encoder, data, bootstrap=50, classifier=classifier))
    assert found["ece"] == pytest.approx(100 * error, abs=0.02) and 0 < found["ece"] < 100
    gap = found["overconfidence"]
    assert gap["accuracy"] == pytest.approx(100 * (p.values.mean().item() - right.mean()), abs=0.02)
    assert gap["low"] <= gap["accuracy"] <= gap["high"] and abs(gap["accuracy"]) <= found["ece"] + 0.02
    for least in ("50", "80", "99"):
        sure = (p.values >= int(least) / 100).numpy()
        assert found["sure"][least]["accuracy"] == evals.percent(sure.mean())
        assert (least in found["right"]) == sure.any()
        assert least not in found["right"] or found["right"][least]["accuracy"] == evals.percent(right[sure].mean())

    rows = [SimpleNamespace(title="mine", results={"classify": {"seeds": {"0": found, "1": found}}})]
    panel = classify.panel(report, rows, {})
    heads, ((row, cells),) = panel.table
    assert heads[:3] == ["Over-confidence", "at least 50 % sure, %", "right of these, %"] and row is rows[0]
    assert cells[0]["low"] <= cells[0]["accuracy"] <= cells[0]["high"]
    assert [cell["accuracy"] for cell in cells[:3]] == [gap["accuracy"], found["sure"]["50"]["accuracy"],
                                                        found["right"]["50"]["accuracy"]]
    assert panel.sentences == [f"mine: expected calibration error {found['ece']:.1f} %."]


@pytest.mark.parametrize("labels, val_labels, seen", [
    (None, None, "all"), (20, None, "all"), (20, "all", "all"), (20, "same", 20), (0.1, "same", "share"), (None, "same", "all")])
def test_of_val_no_more_labels_than_of_train(scenes, tmp_path, labels, val_labels, seen):
    def opened(seed):
        return evals.Data(scenes, labels, seed, val_labels=val_labels, cache=tmp_path)

    data = opened(0)
    count = {"all": data.card["counts"]["val"], "share": len(data.train)}.get(seen, seen)
    assert len(data.val) == min(count, data.card["counts"]["val"]) and len(data.test) == data.card["counts"]["test"]
    if seen == 20:  # as balanced as those of train, and another seed's are others
        shown = torch.cat([part["label"] for part in data.val.in_order()])
        assert (shown >= 0).all() and shown.bincount().max() - shown.bincount()[shown.unique()].min() <= 1
        assert not torch.equal(opened(1).val.index, data.val.index)


def test_a_method_of_few_labels_is_trained_and_its_average_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_TRACKING", "off")
    run = {"method": "mean_teacher", "data": "tiny", "seeds": [0], "labels": 20, "val_labels": "same"}
    runs = {"tiny-teacher": run, "tiny-torn": {**run, "args": {"ratio": 4}}}
    protocols = {**bad.PARAMS["protocols"], "classify": {"runs": {"tiny-teacher": "tiny"}, "bootstrap": 10}}
    Path("params.yaml").write_text(yaml.safe_dump({**bad.PARAMS, "runs": runs, "protocols": protocols}))
    assert bad.script("shard", "tiny") == 0
    assert bad.script("pretrain", "tiny-torn") == 1
    assert "train.batch: 32 samples a process are not whole groups of 5" in capsys.readouterr().err
    assert bad.script("pretrain", "tiny-teacher") == 0
    assert bad.script("evaluate", "classify", "tiny-teacher") == 0 and bad.script("evaluate", "knn", "tiny-teacher") == 0
    found = json.loads(Path("data/results/tiny/tiny-teacher/classify.json").read_text())["seeds"]["0"]
    net, classifier = (encoders.load("data/encoders/tiny/tiny-teacher", 0, part) for part in ("encoder", "classifier"))
    data = evals.Data("data/shards/tiny", 20, 0, val_labels="same")
    assert len(data.train) == len(data.val) == 20 and net.info["labels"] == 20
    for split, key in (("test", "accuracy"), ("val", "val_accuracy")):
        _, right = classify.predictions(net, classifier, getattr(data, split))
        assert found[key] == evals.percent(right.mean())


def test_over_confidence_may_be_below_zero_and_its_interval_too():
    seeds = {str(seed): {"accuracy": value, "low": value, "high": value, "least": -100.0} for seed, value in enumerate((-5.0, -3.0))}
    assert evals.summarise(seeds)["low"] < -10
