"""The source `clusters`: another data set's samples with a column from an encoder trained on it."""
import json

import numpy as np
import pytest
import torch

from selfsup import data, encoder, nets, shards
from selfsup.core import cluster
from selfsup.data import tars
from selfsup.errors import UserError

SCENES = dict(source="scenes", size=16, train=30, val=10, test=10, seed=0, max_bad=0)


def teach(folder, card):
    """An encoder folder as training leaves it, random weights in it."""
    torch.manual_seed(0)
    net = nets.build("convnet", width=4)
    info = {"mean": card["mean"], "std": card["std"], "size": card["size"]}
    encoder.save(folder, {"encoder": net}, {**info, "data": {"name": card["name"], "hash": card["hash"]}})
    return net.eval()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with the data set `plain`, a teacher of it, and the spec of its clusters."""
    monkeypatch.chdir(tmp_path)
    card = shards.write("plain", SCENES, "data/shards/plain", workers=1)
    teach("data/encoders/e/e-teacher/0", card)
    return dict(source="clusters", root="data/encoders/e/e-teacher/0", data="plain", clusters=4, size=16, max_bad=0)


def everything(name, reader, split="train"):
    return next(iter(data.open(f"data/shards/{name}", split, reader).in_order(100)))


@pytest.mark.parametrize("reader", ["resident", "streaming"])
def test_the_same_samples_with_a_further_column(project, reader):
    card = shards.write("fit", project, "data/shards/fit", workers=1)
    plain = tars.card_of("data/shards/plain")
    assert card["columns"] == [*plain["columns"], "cluster"] and card["clusters"] == 4 and "clusters" not in plain
    assert card["source"] == "clusters of plain by data/encoders/e/e-teacher/0"
    for key in ("classes", "counts", "mean", "std", "size", "vocabulary", "caption_length", "licence"):
        assert card[key] == plain[key]
    for split in ("train", "val", "test"):
        a, b = everything("plain", reader, split), everything("fit", reader, split)
        assert b.pop("cluster").dtype == torch.int64 and a.keys() == b.keys()
        assert all(torch.equal(a[column], b[column]) for column in a)
        for one, two in zip(plain["shards"][split], card["shards"][split], strict=True):
            one, two = (list(tars.members(f"data/shards/{name}", e)) for name, e in (("plain", one), ("fit", two)))
            for (key, before), (same, after) in zip(one, two, strict=True):
                assert key == same and after.pop("cluster.cls").isdigit() and before == after  # "json" too


def test_clusters_are_kmeans_of_unit_features_and_the_nearest_of_its_centroids(project):
    shards.write("fit", project, "data/shards/fit", workers=1)
    card = tars.card_of("data/shards/plain")
    net = encoder.load(project["root"])
    unit = {}
    for split in ("train", "val", "test"):
        x = everything("plain", "resident", split)["image"].double() / 255
        x = (x - torch.tensor(card["mean"]).view(3, 1, 1)) / torch.tensor(card["std"]).view(3, 1, 1)
        with torch.no_grad():
            feature = net(x.float()).numpy().astype(np.float64)
        unit[split] = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    labels, centroids = cluster.kmeans(torch.tensor(unit["train"]).float(), 4)
    assert torch.equal(everything("fit", "resident")["cluster"], labels) and len(labels.unique()) == 4
    for split in ("val", "test"):
        distance = np.linalg.norm(unit[split][:, None] - centroids.numpy()[None], axis=2)
        assert everything("fit", "resident", split)["cluster"].tolist() == distance.argmin(1).tolist()


def test_same_bytes_with_more_workers_and_another_hash_than_the_original(project):
    cards = [shards.write("fit", project, f"data/shards/fit{workers}", workers) for workers in (1, 2)]
    assert cards[0] == cards[1] and cards[0]["hash"] != tars.card_of("data/shards/plain")["hash"]


def test_existing_tars_of_which_some_samples_are_skipped(tmp_path, monkeypatch):
    """Splits carved out of one pool, unlabelled, captioned: positions are those of the split, not of the tar."""
    from tests.data.making import img2dataset, tar_spec, write_tar

    monkeypatch.chdir(tmp_path)
    img2dataset(tmp_path / "raw")
    write_tar(tmp_path / "raw/00002.tar", [("x1", {"jpg": b"no image", "txt": b"nothing"})])
    plain = shards.write("plain", tar_spec("raw", max_bad=0.1), "data/shards/plain", workers=1)
    teach("teacher", plain)
    spec = dict(source="clusters", root="teacher", data="plain", clusters=3, size=8, max_bad=0)
    card = shards.write("fit", spec, "data/shards/fit", workers=1)
    assert card["counts"] == plain["counts"] and card["columns"] == ["image", "caption", "cluster"] and not card["classes"]
    for split in ("train", "val", "test"):
        a, b = everything("plain", "streaming", split), everything("fit", "streaming", split)
        assert (a["image"].float() - b["image"].float()).abs().max() == 0 and torch.equal(a["caption"], b["caption"])


def test_mistakes_are_one_sentence(project):
    def refused(words, **changes):
        with pytest.raises(UserError, match=words):
            shards.write("fit", {**project, **changes}, "data/shards/fit")

    refused("no encoder here; run `dvc pull` or `dvc repro`", root="data/encoders/e/e-nobody/0")
    refused("no such data set: data/shards/plane", data="plane")
    refused("size should be that, not 32", size=32)
    refused("30 training images cannot make 31 clusters", clusters=31)
    shards.write("other", {**SCENES, "seed": 1}, "data/shards/other", workers=1)
    refused("was trained on the data set plain, not on data/shards/other", data="other")
    path = f"{project['root']}/encoder.json"
    info = json.loads(open(path).read())
    info["data"]["hash"] = "0"
    open(path, "w").write(json.dumps(info))
    refused("was trained on another version of plain")
