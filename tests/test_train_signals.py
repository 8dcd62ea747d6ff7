"""Trainings on data without images: each signal from shards to an encoder folder, killed and started again."""

import numpy as np
import pytest

import selfsup
from selfsup import evals, shards, sources
from selfsup.data.columns import Array, Frames, Number, Sound, Text, picture
from selfsup.errors import UserError
from selfsup.sources import Source
from tests.data.test_columns import noise
from tests.test_train import Killer, content, make_run, pretrain, rows_of

KINDS = [Text("text"), Sound("sound", (1, 400), rate=4000), Array("points", (2, 30, 3)), Number("label"), picture(16)]
RUNS = {
    "next_token": {"name": "token_lstm", "dim": 8, "depth": 1},
    "masked_token": {"name": "token_transformer", "dim": 16, "depth": 1, "heads": 2},
    "elmo": {"name": "token_lstm", "dim": 8, "directions": 2},
    "word2vec": {"name": "word_vectors", "dim": 8},
    "audio_visual": {"name": "convnet", "width": 2},
    "sound": {"name": "sound_convnet", "mels": 16, "width": 2},
    "points": {"name": "pointnet", "width": 2, "neighbours": 4},
    "voxels": {"name": "voxel_convnet", "grid": 8, "width": 2},
    "depth_contrast": {"name": "pointnet", "width": 2, "neighbours": 4},
}
ARGS = {"audio_visual": {"mels": 16, "width": 2},
        "depth_contrast": {"hidden": 8, "hidden_voxels": 8, "dim": 4, "queue": 16, "grid": 8, "width": 2}}
FILMS = [picture(16), Frames("frames", (3, 3, 16, 16)), Array("pose", (3, 4)), Number("label")]


def value(name, i):
    if name == "text":
        return " ".join("abcdefgh"[(i * k + i // 3) % 8] * 3 for k in range(6 + i % 5))
    if name == "label":
        return i % 2
    if name == "sound":
        return noise(i, (1, 400), np.int16)
    if name in ("image", "frames"):
        return list(noise(i, (3, 16, 16, 3), np.uint8)) if name == "frames" else noise(i, (16, 16, 3), np.uint8)
    if name == "pose":
        return noise(i, (3, 4), np.float32) * np.float32(0.03)
    return noise(i, (2, 30, 3), np.float32) * np.float32([1, 1, 0.1 + i % 2])


def written(folder, monkeypatch, kinds):
    """Shards of 40, 16 and 16 samples with the columns `kinds`."""
    def read(split, start, stop):
        for i in range(start, stop):
            yield f"{i}", {"key": f"{split}-{i:03d}", **{column.name: value(column.name, i) for column in kinds}}

    source = Source("", dict(zip(sources.SPLITS, (40, 16, 16))), read, kinds, ["a", "b"])
    monkeypatch.setattr(sources, "open", lambda spec: source)
    shards.write("toy", {"source": "made", "size": 16, "max_bad": 0}, folder, workers=1)
    return folder


@pytest.fixture
def signals(tmp_path, monkeypatch):
    return written(tmp_path / "shards", monkeypatch, KINDS)


def run_of(name, **changes):
    method = "supervised" if name in ("sound", "points", "voxels") else name
    return make_run(method, encoder=RUNS[name], args=ARGS.get(name, {}), images=80, batch=8, **changes)


@pytest.mark.parametrize("name, reader", [*((name, "resident") for name in RUNS),
                                          *((name, "streaming") for name in ("next_token", "audio_visual", "depth_contrast"))])
def test_a_killed_run_of_any_signal_ends_with_the_same_bytes(name, reader, signals, tmp_path):
    run = run_of(name, reader=reader)
    resumed, cost = killed(run, signals, tmp_path)
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


def killed(run, shards, tmp_path):
    """The encoder folder of a run that was killed in its second epoch, the same as of one that was not, and its cost."""
    whole, _ = pretrain(run, shards, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(run, shards, tmp_path / "killed", Killer(7))
    resumed, cost = pretrain(run, shards, tmp_path / "killed")
    assert content(resumed) == content(whole)
    return resumed, cost


@pytest.mark.parametrize("reader", ["resident", "streaming"])
def test_a_killed_run_of_films_ends_with_the_same_bytes(reader, tmp_path, monkeypatch):
    films = written(tmp_path / "shards", monkeypatch, FILMS)
    run = make_run("egomotion", encoder={"name": "convnet", "width": 2}, args={"hidden": 8, "bins": 5}, images=80, batch=8,
                   reader=reader)  # fmt: skip
    resumed, _ = killed(run, films, tmp_path)
    assert "val_accuracy_majority" in rows_of(resumed, "history")[-1]


@pytest.mark.parametrize("method, args, batch", [
    ("prototypical", {"ways": 3, "shots": 2, "queries": 5}, 42), ("maml", {"ways": 2, "shots": 1, "queries": 2}, 12),
    ("supervised", {}, 32)])
def test_who_trains_on_episodes_is_killed_started_again_and_held_to_new_classes(method, args, batch, tmp_path):
    """Groups larger than what is counted of a step are counted whole; a classifier of base classes has no val_loss."""
    spec = {"source": "glyphs", "size": 16, "train": 60, "val": 30, "test": 30, "seed": 0, "classes": 12, "max_bad": 0}
    shards.write("toy", spec, tmp_path / "shards", workers=1)
    encoder = {"name": "convnet", "width": 2, "norm": "group"}
    run = make_run(method, encoder=encoder, args=args, images=10 * batch, batch=batch)
    resumed, cost = killed(run, tmp_path / "shards", tmp_path)
    assert cost["steps"] == 10 and cost["flops_per_image"] > 0
    assert ("val_loss" in rows_of(resumed, "history")[-1]) == (method != "supervised")
    info = selfsup.load(resumed).info
    further = {"maml": {"initial"}, "supervised": {"classifier"}}
    assert set(info["parts"]) == {"encoder"} | further.get(method, set())
