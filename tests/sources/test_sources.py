import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfsup import data, shards, sources
from selfsup.data import images, tars
from selfsup.errors import UserError
from selfsup.sources import torchvision
from tests.data.making import encoded, picture


def jpeg(seed, size=(8, 8)):
    return encoded(picture(seed, size), "JPEG", quality=90)


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def spec(source="folder", root="", **changes):
    common = {"source": source, "size": 8, "val_share": 0.2, "test_share": 0.2, "max_bad": 0.0, **changes}
    return common if source == "digits" else {"root": str(root), **common}


def read(source):
    """{split: [(name, sample), …]}"""
    return {split: list(source.read(split, 0, count)) for split, count in source.counts.items()}


# Image folders


def test_folder_with_splits_and_classes(tmp_path):
    for i in range(30):
        save(tmp_path / "train" / ("cat", "dog")[i % 2] / f"{i}.jpg", jpeg(i))
    for i in range(6):
        save(tmp_path / "test" / "dog" / f"{i}.jpg", jpeg(i))
    save(tmp_path / "train" / "cat" / ".hidden.jpg", b"")
    save(tmp_path / "train" / "cat" / "notes.txt", b"not an image")
    source = sources.open(spec(root=tmp_path))
    found = read(source)
    assert source.classes == ["cat", "dog"] and source.counts["test"] == 6
    assert source.counts["train"] + source.counts["val"] == 30 and source.counts["val"] > 0
    assert all("/train/" in name for name, _ in found["val"]) and all("/test/" in name for name, _ in found["test"])
    for name, sample in sum(found.values(), []):
        assert sample["label"] == source.classes.index(Path(name).parent.name)
        assert sample["image"] == Path(name).read_bytes()


def test_folder_with_a_val_of_its_own(tmp_path):
    for split, count in [("Train", 9), ("validation", 4), ("test", 3)]:
        for i in range(count):
            save(tmp_path / split / "cat" / f"{i}.jpg", jpeg(i))
    assert sources.open(spec(root=tmp_path)).counts == {"train": 9, "val": 4, "test": 3}


def test_folder_of_classes_without_splits(tmp_path):
    for i in range(40):
        save(tmp_path / f"class{i % 4}" / "deeper" / f"{i}.jpg", jpeg(i))
    source = sources.open(spec(root=tmp_path))
    assert source.classes == ["class0", "class1", "class2", "class3"]
    assert sum(source.counts.values()) == 40 and min(source.counts.values()) > 0


def test_flat_folder_has_no_labels(tmp_path):
    for i in range(30):
        save(tmp_path / f"{i}.jpg", jpeg(i))
    source = sources.open(spec(root=tmp_path))
    assert source.classes is None and sum(source.counts.values()) == 30
    assert all("label" not in sample for _, sample in sum(read(source).values(), []))
    card = shards.write("toy", spec(root=tmp_path), tmp_path / "out", workers=1)
    assert card["columns"] == ["image"] and card["classes"] == []


def test_names_of_every_kind(tmp_path):
    """Unicode, dots, one stem in two classes, and with two extensions in one."""
    names = ["猫/é1.jpg", "猫/a.b.c.jpg", "猫/a.jpg", "猫/a.jpeg", "猫/a%2Eb.jpg", "hund/a.jpg", "hund/x y'\".jpg",
             "hund/" + "long" * 50 + ".jpg", "hund/\u202e.jpg", "v1.2/a.jpg"]
    for i, name in enumerate(names):
        save(tmp_path / "raw" / "train" / name, jpeg(i))
        save(tmp_path / "raw" / "test" / name, jpeg(i))
    source = sources.open(spec(root=tmp_path / "raw", val_share=0))
    keys = [sample["key"] for _, sample in read(source)["train"]]
    assert len(set(keys)) == len(names)
    card = shards.write("toy", spec(root=tmp_path / "raw", val_share=0), tmp_path / "out", workers=1)
    groups = dict(tars.groups(tmp_path / "out" / "train-000000.tar"))
    assert set(groups) == set(keys) and card["counts"] == {"train": 10, "val": 0, "test": 10}
    assert {group["jpg"] for group in groups.values()} == {jpeg(i) for i in range(len(names))}
    assert sorted(group["cls"] for group in groups.values()) == [b"0"] * 4 + [b"1"] + [b"2"] * 5
    webdataset = pytest.importorskip("webdataset")
    theirs = webdataset.WebDataset(str(tmp_path / "out" / "train-000000.tar"), shardshuffle=False)
    assert [sample["__key__"] for sample in theirs] == list(groups)


def test_folder_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match='no such folder: .*emty; did you mean "empty"'):
        sources.open(spec(root=tmp_path / "emty"))
    with pytest.raises(UserError, match="no images in .*empty: looked for files ending in jpg"):
        sources.open(spec(root=tmp_path / "empty"))
    with pytest.raises(UserError, match='no source "fodler"; did you mean "folder"'):
        sources.open(spec("fodler"))
    save(tmp_path / "one" / "a.jpg", jpeg(0))
    with pytest.raises(UserError, match="leave nothing to train on"):
        sources.open(spec(root=tmp_path / "one", val_share=0.5, test_share=0.5))


@pytest.mark.parametrize("level, classes", [(1, ["a", "b"]), (2, ["x", "y"])])
def test_which_folder_of_a_nested_tree_is_the_class(tmp_path, level, classes):
    for i in range(40):
        save(tmp_path / "ab"[i % 2] / "xy"[i // 2 % 2] / "deep" / f"{i}.jpg", jpeg(i))
    source = sources.open(spec(root=tmp_path, class_level=level))
    assert source.classes == classes
    for name, sample in sum(read(source).values(), []):
        assert classes[sample["label"]] == Path(name).relative_to(tmp_path).parts[level - 1]


def test_images_beside_class_folders_may_lack_a_label(tmp_path):
    for i in range(60):
        save(tmp_path / (f"{i}.jpg" if i % 3 else f"{'ab'[i % 2]}/{i}.jpg"), jpeg(i))
    with pytest.raises(UserError, match="of 60 samples are unreadable.*lies in no class folder"):
        shards.write("toy", spec(root=tmp_path), tmp_path / "out", workers=1)
    card = shards.write("toy", spec(root=tmp_path, unlabelled=True), tmp_path / "out", workers=1)
    assert card["unlabelled"] == {"train": 40, "val": 0, "test": 0} and card["classes"] == ["a", "b"]
    assert sum(sum(some) for some in card["class_counts"].values()) == 20
    for reader in ("resident", "streaming"):
        split = data.open(tmp_path / "out", "train", reader, cache=tmp_path / "cache")
        labels = torch.cat([part["label"] for part in split.in_order()])
        assert torch.equal(labels, split.numbers("label")) and (labels == -1).sum() == 40
        counts = labels[labels >= 0].bincount(minlength=2)
        assert counts.tolist() == card["class_counts"]["train"] and split.card["counts"]["train"] == len(labels)
    # Both kinds of sample lie in every part of the order of their hashes.
    first = labels[:len(labels) // 2]
    assert (first == -1).any() and (first >= 0).any()


def test_images_of_other_channels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**16, (30, 13, 12, 8), np.uint16)
    for i in range(30):
        either_way = pixels[i].transpose(1, 2, 0) if i % 3 else pixels[i]
        save(tmp_path / "raw" / "ab"[i % 2] / f"{i:02d}.npy", images.npy(either_way))
    card = shards.write("toy", spec(root=tmp_path / "raw", channels=13), tmp_path / "out", workers=1)
    assert card["channels"] == len(card["mean"]) == 13 and card["schema"]["image"] == {
        "kind": "image", "shape": [13, 8, 8], "dtype": "uint16", "picture": False}
    split = data.open(tmp_path / "out", "train", cache=tmp_path / "cache")
    batch = next(split.batches(0, 4, 40))
    assert batch["image"].shape == (4, 13, 8, 8) and batch["image"].dtype == torch.uint16
    keys = [key for entry in split.entries for key, _ in tars.members(split.folder, entry)]
    for i, key in zip(batch["index"].tolist(), batch["image"]):
        assert (key.numpy() == pixels[int(keys[i][-2:]), :, 2:10]).all()
    with pytest.raises(UserError, match="none of the 30 files in .* is an image of 11 channels"):
        sources.open(spec(root=tmp_path / "raw", channels=11))


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_a_limit_keeps_the_first_by_hash(tmp_path, limit):
    for i in range(60):
        save(tmp_path / "raw" / "ab"[i % 2] / f"{i}.jpg", jpeg(i))
    whole, some = (read(sources.open(spec(root=tmp_path / "raw", **extra))) for extra in ({}, {"limit": limit}))
    assert all(some[split] == whole[split][:limit] for split in whole)
    card = shards.write("toy", spec(root=tmp_path / "raw", limit=limit), tmp_path / "out", workers=1)
    assert card["counts"] == {split: min(limit, len(whole[split])) for split in whole}


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_fit_is_the_data_sets(tmp_path, fit):
    for i in range(20):
        save(tmp_path / "raw" / f"{i:02d}.png", encoded(picture(i, (16, 8))))
    plain = shards.write("toy", spec(root=tmp_path / "raw"), tmp_path / "plain", workers=1)
    card = shards.write("toy", spec(root=tmp_path / "raw", fit=fit), tmp_path / "out", workers=1)
    assert card["hash"] != plain["hash"] and card["schema"]["image"]["fit"] == fit
    split = data.open(tmp_path / "out", "train", cache=tmp_path / "cache")
    keys = [key for entry in split.entries for key, _ in tars.members(split.folder, entry)]
    for key, pixels in zip(keys, split.values["image"], strict=True):
        assert (pixels.permute(1, 2, 0).numpy() == images.encode(encoded(picture(int(key), (16, 8))), 8, fit)[2]).all()


def test_keys_of_an_entry():
    with pytest.raises(UserError, match='the source digits has no key "root"'):
        sources.open({"source": "digits", "root": "x", "size": 8, "val_share": 0.1})
    with pytest.raises(UserError, match="the source folder needs the key root"):
        sources.open({"source": "folder", "size": 8, "val_share": 0.1})
    with pytest.raises(UserError, match='the source folder has no key "clas_level"; did you mean "class_level"'):
        sources.open(spec(clas_level=2))


def test_sources_are_the_files_of_their_folder():
    assert {"clusters", "digits", "folder", "parquet", "scenes", "torchvision", "webdataset"} <= set(sources.names())
    for name in sources.names():
        assert callable(sources.load(name).source)


@given(st.sets(st.text(min_size=1, max_size=8), min_size=1), st.floats(0, 0.45), st.floats(0, 0.45))
def test_division_is_complete_and_stable(keys, val, test):
    items = [(key,) for key in keys]
    parts, _ = sources.divide({"train": items}, val, test)
    assert sorted(sum(parts.values(), [])) == sorted(items)
    fewer, _ = sources.divide({"train": items[1:]}, val, test)
    assert all(set(fewer[split]) <= set(parts[split]) for split in parts)


def test_shares_are_kept():
    parts, _ = sources.divide({"train": [(f"{i}",) for i in range(20000)]}, 0.1)
    assert abs(len(parts["val"]) - 2000) < 200 and abs(len(parts["test"]) - 2000) < 200


# Digits and torchvision


def test_digits(tmp_path):
    from sklearn.datasets import load_digits

    card = shards.write("digits", spec("digits", size=16), tmp_path / "out", workers=1)
    assert sum(card["counts"].values()) == 1797 and min(card["counts"].values()) > 0
    assert card["classes"] == list("0123456789")
    key, group = next(iter(tars.groups(tmp_path / "out" / "train-000000.tar")))
    i = int(key.removeprefix("digit-"))
    pixels = images.decode(group["png"], 16)
    assert int(group["cls"]) == load_digits().target[i] and (pixels == pixels[..., :1]).all()
    small = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BOX)
    assert np.corrcoef(np.asarray(small)[..., 0].ravel(), load_digits().images[i].ravel())[0, 1] > 0.95


def write_mnist(root, train=30, test=10):
    """Files of the IDX format as torchvision's MNIST reads them."""
    raw = root / "MNIST" / "raw"
    pixels = np.random.default_rng(0).integers(0, 256, (train + test, 28, 28), np.uint8)
    labels = (np.arange(train + test) % 10).astype(np.uint8)
    for name, some in [("train", slice(train)), ("t10k", slice(train, None))]:
        x, y = pixels[some], labels[some]
        save(raw / f"{name}-images-idx3-ubyte", struct.pack(">iiii", 2051, len(x), 28, 28) + x.tobytes())
        save(raw / f"{name}-labels-idx1-ubyte", struct.pack(">ii", 2049, len(y)) + y.tobytes())
    return pixels, labels


def test_torchvision_grey_with_official_test_split(tmp_path):
    pixels, labels = write_mnist(tmp_path / "raw")
    mnist = spec("torchvision", tmp_path / "raw", dataset="MNIST", size=28)
    card = shards.write("mnist", mnist, tmp_path / "out", workers=1)
    assert card["counts"]["test"] == 10 and card["counts"]["train"] + card["counts"]["val"] == 30
    assert card["counts"]["val"] > 0 and len(card["classes"]) == 10
    for key, group in tars.groups(tmp_path / "out" / "test-000000.tar"):
        i = 30 + int(key.removeprefix("test-"))
        assert int(group["cls"]) == labels[i]
        assert (images.decode(group["png"], 28) == pixels[i][..., None]).all()


def test_torchvision_without_splits(tmp_path):
    fake = spec("torchvision", tmp_path, dataset="FakeData")
    source = sources.open(fake)
    assert sum(source.counts.values()) == 1000 and min(source.counts.values()) > 0 and len(source.classes) == 10
    name, sample = next(source.read("val", 0, 1))
    assert sample["image"].mode == "RGB" and 0 <= sample["label"] < 10


def test_torchvision_unlabelled_images(tmp_path, monkeypatch):
    """Files as torchvision's STL10 reads them."""
    import torchvision.datasets

    folder = tmp_path / "stl10_binary"
    for split, count in [("train", 20), ("test", 5), ("unlabeled", 30)]:
        pixels = np.random.default_rng(count).integers(0, 256, (count, 3, 96, 96), np.uint8)
        save(folder / f"{split}_X.bin", pixels.tobytes())
        save(folder / f"{split}_y.bin", (np.arange(count) % 2 + 1).astype(np.uint8).tobytes())
    save(folder / "class_names.txt", b"cat\ndog\n")
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    stl10 = spec("torchvision", tmp_path, dataset="STL10")
    plain = shards.write("stl10", stl10, tmp_path / "plain", workers=1)
    card = shards.write("stl10", {**stl10, "unlabelled": True}, tmp_path / "out", workers=1)
    assert "unlabelled" not in plain and plain["counts"]["train"] + plain["counts"]["val"] == 20
    assert card["unlabelled"] == {"train": 30, "val": 0, "test": 0} and card["class_counts"] == plain["class_counts"]
    assert card["counts"] == {**plain["counts"], "train": plain["counts"]["train"] + 30}
    with pytest.raises(UserError, match="torchvision's MNIST has no split of unlabelled images"):
        write_mnist(tmp_path)
        sources.open(spec("torchvision", tmp_path, dataset="MNIST", unlabelled=True))


def test_torchvision_splits_of_other_names(tmp_path):
    """VOC says its split by `image_set`, and has no public test."""
    base = tmp_path / "VOCdevkit/VOC2012"
    for folder, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        for i in range(12):
            (base / folder).mkdir(parents=True, exist_ok=True)
            if ending == "jpg":
                Image.new("RGB", (20, 20), (i, 0, 0)).save(base / folder / f"{i}.jpg")
            else:
                (base / folder / f"{i}.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    save(base / "ImageSets/Main/train.txt", "\n".join(map(str, range(8))).encode())
    save(base / "ImageSets/Main/val.txt", "\n".join(map(str, range(8, 12))).encode())
    source = sources.open({**spec("torchvision", tmp_path, dataset="VOCDetection"), "val_share": 0.5})
    assert source.counts["test"] == 4 and source.counts["train"] + source.counts["val"] == 8 and source.classes is None
    assert next(source.read("test", 0, 1))[1]["image"].size == (20, 20)


def test_every_torchvision_class_is_a_source_or_one_sentence(tmp_path):
    import torchvision.datasets

    for name in torchvision.datasets.__all__:
        if name not in ("FakeData", "CarlaStereo"):
            with pytest.raises(UserError):
                sources.open(spec("torchvision", tmp_path, dataset=name))


def test_torchvision_errors(tmp_path):
    with pytest.raises(UserError, match='torchvision has no data set "CIFAR-10"; did you mean "CIFAR10"'):
        sources.open(spec("torchvision", tmp_path, dataset="CIFAR-10"))
    with pytest.raises(UserError, match="could not read torchvision's CIFAR10 .*dvc repro fetch@CIFAR10"):
        sources.open(spec("torchvision", tmp_path, dataset="CIFAR10"))
    with pytest.raises(UserError, match="could not read torchvision's Flowers102 .*dvc repro fetch@Flowers102"):
        sources.open(spec("torchvision", tmp_path, dataset="Flowers102"))
    for name, wanted in (("CocoCaptions", "annFile"), ("Flickr8k", "ann_file"), ("DatasetFolder", "loader"),
                         ("PhotoTour", "name"), ("HMDB51", "annotation_path, frames_per_clip")):
        with pytest.raises(UserError, match=f"torchvision's {name} wants more than a root: {wanted}; lay its images out"):
            sources.open(spec("torchvision", tmp_path, dataset=name))
    with pytest.raises(UserError, match="EMNIST has no training split .*byclass"):
        sources.open(spec("torchvision", tmp_path, dataset="EMNIST"))
    for name in ("VisionDataset", "wrap_dataset_for_transforms_v2"):
        with pytest.raises(UserError, match="torchvision has no data set"):
            sources.open(spec("torchvision", tmp_path, dataset=name))
    with pytest.raises(UserError, match="torchvision cannot download ImageNet"):
        torchvision.splits("ImageNet", tmp_path, download=True)


def test_webdataset_errors(tmp_path):
    save(tmp_path / "000.tar", bytes(10240))
    for urls, words in [("{000..001}.tar", 'no such tar: .*001.tar; did you mean "000.tar"'),
                        ("*.tgz", "no file matches"), ("000.tar", "no images in .*000.tar")]:
        with pytest.raises(UserError, match=words):
            shards.write("toy", spec("webdataset", tmp_path, urls=urls), tmp_path / "out", workers=1)
