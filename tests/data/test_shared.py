"""Hashes of decoded images, and how many of one split stand in another."""

import hashlib

import numpy as np
import pytest

from selfsup import data, shards
from selfsup.data import tars
from tests.data.making import encoded, folder_spec, img2dataset, picture, tar_spec


def folder(root, numbers, split="train"):
    for i in numbers:
        path = root / split / "cat" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i)))
    return root


def test_images_of_a_test_set_that_stand_in_the_training_shards(tmp_path):
    folder(tmp_path / "a", range(30))
    folder(tmp_path / "b", range(100, 110))
    folder(tmp_path / "b", [5, 6, 200, 201, 7], "test")
    for name in "ab":
        spec = folder_spec(tmp_path / name, val_share=0.0, test_share=0.0)
        shards.write(name, spec, tmp_path / f"out_{name}", workers=1)
    a, b = tmp_path / "out_a", tmp_path / "out_b"
    assert data.shared(b, "test", a, "train") == 3 and data.shared(a, "train", b, "test") == 3
    assert data.shared(b, "train", a, "train") == 0 and data.shared(a, "train", a, "train") == 30


@pytest.mark.parametrize("existing", [False, True])
def test_hashes_are_of_pixels_in_split_order(tmp_path, existing, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 7)
    raw = tmp_path / "raw"
    spec = tar_spec(img2dataset(raw, tars=3)) if existing else folder_spec(folder(raw, range(60)))
    card = shards.write("toy", spec, tmp_path / "out", workers=2)
    for split, count in card["counts"].items():
        hashes = np.load(tars.hashes_of(tmp_path / "out", split))
        assert hashes.dtype == np.uint64 and len(set(hashes.tolist())) == count == len(hashes)
        opened = data.open(tmp_path / "out", split, "resident", cache=tmp_path / "cache", columns=["image"])
        assert len(opened) == count
        for found, pixels in zip(hashes.tolist(), opened.values["image"].numpy(), strict=True):
            assert found == int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "big")


def test_what_is_unknown_is_none(tmp_path):
    folder(tmp_path / "a", range(30))
    for name, size in (("small", 8), ("large", 16), ("old", 8)):
        shards.write(name, folder_spec(tmp_path / "a", size=size), tmp_path / name, workers=1)
    tars.hashes_of(tmp_path / "old", "train").unlink()
    assert data.shared(tmp_path / "small", "test", tmp_path / "large", "train") is None
    assert data.shared(tmp_path / "small", "test", tmp_path / "old", "train") is None
    assert len(data.open(tmp_path / "old", "train", cache=tmp_path / "cache")) > 0  # shards from before stay readable
