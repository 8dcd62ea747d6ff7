"""Where samples come from: a source is a module here, `sources/NAME.py`, with a function `source` whose arguments are
the keys of its entry in `datasets`. It gives a Source, which the shard stage reads piece by piece, in parallel.

Which split a sample belongs to depends on nothing but a hash of its key (or on the source, where that has splits of its
own), so adding images later moves none of the old ones from val to train. Within a split, samples stand in the order of
the same hash: every shard is then a fair mixture of the classes, which readers that shuffle only locally rely on.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from selfsup.data.tars import fraction
from selfsup.errors import UserError, nearest

SPLITS = ("train", "val", "test")
ALIASES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
COMMON = ("source", "size", "max_bad", "limit", "fit", "licence")  # keys of every entry, which the shard stage reads
UNKNOWN = "unknown; see the source"


@dataclass
class Source:
    """`origin`: where it is from, in words. `counts`: items a split. `read(split, start, stop)` yields (name, sample)
    for those items in order; a sample is a dict of key, a value for each of `columns` (a list of Columns; as their
    `encode` takes it) and where there are such meta; or the Unreadable that says why there is none. `classes`: names of
    the labels, where there is a column `label`. `facts` stand in the card besides."""

    origin: str
    counts: dict
    read: Callable
    columns: list
    classes: list | None = None
    licence: str = UNKNOWN
    facts: dict = field(default_factory=dict)


@dataclass
class Tars:
    """Existing WebDataset tars, read where they are. `files`: (path or URL, split); `carve`: what becomes of train;
    `columns`: names, or None for image, label and caption as far as there are such."""

    origin: str
    files: list
    carve: dict = field(default_factory=dict)
    columns: list | None = None
    limit: int | None = None  # most samples of a split: those of the smallest hashes
    licence: str = UNKNOWN


def names():
    """The sources there are: the modules of this folder."""
    here = Path(__file__).parent
    files = [*here.glob("[!_]*.py"), *(path.parent for path in here.glob("[!_]*/__init__.py"))]
    return sorted(path.stem for path in files)


def load(name):
    """The module of a source."""
    if name not in names():
        raise UserError(f'there is no source "{name}"{nearest(name, names())} (there are: {", ".join(names())})')
    return importlib.import_module(f"selfsup.sources.{name}")


def open(spec):
    """The Source or Tars that an entry of `datasets` in params.yaml, a dict, describes."""
    source = load(spec["source"]).source
    takes = inspect.signature(source).parameters
    for key in spec:
        if key not in takes and key not in COMMON:
            raise UserError(f'the source {spec["source"]} has no key "{key}"{nearest(key, [*takes, *COMMON])}')
    for key, parameter in takes.items():
        if key not in spec and parameter.default is parameter.empty:
            raise UserError(f"the source {spec['source']} needs the key {key}")
    found = source(**{key: spec[key] for key in takes if key in spec})
    found.licence = spec.get("licence") or found.licence
    if isinstance(found, Source) and spec.get("limit"):
        found.counts = {split: min(count, spec["limit"]) for split, count in found.counts.items()}
    return found


# Splits by hash


def carve(val_share, test_share=None, have=()):
    """{split: (low, high)}: what share of the training pool goes to each split that the source does not `have` itself.
    test_share None: as val_share."""
    val = 0 if "val" in have else val_share
    test = 0 if "test" in have else val_share if test_share is None else test_share
    if val + test >= 1:
        raise UserError(f"val_share {val} and test_share {test} leave nothing to train on")
    ranges = {"test": (0.0, test), "val": (test, test + val), "train": (test + val, 1.0)}
    return {split: (low, high) for split, (low, high) in ranges.items() if high > low}


def divide(items, val_share, test_share=None, unlabelled=()):
    """Items by split, those of missing splits taken out of train. `items`: {split: [(key, …), …]}. Those in
    `unlabelled` all go to train."""
    ordered = {split: sorted((fraction(item[0]), item) for item in some) for split, some in items.items()}
    ranges = carve(val_share, test_share, have=items)
    pool = ordered.pop("train", [])
    for split, (low, high) in ranges.items():
        ordered[split] = [(at, item) for at, item in pool if low <= at < high]
    if unlabelled:
        ordered["train"] = sorted([*ordered["train"], *((fraction(item[0]), item) for item in unlabelled)])
    return {split: [item for _, item in ordered.get(split, [])] for split in SPLITS}


def named_split(url):
    """The split that a file's name starts with; None if with none."""
    base = url.rpartition("/")[2].lower()
    start = base[:len(base) - len(base.lstrip("abcdefghijklmnopqrstuvwxyz"))]
    return ALIASES.get(start)


def split_files(files, kind):
    """Sorted (file, split) pairs of `files` (paths or URLs), by their names, or all for training if no name says a
    split."""
    files = list(files)
    splits = [named_split(file) for file in files]
    if any(splits) and not all(splits):
        odd = files[splits.index(None)]
        raise UserError(f"{odd}: its name starts with none of train, val and test, but those of other {kind} do")
    if not any(splits):
        splits = ["train"] * len(files)
    if "train" not in splits:
        raise UserError(f"none of the {len(files)} {kind} is for training: no file name starts with train")
    return sorted(zip(files, splits))
