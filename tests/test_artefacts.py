"""What a colleague shares is data: tampered or damaged files are one sentence, and nothing in them is run or fetched."""

import copy
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import selfsup
from selfsup import artefacts, cli, compare, config, encoder, nets
from selfsup.errors import UserError

INFO = {"dim": 64, "mean": [0.5] * 3, "std": [0.25] * 3, "size": 16, "run": "tiny-a", "seed": 0, "method": "simclr",
        "data": {"name": "tiny", "hash": "d" * 64}, "args": {}, "train": {"lr": 0.001}, "images": 64, "steps": 2,
        "code": "c" * 64, "classes": ["a", "b"]}
CARD = {"name": "tiny", "size": 16, "columns": ["image", "label"], "classes": ["a", "b"], "counts": {"train": 3},
        "shards": {"train": [{"file": "train-000000.tar", "count": 3}]}, "mean": [0.5] * 3, "std": [0.25] * 3,
        "hash": "d" * 64, "schema": {"image": {"kind": "image", "shape": [3, 16, 16], "dtype": "uint8"}}}
RESULT = {"run": "tiny-a", "protocol": "knn", "accuracy": 40.0, "low": 30.0, "high": 50.0,
          "seeds": {"0": {"accuracy": 40.0, "low": 30.0, "high": 50.0, "k": 5}}}
COSTS = {"seeds": {"0": {"seconds": 2.5, "images": 64, "steps": 2, "device": "cpu", "weights": "e" * 64}}}
HOSTILE = st.sampled_from([None, True, "x", 'x"""\nopen("PWNED", "w")\n"""', "../../../x", -1, 0, 2**70, float("nan"),
                           float("inf"), [], [None], {}, {"x": 1}, [[1]], "\ud800", "é" * 5000])  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def saved(run="tiny-a", seed=0):
    folder = config.encoders(run) / str(seed)
    encoder.save(folder, {"encoder": nets.build("convnet", width=4)}, {**INFO, "run": run, "seed": seed})
    (folder / "history.jsonl").write_text('{"images": 32, "loss": 1.0}\n')
    return folder


def paths(content, at=()):
    """The place of every value of a JSON document."""
    yield at
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from paths(value, (*at, key))


def spoilt(content, path, value):
    if not path:
        return value
    content = copy.deepcopy(content)
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return content


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_an_encoder_says_it_is_loaded_or_one_sentence(data):
    folder = config.encoders("tiny-a") / "0"
    if not folder.exists():
        saved()
        Path("encoder.json").write_text((folder / "encoder.json").read_text())
    good = json.loads(Path("encoder.json").read_text())
    path = data.draw(st.sampled_from([*paths(good)]))
    (folder / "encoder.json").write_text(json.dumps(spoilt(good, path, data.draw(HOSTILE))))
    try:
        net = selfsup.load(folder)
        net(torch.zeros(1, 3, 16, 16))
        compare.side(folder)
    except UserError as error:
        assert "\n" not in str(error)
    assert not Path("PWNED").exists() and "\n" not in artefacts_run(folder)


def artefacts_run(folder):
    """What a file that is named after the run would be called."""
    try:
        return artefacts.encoder(folder).get("run", "")
    except UserError:
        return ""


@pytest.mark.parametrize("content, schema, path, value", [
    (CARD, artefacts.Card, ("counts", "train"), "3"), (CARD, artefacts.Card, ("counts", "train"), -3),
    (CARD, artefacts.Card, ("std",), [0.25, 0.0, 0.25]), (CARD, artefacts.Card, ("shards", "train"), {}),
    (CARD, artefacts.Card, ("shards", "train", 0, "file"), 3), (CARD, artefacts.Card, ("size",), True),
    (CARD, artefacts.Card, ("classes",), "ab"), (CARD, artefacts.Card, ("name",), "../x"),
    (RESULT, artefacts.Result, ("accuracy",), "40"), (RESULT, artefacts.Result, ("accuracy",), float("nan")),
    (RESULT, artefacts.Result, ("seeds", "0", "low"), None), (RESULT, artefacts.Result, ("seeds",), []),
    (COSTS, artefacts.Costs, ("seeds", "0", "seconds"), "long"), (COSTS, artefacts.Costs, ("seeds",), None),
    (COSTS, artefacts.Costs, ("seeds", "0", "weights"), "none"),
])  # fmt: skip
def test_a_value_of_a_wrong_type_is_one_sentence_that_names_its_place(content, schema, path, value):
    Path("a.json").write_text(json.dumps(content))
    assert artefacts.read("a.json", schema, "get it again") == content
    Path("a.json").write_text(json.dumps(spoilt(content, path, value)))
    with pytest.raises(UserError, match=r"a.json is damaged \(.*; get it again") as caught:
        artefacts.read("a.json", schema, "get it again")
    assert ".".join(map(str, path)) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"seeds": {"0": {"accuracy": 40.0', "[]", "NaN", "[" * 100000, "\xff"])
def test_a_file_cut_short_is_one_sentence_with_its_remedy(text):
    Path("knn.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="knn.json is damaged.*git or `dvc repro`"):
        artefacts.result("knn.json")
    Path("history.jsonl").write_bytes(b'{"images": 32, "loss": 1.0}\n' + (text.encode("latin-1") or b"{") + b"\n")
    with pytest.raises(UserError, match="history.jsonl is damaged.*`dvc checkout --force` or `dvc pull`"):
        artefacts.rows("history.jsonl")


@pytest.mark.parametrize("run", ['x"""\nopen("PWNED", "w")\nx = """', "../../../x", "/x", "", "a b"])
def test_a_run_that_is_no_name_is_exported_nowhere(run, capsys):
    folder = saved()
    info = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**info, "run": run}))
    before = sorted(Path().rglob("*"))
    with pytest.raises(SystemExit):
        cli.main(["export", str(folder), "--to", "onnx"])
    assert "encoder.json is damaged (run" in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_others_may_read_what_is_shared():
    before = os.umask(0o027)
    try:
        folder = saved()
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "weights.safetensors").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_not_permitted_is_not_damaged(tmp_path):
    folder = saved()
    for part in (tmp_path, *tmp_path.parents[:3]):
        part.chmod(0o755)
    (folder / "weights.safetensors").chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(Exception) as caught:
            selfsup.load(folder)
    finally:
        os.seteuid(0)
    from selfsup.errors import explain

    assert "no permission for" in explain(caught.value) and "damaged" not in explain(caught.value)


def test_weights_are_held_to_the_hash_in_the_results(capsys):
    Path("dvc.yaml").touch()
    folder = saved()
    costs = config.results("tiny-a") / "cost.json"
    costs.parent.mkdir(parents=True)
    costs.write_text(json.dumps({"seeds": {"0": {"weights": artefacts.sha256(folder / "weights.safetensors")}}}))
    selfsup.load(folder)
    assert capsys.readouterr().err == ""
    torch.manual_seed(1)
    saved()  # as long, and other weights
    with pytest.raises(UserError, match="is not what .*cost.json says that was trained"):
        selfsup.load(folder)


def test_an_encoder_from_elsewhere_is_loaded_with_a_word(capsys):
    folder = saved()
    selfsup.load(folder)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "vouch" in said
