"""Trainings on data without images: each signal from shards to an encoder folder, killed and started again."""

import numpy as np
import pytest

import selfsup
from selfsup import evals, shards, sources
from selfsup.data.columns import Array, Number, Sound, Text, picture
from selfsup.errors import UserError
from selfsup.sources import Source
from tests.data.test_columns import noise
from tests.test_train import Killer, content, make_run, pretrain, rows_of

KINDS = [Text("text"), Sound("sound", (1, 400), rate=4000), Array("points", (2, 30, 3)), Number("label"), picture(8)]
RUNS = {
    "next_token": {"name": "token_lstm", "dim": 8, "depth": 1},
    "masked_token": {"name": "token_transformer", "dim": 16, "depth": 1, "heads": 2},
    "elmo": {"name": "token_lstm", "dim": 8, "directions": 2},
    "word2vec": {"name": "word_vectors", "dim": 8},
    "audio_visual": {"name": "convnet", "width": 2},
    "sound": {"name": "sound_convnet", "mels": 16, "width": 2},
    "points": {"name": "pointnet", "width": 2, "neighbours": 4},
    "voxels": {"name": "voxel_convnet", "grid": 8, "width": 2},
}


def value(name, i):
    if name == "text":
        return " ".join("abcdefgh"[(i * k + i // 3) % 8] * 3 for k in range(6 + i % 5))
    if name == "label":
        return i % 2
    if name == "sound":
        return noise(i, (1, 400), np.int16)
    if name == "image":
        return noise(i, (8, 8, 3), np.uint8)
    return noise(i, (2, 30, 3), np.float32) * np.float32([1, 1, 0.1 + i % 2])


def read(split, start, stop):
    for i in range(start, stop):
        yield f"{i}", {"key": f"{split}-{i:03d}", **{column.name: value(column.name, i) for column in KINDS}}


@pytest.fixture
def signals(tmp_path, monkeypatch):
    source = Source("", dict(zip(sources.SPLITS, (40, 16, 16))), read, KINDS, ["a", "b"])
    monkeypatch.setattr(sources, "open", lambda spec: source)
    shards.write("toy", {"source": "made", "size": 8, "max_bad": 0}, tmp_path / "shards", workers=1)
    return tmp_path / "shards"


def run_of(name, **changes):
    method = name if name in ("next_token", "masked_token", "elmo", "word2vec", "audio_visual") else "supervised"
    args = {"mels": 16, "width": 2} if name == "audio_visual" else {}
    return make_run(method, encoder=RUNS[name], args=args, images=80, batch=8, **changes)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("reader", ["resident", "streaming"])
def test_a_killed_run_of_any_signal_ends_with_the_same_bytes(name, reader, signals, tmp_path):
    run = run_of(name, reader=reader)
    if run.method == "supervised" and reader == "streaming":
        pytest.skip("its order is of labelled samples, which the streaming reader does not know")
    whole, _ = pretrain(run, signals, tmp_path / "whole")
    for at in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            pretrain(run, signals, tmp_path / "killed", Killer(at))
    resumed, cost = pretrain(run, signals, tmp_path / "killed")
    assert content(resumed) == content(whole)
    assert cost["steps"] == 10 and cost["flops_per_image"] > 0 or name == "word2vec"
    assert "val_loss" in rows_of(resumed, "history")[-1]
    net = selfsup.load(resumed)
    judged = evals.Data(signals, cache=tmp_path / "cache")
    said = dict(evals.run("knn", net, judged, 10, k=[3], temperature=[0.1]))
    assert 0 <= said["accuracy"] <= 100


def test_a_column_that_the_data_lack_is_named_before_training(signals, tmp_path):
    run = make_run("clip", encoder={"name": "convnet", "width": 4}, args={})
    with pytest.raises(UserError, match="clip needs the column 'caption'"):
        pretrain(run, signals, tmp_path)
