"""params.yaml with any one value changed for another: it is refused by sentences, or it composes and can be checked."""

import copy
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from selfsup import config
from selfsup.errors import UserError
from tests.test_bad_inputs import BUDGET, FOLDER, PARAMS, SCENES, TARS, good, script  # noqa: F401

VALUES = [None, "", " ", "x", "0.5", "false", "../x", True, False, 0, 1, -1, 2, 0.5, -0.5, 1.5, 10**13, -(10**30), 1e-30, 1e300,
          math.nan, math.inf, -math.inf, [], [1], [1, 2], ["a"], [[]], [None], {}, {"a": 1}, {"name": "vit"}, {1: 2},
          {"name": []}]  # fmt: skip


def whole():
    """Params in which every section says something, and most methods' kinds of argument stand."""
    simclr = {"method": "simclr", "data": "tiny", "seeds": [0, 1], "labels": 0.5, "init": "tiny-random",
              "train": {"lr": 0.1, "judge_every": 64, "scale_lr": True}, "args": {"temperature": 0.5, "layers": 2, "augment": {"crop": [0.2, 1], "flip": 0.5}},
              "encoder": {"name": "split", "half": {"name": "convnet", "width": 4, "norm": "group"}}}  # fmt: skip
    swav = {"method": "swav", "data": "folder", "seeds": [0], "args": {"sinkhorn": False, "small": 2, "large_crop": [0.2, 1.0]},
            "encoder": {"name": "resnet10t", "drop_rate": 0.1}}  # fmt: skip
    params = copy.deepcopy(PARAMS)
    params["datasets"] |= {"folder": {**FOLDER, "limit": 10, "fit": "pad", "licence": "CC0"}, "tars": TARS,
                           "more": {**SCENES, "imbalance": 2.0}}  # fmt: skip
    params["runs"] |= {"tiny-simclr": simclr, "tiny-swav": swav, "tiny-vit": {**params["runs"]["tiny-random"], "encoder": {
        "name": "vit", "dim": 16, "depth": 1, "heads": 2, "patch": 4}}}  # fmt: skip
    params["protocols"]["knn"]["on"] = ["more"]
    params["protocols"]["finetune"] |= {"runs": {"tiny-random": ["tiny", "more"]}, **BUDGET}
    params["claims"] = {"better": {"says": "A beats B.", "figure": ["linear", ["knn", "linear"]], "runs": ["tiny-simclr"], "expect": [
        {"higher": "tiny-simclr", "than": {"mean": ["tiny-random", "tiny-vit"]}, "by": "linear", "margin": 2}]}}  # fmt: skip
    params["notes"], params["fetch"] = {"tiny-vit": "a note"}, ["CIFAR10"]
    return params


WHOLE = whole()


def paths(value, path=()):
    """Of every value within, its own included."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from paths(part, (*path, key))


PATHS = [path for path in paths(WHOLE) if path]


def changed(path, value, whole=WHOLE):
    """`whole` with another value at a path, or without the key (`Ellipsis`), or with a further key."""
    params = copy.deepcopy(whole)
    *parents, last = path
    at = params
    for key in parents:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return params


def told(params):
    """Sentences that refuse params, or None; anything else that is raised is a fault."""
    try:
        loaded = config.checker.check("params.yaml", params)
        config.check(loaded)
        json.dumps(loaded.plan)
    except UserError as error:
        return str(error)


def test_whole_is_right():
    assert told(WHOLE) is None


@settings(max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), value=st.sampled_from([*VALUES, ...]))
@example(("protocols", "knn", "on"), None)
@example(("runs", "tiny-simclr", "args", "augment", "crop"), [[]])
def test_any_value_anywhere_is_sentences_or_composes(path, value):
    said = told(changed(path, value))
    assert said is None or "\n" not in said and said.startswith(("params.yaml: ", "runs."))


def survivors(run):
    """Params of one run, each with one value changed that is accepted, of the training, the network or the method."""
    small = {**copy.deepcopy(PARAMS), "runs": {"tiny-run": run}}
    for path in paths(small):
        if path[:1] in (("train",), ("encoder",)) or path[:2] == ("runs", "tiny-run") and len(path) > 2:
            for value in (1e-30, 1e300, math.inf, "x", {}, [], {"name": "vit"}):
                if told(params := changed(path, value, small)) is None:
                    yield f"{'.'.join(map(str, path))}: {value!r}", params


def test_what_is_accepted_trains_or_is_one_sentence(good, tmp_path, monkeypatch, capfd):
    """A handful of what the checks let through, by the stage's own script: never a traceback, never NaN in the history."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("SELFSUP_TRACKING", "off")
    run = {"method": "simclr", "data": "tiny", "seeds": [0], "labels": 0.5,
           "args": {"temperature": 0.5, "hidden": 16, "layers": 2, "augment": {"crop": [0.2, 1], "jitter": [0.4, 0.4, 0.4, 0.1]}}}  # fmt: skip
    accepted = [*survivors(run)]
    assert len(accepted) > 12
    for what, params in accepted[::4]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(good / "data", folder / "data")
        monkeypatch.chdir(folder)
        Path("params.yaml").write_text(yaml.safe_dump(params))
        capfd.readouterr()
        ended = script("pretrain", "tiny-run")
        said = [line for line in capfd.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error:")]
        assert (ended, len(said)) in ((0, 0), (1, 1)), what
        for history in folder.rglob("tiny-run/*/history.jsonl"):
            assert "NaN" not in history.read_text() and "Infinity" not in history.read_text(), what


KEYS = [  # what was accepted and trained nonsense, or ended in a traceback: where, value, what is said
    (("encoder", "norm"), "bacth", "encoder.norm should be 'batch' or 'group', not 'bacth'; did you mean \"batch\"?"),
    (("encoder", "width"), 0, "encoder.width should be greater than or equal to 1, not 0"),
    (("runs", "tiny-swav", "args", "sinkhorn"), "false", "runs.tiny-swav.args.sinkhorn should be a valid boolean, not 'false'"),
    (("runs", "tiny-simclr", "args", "dim"), 0, "runs.tiny-simclr.args.dim should be greater than or equal to 1, not 0"),
    (("runs", "tiny-simclr", "args", "temperature"), None, "args.temperature should be a valid number, not None"),
    (("runs", "tiny-swav", "args", "small"), -1, "runs.tiny-swav.args.small should be greater than or equal to 0, not -1"),
    (("runs", "tiny-swav", "args", "large_crop"), [1.0, 0.2], "args.large_crop should have the smaller value first"),
    (("runs", "tiny-simclr", "encoder", "half", "norm"), "x", "runs.tiny-simclr.encoder.half.norm should be 'batch' or 'group'"),
    (("runs", "tiny-swav", "encoder", "pretrained"), True, "tiny-swav.encoder.pretrained is now the run's own: `init: timm`"),
    (("claims", "better", "expect", 0, "highr"), "x", 'unknown key "highr" in claims.better.expect.0; did you mean "higher"?'),
    (("runs", "tiny-simclr", "labels"), "0.5", "tiny-simclr.labels should be a valid integer or a valid number, not '0.5'"),
    (("train", "batch"), 1, "train.batch should be greater than or equal to 2, not 1"),
    (("protocols", "finetune", "batch"), 1, "protocols.finetune.batch should be greater than or equal to 2, not 1"),
    (("protocols", "knn", "on"), None, "protocols.knn.on should be a valid list, not None"),
    (("datasets", "folder", "unlabelled"), None, "datasets.folder.unlabelled should be a valid boolean, not None"),
    (("datasets", "tiny", "size"), 10**13, "datasets.tiny.size should be less than or equal to 16384"),
]


@pytest.mark.parametrize("path, value, sentence", KEYS, ids=[".".join(map(str, path)) for path, _, _ in KEYS])
def test_what_was_accepted_is_a_sentence(path, value, sentence):
    said = told(changed(path, value))
    assert said and sentence in said, said
    assert " mistakes: " not in said, "one mistake is told once"
