"""Tasks by their own heads, gains against loops, and groups of tasks against another search."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from selfsup import evals, nets, report
from selfsup import encoder as encoders
from selfsup.evals import tasks
from tests import test_bad_inputs as bad
from tests.evals.conftest import ArraySplit

ATTRIBUTES = {"hue": 3, "lot": 5, "shade": None}


class Several(ArraySplit):
    columns = {"image", "label", "attributes"}

    def in_order(self, batch=512):
        for part in super().in_order(batch):
            yield {**part, "attributes": self.attributes[part["index"]]}


@pytest.fixture
def several(data):
    """The data with attributes, of which hue is the class, three of four, and shade the mean of the image."""
    data.card = {**data.card, "attributes": ATTRIBUTES, "columns": ["image", "label", "attributes"]}
    data.shards = "here"
    for split in (data.train, data.val, data.test):
        split.__class__ = Several
        shade = split.images.float().mean((1, 2, 3))
        columns = split.labels.clamp(max=2), torch.arange(len(split)) % 5, (shade - shade.mean()) / shade.std()
        split.attributes = torch.stack([column.float() for column in columns], 1)
    return data


def test_each_task_is_asked_of_its_own_head_and_trunk(encoder, several):
    torch.manual_seed(0)
    names = ["shade", "class", "lot"]
    encoder.info = {"args": {"tasks": names}}
    heads = nets.build("linear", d_in=encoder.dim, d_out=1 + 4 + 5)
    other = {f"encoder_{n}": type(encoder)() for n in (2, 3)}
    with torch.no_grad():
        other["encoder_3"].scale.fill_(-2.0)
    x, labels = evals.embed(encoder, several.test)
    truth = several.test.attributes
    for trunks in ({}, other):
        found = dict(evals.run("tasks", encoder, several, bootstrap=50, heads=heads, **trunks))
        out = {1: heads(x), -2: heads(-2 * x)}
        lot = out[-2 if trunks else 1][:, 5:].detach()
        assert list(found["tasks"]) == names
        assert found["tasks"]["lot"]["accuracy"] == evals.percent((lot.argmax(1) == truth[:, 1]).float().mean())
        right = out[1][:, 1:5].argmax(1) == labels
        assert found["tasks"]["class"]["accuracy"] == evals.percent(right.float().mean())
        shade = truth[:, 2].numpy()
        explained = 1 - np.mean((out[1][:, 0].detach().numpy() - shade) ** 2) / np.var(shade)
        assert found["accuracy"] == found["tasks"]["shade"]["accuracy"] == pytest.approx(100 * explained, abs=0.02)
    with torch.no_grad():  # a guess costs 1
        heads.weight.zero_(), heads.bias.zero_()
    val = tasks.choose(encoder, several, heads).val
    assert [loss for _, loss in val.values()] == pytest.approx([1, 1, 1], abs=1e-4)
    several.card = {**several.card, "attributes": {}}
    with pytest.raises(evals.UserError, match='no task "shade"'):
        tasks.choose(encoder, several, heads)
    several.card = {**several.card, "columns": ["image", "label"]}
    with pytest.raises(evals.UserError, match="tasks needs the column 'attributes'"):
        tasks.choose(encoder, several, heads)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_another_search(seed):
    """Over sets of up to three of the 31 networks there can be, of which for each task the best one counts."""
    names, random = "abcde", np.random.default_rng(seed)
    sets = [frozenset(s) for n in range(1, 6) for s in itertools.combinations(names, n)]
    table = {(task, learned): random.uniform() for learned in sets for task in learned}
    totals = []
    for most in (1, 2, 3):
        total, networks = tasks.grouped(names, lambda task, learned: table[task, learned], most)
        slow = min(sum(min((table[task, s] for s in some if task in s), default=np.inf) for task in names)
                   for n in range(1, most + 1) for some in itertools.combinations(sets, n))
        assert total == pytest.approx(slow) and len(networks) <= most
        assert sorted(task for _, done in networks for task in done) == list(names)
        assert total == pytest.approx(sum(table[task, learned] for learned, done in networks for task in done))
        totals.append(total)
    assert totals == sorted(totals, reverse=True)
    assert len(list(tasks.divided(list("abcdef")))) == 203  # Bell's number


def rows(runs, seeds=2, **more):
    """Rows of the report of runs {title: {task: loss on val}}, of which each seed has a little more."""
    def row(title, losses):
        done = {"low": 0, "high": 99}
        each = {str(seed): {"tasks": {task: {**done, "accuracy": 50 + seed, "val_loss": loss * (1 + 0.1 * seed)}
                                      for task, loss in losses.items()}} for seed in range(seeds)}
        args = {"tasks": list(losses)} | ({"sharing": "soft"} if "soft" in title else {}) | more
        run = SimpleNamespace(data="scenes", encoder={"name": "convnet"}, train="the same", args=args)
        return SimpleNamespace(title=title, role="", run=run, results={"tasks": {"seeds": each}})

    return [row(title, losses) for title, losses in runs.items()]


def test_gains_and_groups_in_the_report():
    runs = {"a": {"a": 0.5}, "b": {"b": 0.4}, "c": {"c": 0.2}, "lot": {"lot": 1.0}, "a-b": {"a": 0.4, "b": 0.3},
            "a-c": {"a": 0.6, "c": 0.2}, "b-c": {"b": 0.5, "c": 0.3}, "a-lot": {"a": 0.75, "lot": 1.0},
            "all": {"a": 0.5, "b": 0.5, "c": 0.25}, "all-soft": {"a": 0.25, "b": 0.4, "c": 0.2}}
    panel = tasks.panel(report, rows(runs), {})
    heads, table = panel.table
    lines = {row.title: dict(zip(heads, cells)) for row, cells in table}
    assert list(lines) == ["alone", "with b", "with a", "with c", "with lot", "all", "all-soft, soft"]
    gains = {("a", "with b"): 20, ("b", "with a"): 25, ("a", "with c"): -20, ("c", "with b"): -50, ("a", "all"): 0,
             ("a", "with lot"): -50, ("lot", "with a"): 0, ("a", "all-soft, soft"): 50}
    for (task, line), gain in gains.items():
        assert lines[line][f"{task}: gain, %"]["accuracy"] == pytest.approx(gain), (task, line)
    assert lines["alone"]["a: gain, %"] is None and lines["with b"]["lot: gain, %"] is None
    assert lines["with b"]["a, %"]["accuracy"] == 50.5 and lines["with b"]["a: gain, %"]["low"] == pytest.approx(20)
    # Of the tasks with all pairs, on the mean over the seeds: {a, b} and {c}; no third network makes it better.
    assert [s.partition(", loss ")[2] for s in panel.sentences] == ["1.312: a + b + c.", "0.945: a + b; c."]
    assert "+20.0" in panel.figure and "-50.0" in panel.figure

    others = rows({"a": {"a": 0.5}}) + rows({"a-b": {"a": 0.4, "b": 0.3}}, augment="crop_flip")
    assert tasks.gains(others)["with b", "a"].get("gain") is None  # not the same but for the tasks


def test_a_method_of_several_tasks_is_trained_and_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_TRACKING", "off")
    args = {"tasks": ["lean", "class"], "sharing": "soft"}
    runs = {"tiny-both": {"method": "multi_task", "data": "tiny", "seeds": [0], "args": args},
            "tiny-wrong": {"method": "multi_task", "data": "tiny", "seeds": [0], "args": {"tasks": ["texure"]}},
            "tiny-plain": {"method": "multi_task", "data": "plain", "seeds": [0]}}
    sets = {"tiny": {**bad.SCENES, "columns": ["attributes"]}, "plain": bad.SCENES}
    protocols = {**bad.PARAMS["protocols"], "tasks": {"runs": {"tiny-both": "tiny"}, "bootstrap": 10}}
    params = {**bad.PARAMS, "datasets": sets, "runs": runs, "protocols": protocols}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert bad.script("shard", "tiny") == bad.script("shard", "plain") == 0
    for name, sentence in (("wrong", 'the data have no task "texure"; did you mean "texture"'),
                           ("plain", "needs the column 'attributes', which data set plain does not have")):
        assert bad.script("pretrain", f"tiny-{name}") == 1
        assert sentence in capsys.readouterr().err
    assert bad.script("pretrain", "tiny-both") == 0 and bad.script("evaluate", "tasks", "tiny-both") == 0
    found = json.loads(Path("data/results/tiny/tiny-both/tasks.json").read_text())["seeds"]["0"]
    data = evals.Data("data/shards/tiny", columns=("image", "label", "attributes"))
    folder, parts = "data/encoders/tiny/tiny-both", ("encoder", "heads", "encoder_2")
    own, heads, second = (encoders.load(folder, 0, part) for part in parts)
    features, labels = evals.embed(second, data.test)
    right = heads(features)[:, 1:].argmax(1) == labels
    assert found["tasks"]["class"]["accuracy"] == evals.percent(right.float().mean())
    lean = next(data.test.in_order(512))["attributes"][:, 7]
    error = (heads(evals.embed(own, data.test)[0])[:, 0] - lean).square().mean() / lean.var(correction=0)
    assert found["accuracy"] == pytest.approx(100 * (1 - error.item()), abs=0.02)
