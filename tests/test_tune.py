"""Tuning: which trials a run gets, which of them is chosen, and what that makes of conf/."""

import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from selfsup import artefacts, config, tune
from selfsup.config import edit
from selfsup.errors import UserError
from tests import test_bad_inputs as bad

CONF = """\
# @package _global_
experiment: mine  # a comment

runs:
  # Bounds.
  mine-random: {method: random, data: scenes, seeds: [0]}
  mine-simclr: {method: simclr, data: scenes, seeds: [0], args: {augment: moco_v1,   temperature: 0.2}}  # why so
  mine-lines:
    method: byol
    train:
      images: 1.0e+3  # few
    seeds: [0]

  mine-broken: {method: mae, data: scenes,
    encoder: {name: vit}, train: {lr: 0.01}}
"""
VALUES = {("train", "lr"): 3.3e-05, ("args", "temperature"): 0.1}


def test_an_edit_of_conf_changes_one_run_and_keeps_comments_and_layout():
    new = edit.run("mine.yaml", CONF, "mine-simclr", VALUES, "trial 3 of 4")
    changed = [(a, b) for a, b in zip(CONF.splitlines(), new.splitlines(), strict=True) if a != b]
    assert [b for _, b in changed] == [
        "  mine-simclr: {method: simclr, data: scenes, seeds: [0], args: {augment: moco_v1,   temperature: 0.1}, "
        "train: {lr: 3.3e-05}}  # why so  # tune: trial 3 of 4"]
    assert yaml.safe_load(new)["runs"]["mine-simclr"]["train"]["lr"] == 3.3e-05
    assert edit.run("mine.yaml", new, "mine-simclr", VALUES, "trial 3 of 4") == new
    again = edit.run("mine.yaml", new, "mine-simclr", {("args", "temperature"): 0.2}, "trial 1 of 4")
    assert "# why so  # tune: trial 1 of 4\n" in again and again.count("tune:") == 1


@pytest.mark.parametrize("written, left", [
    ("mine: {args: {a: 1, b: 2, c: 3}}", "mine: {args: {b: 2, c: 3}}"),
    ("mine: {args: {b: 2, a: 1}}", "mine: {args: {b: 2}}"),
    ("mine: {args: {a: 1}}", "mine: {args: {}}"),
    ("mine:\n    args:\n      a: 1  # one\n      b: 2", "mine:\n    args:\n      b: 2"),
])
def test_an_edit_of_conf_takes_out_what_is_gone(written, left):
    new = edit.run("mine.yaml", f"runs:\n  {written}\n", "mine", {("args", "a"): edit.GONE}, "it")
    assert new == f"runs:\n  {left}  # tune: it\n"


def test_an_edit_of_conf_finds_runs_on_several_lines():
    new = edit.run("mine.yaml", CONF, "mine-lines", {("train", "lr"): 0.003, ("args", "augment"): {"flip": 0.5}}, "it")
    assert "  # few\n      lr: 0.003\n    seeds: [0]\n    args: {augment: {flip: 0.5}}  # tune: it\n\n" in new
    new = edit.run("mine.yaml", CONF, "mine-broken", {("train", "lr"): 0.03}, "it")
    assert "data: scenes,\n    encoder: {name: vit}, train: {lr: 0.03}}  # tune: it\n" in new


@pytest.mark.parametrize("text", [
    "runs: {}\n",
    "runs:\n  other: &same {args: {}}\n  mine: *same\n",
])
def test_what_cannot_be_edited_by_itself_is_said(text):
    with pytest.raises(UserError, match=r"conf/a.yaml: runs.mine cannot .* train.lr: 0.1"):
        edit.run("conf/a.yaml", text, "mine", {("train", "lr"): 0.1}, "it")


RECIPE = {"lr": 0.001, "args": {"augment": "moco_v1"}}
RATES = [0.001, 0.00033, 0.003]


def test_the_second_value_is_tried_at_the_best_rate():
    assert [trial["lr"] for trial in tune.trials(RECIPE, ("temperature", 0.1), [])] == RATES
    assert tune.trials(RECIPE, ("temperature", 0.1), [50, 60]) == tune.trials(RECIPE, None, [])
    *first, fourth = tune.trials(RECIPE, ("temperature", 0.1), [50, 60, -math.inf])
    assert [trial["args"] for trial in first] == 3 * [RECIPE["args"]]
    assert fourth == {"lr": 0.00033, "args": {"augment": "moco_v1", "temperature": 0.1}}
    assert tune.trials(RECIPE, ("temperature", 0.1), [60, 60, 60])[-1]["lr"] == 0.001  # of equals as it stands


@pytest.mark.parametrize("scores, lr", [
    ([1, 2, 3], 0.009), ([2, 3, 1], 0.00011), ([3, 1, 2], 0.0017), ([3, 2, 1], 0.00058),
])
def test_without_a_second_value_a_fourth_rate_is_tried_on_the_better_side(scores, lr):
    fourth = tune.trials(RECIPE, None, scores)[-1]
    assert fourth == {"lr": lr, "args": RECIPE["args"]} and lr not in RATES


def run(name, method="simclr", **args):
    return config.Run(name=f"mine-{name}", method=method, data="scenes", seeds=[0], args=args, train=bad.TRAIN,
                      encoder={"name": "convnet", "width": 4})


def test_the_second_value_is_another_than_the_run_has_and_nothing_that_runs_are_compared_by():
    assert tune.second(run("a"), [run("a")]) == ("temperature", 0.1)
    assert tune.second(run("a", temperature=0.2), [run("a", temperature=0.2)]) == ("temperature", 0.1)
    assert tune.second(run("a", temperature=0.1), [run("a", temperature=0.1)]) == ("temperature", 0.5)  # the paper's
    runs = [run("a"), run("b", temperature=0.2), run("c", "vicreg", covariance=0.0), run("d", "vicreg")]
    assert not any(tune.second(each, runs) for each in runs)
    assert tune.second(run("a", augment="crop"), [run("a", augment="crop"), run("b")]) == ("temperature", 0.1)
    assert tune.second(run("a", "clusterfit"), [run("a", "clusterfit")]) is None


def test_with_few_labels_training_on_them_is_a_rival_whose_rate_is_tuned_alike(monkeypatch):
    monkeypatch.setattr(tune.selfsup.data.tars, "card_of", lambda folder: {})
    monkeypatch.setattr(tune.evals, "lacking", lambda card: None)
    runs = [run(name, method).model_copy(update={"labels": labels}) for name, method, labels in (
        ("a", "random", 250), ("b", "supervised", None), ("c", "supervised", 250), ("d", "simclr", None))]
    assert tune.tuned(SimpleNamespace(runs={each.name: each for each in runs}, experiment="e")) == runs[2:]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with an experiment of two bounds and a run, and with shards that have no test split to read."""
    monkeypatch.chdir(tmp_path)
    train = {**bad.TRAIN, "images": 32, "clip": 0.0, "optimizer": "sgd"}
    methods = ("random", "supervised", "simclr")
    runs = {f"tiny-{method}": {"method": method, "data": "tiny", "seeds": [0]} for method in methods}
    runs["tiny-simclr"] |= {"args": {"hidden": 8, "temperature": 0.2}, "train": {"lr": 0.1}}
    Path("params.yaml").write_text(yaml.safe_dump({**bad.PARAMS, "train": train, "runs": runs}))
    Path("conf/experiment").mkdir(parents=True)
    text = "experiment: tiny\nruns:\n" + "".join(f"  {name}: {edit._flow(own)}\n" for name, own in runs.items())
    Path("conf/experiment/tiny.yaml").write_text(text)
    monkeypatch.setenv("SELFSUP_TRACKING", "off")
    monkeypatch.setenv("PYTHONPATH", str(bad.ROOT / "ssl"))
    assert bad.script("shard", "tiny") == 0
    for shard in json.loads(Path("data/shards/tiny/card.json").read_text())["shards"]["test"]:
        Path("data/shards/tiny", shard["file"]).unlink()
    return tmp_path


def files():
    return [Path("data/results/tiny/tune.json"), Path("data/results/tiny/tune.md"), Path("conf/experiment/tiny.yaml")]


@pytest.mark.slow
def test_what_is_chosen_goes_into_conf_with_its_trial_and_is_chosen_again(work, capsys):
    # The trials in this process, which takes seconds less than a process for each; what they find is the trainer's.
    main = runpy.run_path(str(bad.ROOT / "pipelines/tune.py"))

    def tuned():
        table, done = tune.Table(config.load()), []
        while left := list(table.left()):
            for _, given in left:
                bad.AcceleratorState._reset_state(reset_partial_state=True)
                table.add(main["trial"](table.params, **given))
                done.append((given["number"], given["lr"], given["args"].get("temperature")))
        table.write()
        return done, tune.settle(table)

    done, changed = tuned()
    assert [trial[:2] for trial in done] == [(1, 0.1), (2, 0.033), (3, 0.3), (4, done[3][1])] and done[3][2] == 0.1
    assert changed == 1
    entry = artefacts.tuning("data/results/tiny/tune.json")["runs"]
    assert list(entry) == ["tiny-simclr"]
    trials, chosen = entry["tiny-simclr"]["trials"], entry["tiny-simclr"]["chosen"]
    assert tune.score(trials[chosen - 1]) == max(map(tune.score, trials))
    own = yaml.safe_load(Path("conf/experiment/tiny.yaml").read_text())["runs"]
    assert own["tiny-simclr"]["train"]["lr"] == trials[chosen - 1]["lr"]
    assert own["tiny-simclr"]["args"] == trials[chosen - 1]["args"]
    assert f"# tune: trial {chosen} of 4, kNN {trials[chosen - 1]['knn']:.1f}" in files()[2].read_text()
    assert Path("data/results/tiny/tune.md").read_text().count("| chosen |") == 1

    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({**params, "runs": own}))
    before = [file.read_bytes() for file in files()]
    assert tuned() == ([], 0)
    assert [file.read_bytes() for file in files()] == before

    # Whoever was killed goes on: of a trial that is not in the table, a process of its own finds the same again.
    content = json.loads(before[0])
    lost = content["runs"]["tiny-simclr"]["trials"][1]
    del lost["knn"], lost["linear"]
    files()[0].write_text(json.dumps(content))
    assert bad.script("tune", "--jobs", "1") == 0
    assert "tiny-simclr, trial 2 of 4, lr 0.033: kNN " in capsys.readouterr().out
    assert [file.read_bytes() for file in files()] == before

    # Of one run alone: the others of the table stay as they are, and what has no choice is said.
    assert bad.script("tune", "tiny-simclr") == 0 and [file.read_bytes() for file in files()] == before
    assert bad.script("tune", "tiny-random") == 1
    assert "tiny-random cannot be tuned: tiny can tune tiny-simclr" in capsys.readouterr().err

    # Another choice than that in conf/ takes back what only the old one had.
    content = json.loads(before[0])
    for number, trial in enumerate(content["runs"]["tiny-simclr"]["trials"], 1):
        trial["knn"] = 100.0 if number == (1 if chosen == 4 else 4) else 0.0
    content["runs"]["tiny-simclr"]["chosen"] = chosen
    files()[0].write_text(json.dumps(content))
    assert tuned() == ([], 1)
    own = yaml.safe_load(files()[2].read_text())["runs"]["tiny-simclr"]
    best = content["runs"]["tiny-simclr"]["trials"][0 if chosen == 4 else 3]
    assert (own["train"]["lr"], own["args"]) == (best["lr"], best["args"])

    # One that comes to no numbers is an outcome, and no accident.
    bad.AcceleratorState._reset_state(reset_partial_state=True)
    failed = main["trial"](config.load(), "tiny-simclr", 1, 1e30, {"hidden": 8}, "")
    assert "became" in failed["failed"] and tune.score(failed) == -math.inf
