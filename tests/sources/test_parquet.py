"""Parquet files as the Hugging Face hub keeps them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfsup import data, shards, sources
from selfsup.data import images, tars
from selfsup.errors import UserError
from tests.data.making import encoded, picture

NAMES = ["cat", "dog", "owl"]


def write(path, first, count, names=NAMES, plain=False, **changes):
    """Rows `first` … of a data set: image, label, two captions; row groups of 7."""
    rows = range(first, first + count)
    files = [encoded(picture(i)) for i in rows]
    table = {"img": files if plain else [{"bytes": data, "path": f"{i}.png"} for i, data in zip(rows, files)],
             "fine_label": [i % 3 for i in rows], "text": [[f"number {i}", "another"] for i in rows], **changes}
    about = {"info": {"features": {"fine_label": {"names": names, "_type": "ClassLabel"}}}} if names else {}
    table = pa.table(table).replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def spec(root, **changes):
    return {"source": "parquet", "root": str(root), "size": 8, "val_share": 0.2, "test_share": 0.2, "max_bad": 0.0,
            "image": "img", "label": "fine_label", **changes}


def contents(folder, card):
    """{key: (split, members)}"""
    return {key: (split, group) for split in sources.SPLITS if card["counts"][split]
            for entry in tars.entries_of(card, folder, split) for key, group in tars.members(folder, entry)}


def test_files_that_name_their_split(tmp_path):
    write(tmp_path / "raw/data/train-00000-of-00002.parquet", 0, 30)
    write(tmp_path / "raw/data/train-00001-of-00002.parquet", 30, 20, plain=False)
    write(tmp_path / "raw/data/validation-00000-of-00001.parquet", 100, 6)
    write(tmp_path / "raw/data/test-00000-of-00001.parquet", 200, 5)
    card = shards.write("toy", spec(tmp_path / "raw", caption="text"), tmp_path / "out", workers=2)
    assert card["counts"] == {"train": 50, "val": 6, "test": 5} and card["classes"] == NAMES
    assert card["columns"] == ["image", "label", "caption"] and card["source"] == f"parquet {tmp_path / 'raw'}"
    found, first = contents(tmp_path / "out", card), {"train": 0, "val": 100, "test": 200}
    assert len(found) == 61
    for key, (split, group) in found.items():
        i = first[split] + int(key.removeprefix(f"{split}-"))
        assert group["png"] == encoded(picture(i))
        assert int(group["cls"]) == i % 3 and group["txt"] == f"number {i}".encode()
    order = [tars.fraction(key) for key, (split, _) in found.items() if split == "train"]
    assert order == sorted(order)
    again = shards.write("toy", spec(tmp_path / "raw", caption="text"), tmp_path / "again", workers=1)
    assert again == card


def test_one_file_carved_with_bytes_and_missing_labels(tmp_path):
    labels = [None if i % 4 == 0 else -1 if i % 4 == 1 else i % 3 for i in range(60)]
    write(tmp_path / "all.parquet", 0, 60, names=None, plain=True, fine_label=labels)
    card = shards.write("toy", spec(tmp_path / "all.parquet"), tmp_path / "out", workers=1)
    assert sum(card["unlabelled"].values()) == 30 and card["classes"] == ["0", "1", "2"]
    assert min(card["counts"].values()) > 0
    for key, (_, group) in contents(tmp_path / "out", card).items():
        label = labels[int(key.removeprefix("train-"))]
        assert int(group["cls"]) == (-1 if label is None else label)
    split = data.open(tmp_path / "out", "train", cache=tmp_path / "cache")
    assert (split.numbers("label") == -1).sum() == card["unlabelled"]["train"]


@pytest.mark.parametrize("limit", [3, 100])
def test_a_limit_is_nested_and_only_images_are_needed(tmp_path, limit):
    write(tmp_path / "all.parquet", 0, 60)
    keys = [[sample["key"] for _, sample in source.read("train", 0, source.counts["train"])] for source in
            (sources.open({**spec(tmp_path / "all.parquet", limit=some), "label": None}) for some in (limit, 100))]
    assert keys[0] == keys[1][:limit] and len(keys[1]) > 20
    plain = {key: value for key, value in spec(tmp_path / "all.parquet", limit=limit).items() if key != "label"}
    card = shards.write("toy", plain, tmp_path / "out", workers=1)
    assert card["columns"] == ["image"] and card["counts"]["val"] == min(limit, card["counts"]["val"])


def test_a_bad_image_is_counted(tmp_path):
    files = [{"bytes": None if i == 3 else b"junk" if i == 4 else encoded(picture(i)), "path": None} for i in range(20)]
    write(tmp_path / "all.parquet", 0, 20, img=files)
    card = shards.write("toy", spec(tmp_path / "all.parquet", max_bad=0.2), tmp_path / "out", workers=1)
    assert sum(card["bad"].values()) == 2 and sum(card["counts"].values()) == 18
    with pytest.raises(UserError, match="2 of 20 samples are unreadable.*row [34] of train: (no image|not an image)"):
        shards.write("toy", spec(tmp_path / "all.parquet"), tmp_path / "out", workers=1)


def test_mistakes_are_one_sentence(tmp_path):
    write(tmp_path / "raw/train-0.parquet", 0, 5)
    have = "it has img, fine_label, text"
    for changes, words in [({"image": "imag"}, f'train-0.parquet has no column "imag"; did you mean "img".*{have}'),
                           ({"root": str(tmp_path / "rwa")}, 'no such file or folder: .*rwa; did you mean "raw"')]:
        with pytest.raises(UserError, match=words):
            sources.open({**spec(tmp_path / "raw"), **changes})
    (tmp_path / "raw/other.parquet").write_bytes(b"PAR")
    with pytest.raises(UserError, match="other.parquet: nothing in its name or folder says train.*train-0.parquet says train"):
        sources.open(spec(tmp_path / "raw"))
    (tmp_path / "raw/other.parquet").rename(tmp_path / "raw/train-1.parquet")
    with pytest.raises(UserError, match="train-1.parquet is no Parquet file"):
        sources.open(spec(tmp_path / "raw"))


def test_images_are_kept_as_they_are_when_they_fit(tmp_path):
    write(tmp_path / "all.parquet", 0, 10)
    whole = spec(tmp_path / "all.parquet", val_share=0.0, test_share=0.0)
    card = shards.write("toy", whole, tmp_path / "out", workers=1)
    split = data.open(tmp_path / "out", "train", cache=tmp_path / "cache")
    keys = [key for entry in split.entries for key, _ in tars.members(split.folder, entry)]
    for key, pixels in zip(keys, split.values["image"], strict=True):
        assert np.array_equal(pixels.permute(1, 2, 0), images.decode(encoded(picture(int(key[-7:]))), 8))
    assert card["bad"]["train"] == 0


def test_class_names_from_a_file_beside_or_none_for_ids(tmp_path):
    write(tmp_path / "raw/all.parquet", 0, 30, names=None)
    (tmp_path / "raw/classes.txt").write_text("a\nb\nc\n")
    assert sources.open(spec(tmp_path / "raw")).classes == ["a", "b", "c"]
    assert sources.open(spec(tmp_path / "raw/all.parquet")).classes == ["a", "b", "c"]
    write(tmp_path / "raw/all.parquet", 0, 30)
    assert sources.open(spec(tmp_path / "raw")).classes == NAMES  # which the file itself says
    write(tmp_path / "ids/all.parquet", 0, 30, names=None, fine_label=[10**12 + i for i in range(30)])
    with pytest.raises(UserError, match="of 30 samples are ids rather than classes"):
        sources.open(spec(tmp_path / "ids"))


def test_splits_are_said_anywhere_in_a_path(tmp_path):
    for name, first, count in (("plain/train/0000", 0, 20), ("plain/dev/0000", 100, 6), ("plain/test/0000", 200, 5)):
        write(tmp_path / f"raw/{name}.parquet", first, count)
    (tmp_path / "raw/README.md").write_text("x")
    source = sources.open(spec(tmp_path / "raw"))
    assert source.counts == {"train": 20, "val": 6, "test": 5} and source.skipped == ["1 file ending in .md"]
