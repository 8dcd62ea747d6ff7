"""Which split a path says, and what else lies under root: nothing is guessed, nothing is lost without a word."""

import os
from pathlib import Path

import pytest

from selfsup import embed, shards, sources
from selfsup.errors import UserError
from selfsup.sources import folder
from tests.data.making import encoded, folder_spec, picture, tar_spec, write_tar


def tree(root, *files):
    """An image each of its own at the paths; {a:5}.png stands for a0.png … a4.png."""
    number = 0
    for pattern in files:
        before, brace, rest = pattern.partition("{")
        stem, _, after = rest.partition("}")
        count = int(stem or 1)
        for i in range(count):
            path = root / (f"{before}{i}{after}" if brace else pattern)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(number)))
            number += 1
    return root


@pytest.mark.parametrize("path, split", [
    ("train-000.tar", "train"), ("imagenet1k-validation-00.tar", "val"), ("test/0.tar", "test"),
    ("a/VAL2017.tar", "val"),
    ("coco_train2014_3.tar", "train"), ("dev.tar", "val"), ("testing_1.tar", "test"), ("latest.tar", None),
    ("contest/trainer.tar", None), ("bullettrain.tar", None), ("détest.tar", None), ("000.tar", None),
])
def test_a_word_of_a_path_says_its_split(path, split):
    assert sources.said(path) == ({split} - {None})


@pytest.mark.parametrize("names, found", [
    (["a-train-0.tar", "a-validation-0.tar"], ["train", "val"]),
    (["train/0.tar", "test/0.tar", "train/1.tar"], ["test", "train", "train"]),
    (["0.tar", "1.tar"], ["train", "train"]),
    (["s3://test-bucket/data/train/0.tar", "s3://test-bucket/data/val/0.tar"], ["train", "val"]),
    (["https://test.org/0.tar?split=test"], ["train"]),
])
def test_files_say_their_splits(names, found):
    assert [split for _, split in sources.split_files(names, "tars", ".")] == found


@pytest.mark.parametrize("names, words", [
    (["train-0.tar", "extra.tar"], "extra.tar: nothing in its name or folder says.*train-0.tar says train: name all"),
    (["train/test-0.tar"], "train/test-0.tar says more than one split, test and train"),
    (["val-0.tar", "test-0.tar"], "none of the 2 tars is for training: val-0.tar says val"),
])
def test_a_split_is_not_guessed(names, words):
    with pytest.raises(UserError, match=words):
        sources.split_files(names, "tars", ".")


def test_tars_whose_split_stands_anywhere_are_not_carved(tmp_path):
    (tmp_path / "raw").mkdir()
    for split, count in (("train", 40), ("validation", 30)):
        write_tar(tmp_path / f"raw/imagenet1k-{split}-00.tar",
                  [(f"{split}{i}", {"png": encoded(picture(hash_of(split, i)))}) for i in range(count)])
    card = shards.write("toy", tar_spec(tmp_path / "raw", test_share=0.0), tmp_path / "out", workers=1)
    assert card["counts"] == {"train": 40, "val": 30, "test": 0}


def hash_of(split, i):
    return i + 1000 * len(split)


# Image folders


def opened(root, **changes):
    """{split: {path below root: class or None}}, and what was skipped."""
    source = sources.open(folder_spec(root, val_share=0.0, test_share=0.0, **changes))
    found = {split: {str(Path(path).relative_to(root)): sample if not isinstance(sample, dict) else
                     source.classes[sample["label"]] if "label" in sample else None
                     for path, sample in source.read(split, 0, source.counts[split])} for split in sources.SPLITS}
    return {split: some for split, some in found.items() if some}, source.skipped


@pytest.mark.parametrize("files, found", [
    (["train2017/a/1.png", "val2017/a/2.png"], {"train": ["a"], "val": ["a"]}),
    (["images/train/a/1.png", "images/dev/a/2.png"], {"train": ["images"], "val": ["images"]}),
    (["bottle/train/good/1.png", "bottle/test/bad/2.png", "nut/train/good/3.png"],
     {"train": ["bottle", "nut"], "test": ["bottle"]}),
    (["coco_train/a/1.png", "coco_val/a/2.png"], {"train": ["a"], "val": ["a"]}),
    (["train/train/1.png", "train/bus/2.png"], {"train": ["bus", "train"]}),
    (["train/train/a/1.png", "test/test/a/2.png"], {"train": ["a"], "test": ["a"]}),
    (["bullet_train/1.png", "freight_train/2.png", "bus/3.png"], {"train": ["bullet_train", "bus", "freight_train"]}),
    (["a/train/1.png", "a/bus/2.png", "b/cat/3.png"], {"train": ["a", "b"]}),
    (["a/train_1.png", "a/val_2.png", "b/COCO_train2014_3.png"], {"train": ["a", "b"], "val": ["a"]}),
    (["a/train.png", "a/test.png", "a/x.png", "a/y.png", "b/z.png"], {"train": ["a", "b"]}),
])
def test_splits_of_folders(tmp_path, files, found):
    splits, skipped = opened(tree(tmp_path, *files))
    assert {split: sorted(set(some.values())) for split, some in splits.items()} == found and not skipped
    assert sum(map(len, splits.values())) == len(files)


@pytest.mark.parametrize("files, words", [
    (["bus/1.png", "car/2.png", "train/3.png"],
     "the folder train says train, but others beside it say no split [(]bus, car[)]: if train is a class"),
    (["test/1.png", "a/2.png"], "the folder test says test, but others beside it say no split [(]a[)]"),
    (["test/1.png", "val/2.png"], "the folder test says test, but none says train"),
    (["a/train/1.png", "a/val/2.png", "b/3.png"], "train says train, but others beside it say no split [(]b[)]"),
    (["a/train/1.png", "a/val/2.png", "b/c/3.png"], "others beside it say no split [(]b/c[)]"),
    (["train/a/1.png", "training/a/2.png"], "the folders train and training both say train"),
    (["train/1.png", "val/1.png", "valid/2.png"], "the folders val and valid both say val"),
    (["train/train/1.png", "train/val/2.png"], "train/val/2.png: its folders say more than one split"),
    (["train_a/1.png", "test_a/2.png", "train_b/3.png"], "both say train"),
    (["train_1.png", "val_2.png", "cover.png"],
     "most files' names say a split, as train_1.png does, but cover.png says none"),
])
def test_partial_or_conflicting_evidence_is_an_error(tmp_path, files, words):
    with pytest.raises(UserError, match=words):
        opened(tree(tmp_path, *files))


def test_whatever_else_lies_there_is_named_in_one_line(tmp_path, capsys):
    root = tree(tmp_path / "raw", "train2017/a/{20}.png", "test/a/x.png", "test/b.png", "unlabeled/{3}.png", "a.png")
    for name in ("train2017/raw/1.heic", "train2017/raw/2.HEIC", "train2017/a/no", "annotations/{}.json", ".DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "train2017/c").mkdir()
    os.mkfifo(root / "train2017/a/pipe.jpg")
    os.mkfifo(root / "train2017/pipe")
    (root / "train2017/again").symlink_to(root / "train2017/a")
    (root / "train2017/self").symlink_to(root)
    _, skipped = opened(root)
    assert skipped == ["1 folder of no split (unlabeled: 3 images)", "1 image in no split's folder",
                       "2 files without an ending", "2 files ending in .heic", "1 file ending in .json",
                       "1 hidden name", "2 links to a folder of root itself", "1 empty folder",
                       "2 folders without an image (annotations, train2017/raw)"]
    shards.write("toy", folder_spec(root, max_bad=0.1), tmp_path / "out", workers=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "toy: skipped: " in line]
    assert len(lines) == 1 and all(words in lines[0] for words in skipped)


# What DVC does not see


def test_links_to_folders_elsewhere_are_refused(tmp_path):
    tree(tmp_path / "elsewhere", "1.png")
    root = tree(tmp_path / "raw", "a/1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    for changes in ({}, {"source": "torchvision", "dataset": "FakeData"}, {"source": "parquet"}):
        with pytest.raises(UserError, match="raw/b leads to .*elsewhere, outside .*, where DVC does not look.*cp -rl"):
            sources.open(folder_spec(root, **changes))
    write_tar(tmp_path / "elsewhere/0.tar", [("a", {"png": encoded(picture(0))})])
    for urls in ("b/0.tar", "*/*.tar", "../elsewhere/0.tar", str(tmp_path / "elsewhere/0.tar")):
        with pytest.raises(UserError, match="outside .*raw, where DVC does not look"):
            sources.open(tar_spec(root, urls=urls))
    assert folder.files(root) == ["a/1.png", "b/1.png"] == embed.find(root)  # which depends on no DVC


def test_root_itself_and_files_may_be_links(tmp_path):
    real = tree(tmp_path / "real", "a/1.png")
    tree(tmp_path, "other.png")
    (real / "a/2.png").symlink_to(tmp_path / "other.png")
    (tmp_path / "raw").symlink_to(real)
    found, skipped = opened(tmp_path / "raw")
    assert found == {"train": {"a/1.png": "a", "a/2.png": "a"}} and not skipped


def test_a_link_to_the_folder_itself_ends(tmp_path):
    root = tree(tmp_path / "raw", "a/{40}.png")
    (root / "a/loop").symlink_to(root)
    (root / "b").symlink_to(root / "a")
    found, skipped = opened(root)
    assert len(found["train"]) == 40 and skipped == ["2 links to a folder of root itself"]
    assert len(folder.files(root)) == 40


@pytest.mark.parametrize("spoil, words", [
    (lambda root: (root / "a/x.png").symlink_to("nowhere"),
     "a/x.png is a link to nothing [(]nowhere[)].*find .* -xtype l -delete"),
    (lambda root: (root / "a/x.txt").symlink_to("nowhere"), "a/x.txt is a link to nothing"),
    (lambda root: open(os.fsencode(root) + b"/a/\xff.png", "wb").close(),
     r"a/\\udcff.png'?: this name is not UTF-8.*convmv"),
    (lambda root: os.mkdir(os.fsencode(root) + b"/caf\xe9"), r"caf\\udce9'?: this name is not UTF-8"),
])
def test_what_dvc_stumbles_over_is_told_with_its_remedy(tmp_path, spoil, words):
    root = tree(tmp_path / "raw", "a/1.png")
    spoil(root)
    with pytest.raises(UserError, match=words):
        opened(root)


def test_home_is_expanded(tmp_path, monkeypatch):
    from selfsup.config import compose

    monkeypatch.setenv("HOME", str(tmp_path))
    tree(tmp_path / "raw", "a/1.png")
    assert sources.open(folder_spec("~/raw")).origin == str(tmp_path / "raw")
    assert compose.shard({"source": "folder", "root": "~/raw"})["root"] == str(tmp_path / "raw")  # what DVC hashes


def test_accents_composed_or_not_are_one_class(tmp_path):
    root = tree(tmp_path, "train/caf\u00e9/1.png", "train/cafe\u0301/2.png", "test/cafe\u0301/3.png", "train/x/4.png")
    found, _ = opened(root)
    assert sorted(found["train"].values()) == ["caf\u00e9", "caf\u00e9", "x"]
    assert set(found["test"].values()) == {"caf\u00e9"}
