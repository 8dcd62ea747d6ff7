"""Parquet files in the layout of the Hugging Face hub: a column of image bytes, one of labels or captions."""

import json
import os
import tempfile
import unicodedata
from pathlib import Path

from selfsup.arguments import Count, Share, Text
from selfsup.core.files import naming
from selfsup.data import columns
from selfsup.data.images import Unreadable
from selfsup.errors import UserError, nearest, nearest_path
from selfsup.sources import SPLITS, Source, by_ending, divide, listed, named, numbered, phrases, split_files

ROWS = 256  # read at a time


def source(root: Text, size: Count, val_share: Share, test_share: Share | None = None, image: Text = "image",
           label: Text | None = None, caption: Text | None = None, limit: Count | None = None):
    """root: a file, or a folder with files anywhere below, of which a word of the name or of a folder says the split
    (train, val, test and the like), for all or for none. image, label, caption: names of columns. An image is bytes or
    {bytes, path}; a label an integer, -1 or null where it is missing; a caption a text, or a list of which the first
    is taken. Classes have the names that
    the file gives, or classes.txt beside it.

    The files are read once, in their order, into a temporary file (in $TMPDIR), from which images are taken in any
    order."""
    import pyarrow.parquet as pq

    root = Path(root)
    if not root.exists():
        raise UserError(f"no such file or folder: {root}{nearest_path(root)}")
    every, others = ([root.name], {}) if root.is_file() else listed(root)
    folder = root.parent if root.is_file() else root
    names = [name for name in every if name.endswith(".parquet") or root.is_file()]
    if not names:
        raise UserError(f"no .parquet files in {root}")
    tables = {}
    for path, split in split_files([str(folder / name) for name in names], "files", folder):
        tables.setdefault(split, []).append(_opened(pq, path, [image, label, caption]))
    keyed = {split: [(f"{split}-{i:07d}", (split, i)) for i in range(sum(t.metadata.num_rows for t in some))]
             for split, some in tables.items()}
    items, carved = divide(keyed, val_share, test_share)
    items = {split: some[:limit] for split, some in items.items()}
    wanted = {split: set() for split in tables}
    for _, (part, i) in (item for some in items.values() for item in some):
        wanted[part].add(i)
    rows = {split: _spooled(some, wanted[split], image, label, caption) for split, some in tables.items()}
    classes = None
    if label:
        labels = [row["label"] for row in rows["train"].values()]
        known = _hub_names(tables["train"][0], label) or named(folder)
        classes = known or _numbers(root, tables["train"], label, labels)

    def read(split, start, stop):
        for key, (part, i) in items[split][start:stop]:
            name, row = f"{root}: row {i} of {part}", rows[part][i]
            if row["length"] is None:
                yield name, Unreadable("no image")
                continue
            sample = {"key": key, "image": os.pread(row["file"].fileno(), row["length"], row["at"])}
            yield name, sample | {column: row[column] for column in ("label", "caption") if column in row}

    kinds = [columns.picture(size)] + [columns.Number("label")] * (label is not None)
    kinds += [columns.Text("caption")] * (caption is not None)
    return Source(str(root), {split: len(items[split]) for split in SPLITS}, read, kinds, classes,
                  skipped=by_ending(set(every) - set(names)) + phrases(others), carved=carved)


def _opened(pq, path, wanted):
    try:
        table = pq.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are these
        raise UserError(f"{path} is no Parquet file: {error}") from None
    have = table.schema_arrow.names
    for name in wanted:
        if name is not None and name not in have:
            raise UserError(f'{path} has no column "{name}"{nearest(name, have)} (it has {", ".join(have)})')
    return table


def _spooled(tables, wanted, image, label, caption):
    """{row number: {file, at, length, label, caption}} of the rows `wanted`, the images copied into one temporary
    file."""
    file, found, number, at = tempfile.TemporaryFile(), {}, 0, 0
    names = [name for name in (image, label, caption) if name is not None]
    with naming(tempfile.gettempdir()):
        for batch in (batch for table in tables for batch in table.iter_batches(ROWS, columns=names)):
            here = [i for i in range(batch.num_rows) if number + i in wanted]
            for i, row in zip(here, batch.take(here).to_pylist()):
                data = row[image]["bytes"] if isinstance(row[image], dict) else row[image]
                row_found = found[number + i] = {"file": file, "at": at, "length": None if data is None else len(data)}
                file.write(data or b"")
                at += len(data or b"")
                if label is not None:
                    row_found["label"] = -1 if row[label] is None else row[label]
                if caption is not None:
                    text = row[caption]
                    row_found["caption"] = text[0] if isinstance(text, list) and text else text
            number += batch.num_rows
        file.flush()
    return found


def _hub_names(table, label):
    """Names of classes as the hub's library writes them into a file."""
    about = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    names = about.get("info", {}).get("features", {}).get(label, {}).get("names") or ()
    return [unicodedata.normalize("NFC", name) for name in names]


def _numbers(root, tables, label, labels):
    whole = [number for number in labels if isinstance(number, int)]
    if not whole:
        raise UserError(f"the column {label} of the Parquet files holds no integers")
    return numbered(max(whole), sum(table.metadata.num_rows for table in tables), root)
