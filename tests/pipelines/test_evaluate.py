"""evaluate.py on real shards and real encoder folders, as DVC runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipelines import evaluate
import selfsup
from selfsup import config, errors, evals, methods, nets
from selfsup import encoder
from selfsup import shards
from tests import quick

REPOSITORY = Path(__file__).parents[2]
JUDGES = ["knn", "linear", "finetune", "low_shot", "layerwise", "retrieval", "zero_shot"]  # others: tests/evals
RUNS = {"tiny-clip": {"method": "clip", "data": "scenes", "seeds": [0, 1]},
        "tiny-random": {"method": "random", "data": "scenes", "seeds": [0]},
        "tiny-few": {"method": "random", "data": "scenes", "seeds": [0], "labels": 12}}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    params = quick.params()
    scenes = {"source": "scenes", "size": 32, "train": 60, "val": 40, "test": 40, "seed": 0, "max_bad": 0}
    sets = {"scenes": scenes, "other": {**scenes, "seed": 5}, "small": {**scenes, "size": 16}}
    params.update(experiment="tiny", fetch=[], datasets=sets, runs=RUNS)
    params["protocols"]["knn"]["on"] = ["other", "small"]
    params["encoder"] = {"name": "convnet", "width": 4}
    params["train"].update(threads=1, reader="resident")
    for protocol in ("finetune", "low_shot", "layerwise", "retrieval", "zero_shot"):
        params["protocols"][protocol]["runs"] = {"tiny-clip": "scenes"}
    params["protocols"]["zero_shot"]["runs"]["tiny-random"] = "scenes"
    for budget in (params["protocols"]["finetune"], params["protocols"]["low_shot"]["finetune"]):
        budget.update(images=64, batch=32, lr=[0.001])
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    params = config.load(root / "params.yaml")
    spec = params.datasets["scenes"].model_dump(exclude_none=True)
    card = shards.write("scenes", spec, root / "data/shards/scenes", workers=1)
    for name in ("other", "small"):
        shards.write(name, params.datasets[name].model_dump(exclude_none=True), root / "data/shards" / name, workers=1)
    for name, run in params.runs.items():
        for seed in run.seeds:
            torch.manual_seed(seed)
            extra = {"card": card} if run.method == "clip" else {}
            method = methods.load(run.method)(nets.build(**run.encoder), **extra)
            info = {"dim": method.encoder.dim, "mean": card["mean"], "std": card["std"], "size": 32}
            encoder.save(root / config.encoders(name) / str(seed), method.parts(), info)
    return root


@pytest.fixture
def here(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody answers there
    return workplace


@pytest.mark.parametrize("protocol", JUDGES)
def test_writes_the_result_of_every_seed(protocol, here):
    evaluate.main([protocol, "tiny-clip"])
    path = here / config.results("tiny-clip") / f"{protocol}.json"
    first = path.read_bytes()
    result = json.loads(first)
    assert (result["run"], result["protocol"], result["interval"]) == ("tiny-clip", protocol, "seeds")
    assert list(result["seeds"]) == ["0", "1"]
    accuracies = [seed["accuracy"] for seed in result["seeds"].values()]
    assert result["accuracy"] == pytest.approx(sum(accuracies) / 2, abs=0.01)
    assert 0 <= result["low"] <= result["accuracy"] <= result["high"] <= 100
    assert all("val_accuracy" in seed for seed in result["seeds"].values()) or protocol == "retrieval"
    evaluate.main([protocol, "tiny-clip"])
    assert path.read_bytes() == first
    assert not list(path.parent.glob("*.part"))


@pytest.mark.parametrize("protocol", JUDGES)
def test_the_choosing_half_never_opens_test(protocol, here):
    """As training judges: there is no test split, neither in tars nor decoded, and the numbers are those of the result."""
    for file in Path("data/shards/scenes").iterdir():
        if not file.name.startswith("test"):
            Path("data/shards/hidden").mkdir(exist_ok=True)
            (Path("data/shards/hidden") / file.name).write_bytes(file.read_bytes())
    found = evals.Data("data/shards/hidden", cache="data/cache_without_test")
    parts = {part: selfsup.load(config.encoders("tiny-clip"), 0, part)
             for part in ("encoder", *getattr(evals.load(protocol), "parts", ()))}
    options = config.protocol(config.load(), protocol)
    options.pop("bootstrap")
    judged = evals.judge(protocol, data=found, **parts, **options)
    assert "test" not in vars(found) and "val" in vars(found)
    evaluate.main([protocol, "tiny-clip"])
    result = json.loads((here / config.results("tiny-clip") / f"{protocol}.json").read_text())["seeds"]["0"]
    assert judged == {"val_accuracy": result.get("val_accuracy", judged["val_accuracy"])}
    with pytest.raises(errors.UserError, match="test-.* is missing"):
        list(found.test.in_order())


def test_one_seed_has_a_bootstrap_interval(here):
    evaluate.main(["knn", "tiny-random"])
    result = json.loads((here / config.results("tiny-random") / "knn.json").read_text())
    assert result["interval"] == "bootstrap" and result["low"] == result["seeds"]["0"]["low"]


@pytest.mark.parametrize("protocol, run, sentence", [
    ("linaer", "tiny-clip", 'unknown protocol "linaer"; did you mean "linear"?'),
    ("knn", "tiny-clap", 'protocols.knn judges no "tiny-clap"; did you mean "tiny-clip"?'),
    ("knn", "tiny-random--small", "tiny-random was trained at 32 pixels and data/shards/small has 16"),
    ("zero_shot", "tiny-random", "has no part 'image_head', only encoder"),
])
def test_what_cannot_be_done_is_one_sentence(protocol, run, sentence, here, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([protocol, run])
    out = capsys.readouterr().err
    assert stopped.value.code == 1 and sentence in out and out.count("error:") == 1 and "Traceback" not in out


def test_places_are_not_judged_where_the_middle_alone_is_seen(here):
    encoders = config.encoders("tiny-random") / "0/encoder.json"
    whole = encoders.read_text()
    column = {"kind": "image", "shape": [3, 32, 32], "dtype": "uint8"}
    encoders.write_text(json.dumps(json.loads(whole) | {"size": 28, "column": column}))
    run, shards = config.run(config.load(), "tiny-random"), Path("data/shards/scenes")
    try:
        assert evaluate.judge("knn", run, 0, shards, {"options": {"k": [5], "temperature": [0.1]}})["accuracy"] > 0
        with pytest.raises(errors.UserError, match="linear_segmentation asks for places in whole.* views have 28 pixels"):
            evaluate.judge("linear_segmentation", run, 0, shards, {"options": {}})
    finally:
        encoders.write_text(whole)


def test_a_missing_encoder_is_said_by_the_script(here):
    (config.encoders("tiny-random") / "0/encoder.json").rename("hidden")
    try:
        command = [sys.executable, REPOSITORY / "pipelines/evaluate.py", "knn", "tiny-random"]
        done = subprocess.run(command, env={"PYTHONPATH": str(REPOSITORY / "ssl")}, capture_output=True, text=True)
    finally:
        Path("hidden").rename(config.encoders("tiny-random") / "0/encoder.json")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: data/encoders/tiny/tiny-random: no encoder here; run `dvc pull`")


def test_a_run_is_judged_on_another_data_set(here):
    evaluate.main(["knn", "tiny-random--other"])
    result = json.loads(Path("data/results/tiny/tiny-random/other/knn.json").read_text())
    assert (result["run"], result["data"]) == ("tiny-random", "other")
    options = config.protocol(config.load(), "knn")
    encoder = selfsup.load(config.encoders("tiny-random"), 0)
    assert result["seeds"]["0"] == dict(evals.run("knn", encoder, evals.Data("data/shards/other"), **options))


@pytest.mark.parametrize("reader", ["resident", "streaming"])
def test_a_run_s_labels_are_all_that_its_judges_see(here, reader):
    """As many as it may see, those of its seed, whatever the labels of the others are; val and test are whole."""
    few = [evals.Data("data/shards/scenes", labels=12, seed=seed, reader=reader) for seed in (0, 0, 1)]
    chosen = [part.train.index.tolist() for part in few]
    assert chosen[0] == chosen[1] != chosen[2] and len(chosen[0]) == 12 and (few[0].train.values["label"] >= 0).all()
    assert len(few[0].val) == len(few[0].test) == 40
    evaluate.main(["knn", "tiny-few"])
    result = json.loads(Path("data/results/tiny/tiny-few/knn.json").read_text())["seeds"]["0"]
    encoder, options = selfsup.load(config.encoders("tiny-few"), 0), config.protocol(config.load(), "knn")
    assert result == dict(evals.run("knn", encoder, few[0], **options))
    assert result != dict(evals.run("knn", encoder, evals.Data("data/shards/scenes"), **options))
