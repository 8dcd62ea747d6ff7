"""Where samples come from: a source is a module here, `sources/NAME.py`, with a function `source` whose arguments are
the keys of its entry in `datasets`. It gives a Source, which the shard stage reads piece by piece, in parallel.

Which split a sample belongs to depends on nothing but a hash of its key (or on the source, where that has splits of its
own), so adding images later moves none of the old ones from val to train. Within a split, samples stand in the order of
the same hash: every shard is then a fair mixture of the classes, which readers that shuffle only locally rely on.
"""

import importlib
import inspect
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from selfsup.data.tars import fraction
from selfsup.errors import UserError, nearest

SPLITS = ("train", "val", "test")
ALIASES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
           "test": "test", "testing": "test"}
# Keys of every entry, which the shard stage reads.
COMMON = ("source", "size", "max_bad", "limit", "fit", "licence", "tokens", "concepts")
NAMES = ("classes.txt", "classnames.txt")  # of files of class names
UNKNOWN = "unknown; see the source"
OTHERS = {"hidden": "hidden name{s}", "empty folder": "empty folder{s}"}  # see `scan`


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
    skipped: list = field(default_factory=list)  # what lies under root and is no sample, in words
    carved: tuple = ()  # the splits that were carved out of one pool: `divide` gives them
    concepts: tuple = ()  # words of its texts that say what is seen
    # Of what may grow: {split: a number in 0 … 1 of each item, ascending and evenly spread, from its key alone}.
    spread: dict | None = None


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
    skipped: list = field(default_factory=list)
    classes: list | None = None  # their names, where a file says them
    size: int | None = None  # pixels a side

    @property
    def carved(self):
        return tuple(self.carve) if len(self.carve) > 1 else ()


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
    if "root" in spec:
        spec = {**spec, "root": os.path.expanduser(spec["root"])}
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


def divide(items, val_share, test_share=None, unlabelled=(), by=lambda item: item[0]):
    """(items by split, splits that are carved): those of missing splits are taken out of train. `items`: {split:
    [(key, …), …]}. Those in `unlabelled` all go to train. by: of what an item's hash decides, its key unless given."""
    ordered = {split: sorted((fraction(item[0]), item) for item in some) for split, some in items.items()}
    ranges = carve(val_share, test_share, have=items)
    pool = ordered.pop("train", [])
    for split, (low, high) in ranges.items():
        ordered[split] = [(at, item) for at, item in pool if low <= fraction(by(item)) < high]
    if unlabelled:
        ordered["train"] = sorted([*ordered["train"], *((fraction(item[0]), item) for item in unlabelled)])
    carved = tuple(ranges) if len(ranges) > 1 else ()
    return {split: [item for _, item in ordered.get(split, [])] for split in SPLITS}, carved


# Which split a path says


def said(name):
    """The splits that a name says: those of its words, which are runs of letters, that mean one."""
    return {ALIASES[word] for word in re.findall(r"[^\W\d_]+", name.lower()) if word in ALIASES}


def split_files(files, kind, root):
    """Sorted (file, split) pairs of `files` (paths or URLs): the split is what a word of the file's name, or of a
    folder below `root`, says; all are for training if none says one. Of a URL the name and the last folder are looked
    at. Nothing is guessed: a path that says two, or some that say none beside others that do, is a UserError."""
    files, splits = list(files), []
    for file in files:
        path = "/".join(file.split("?")[0].split("/")[3:][-2:]) if "://" in file else os.path.relpath(file, root)
        found = said(path)
        if len(found) > 1:
            raise UserError(f"{file} says more than one split, {' and '.join(sorted(found))}: rename it")
        splits.append(next(iter(found), None))
    if any(splits) and not all(splits):
        odd, split = files[splits.index(None)], next(filter(None, splits))
        raise UserError(f"{odd}: nothing in its name or folder says train, val or test, but "
                        f"{files[splits.index(split)]} says {split}: name all {kind} so, or none")
    if not any(splits):
        splits = ["train"] * len(files)
    if "train" not in splits:
        raise UserError(f"none of the {len(files)} {kind} is for training: {files[0]} says {splits[0]}, and none says "
                        f"train")
    return sorted(zip(files, splits))


# Names of classes


def numbered(most, samples, where):
    """Names of classes that are only numbered, up to `most`. A UserError where there would be more than samples."""
    if most >= samples > 0:
        raise UserError(f"{where}: labels up to {most} of {samples} samples are ids rather than classes: leave the "
                        f"column label out, or name the classes in a file classes.txt beside, one a line")
    return [str(i) for i in range(most + 1)]


def named(folder):
    """Names of classes from the file classes.txt, or classnames.txt, in a folder, one a line in the order of their
    numbers; None without such."""
    path = next((path for path in (Path(folder) / name for name in NAMES) if path.is_file()), None)
    if path is None:
        return None
    try:
        names = [unicodedata.normalize("NFC", line.strip()) for line in path.read_text("utf-8").rstrip().splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8") from None
    if not all(names):
        raise UserError(f"{path}, line {names.index('') + 1 if names else 1}: a class has no name")
    return names


# What lies under root


def scan(top, follow=False):
    """(name, kind) of all that lies below a folder, sorted, names relative to it with "/" between folders. kind:
    "file" (or a link to one), "linked folder", "broken link", "special", "hidden", "empty folder".

    Nothing below hidden folders. `follow`: linked folders are entered instead, each folder that there is once. Raises
    OSError for a folder that must not be read."""
    seen = set()

    def below(folder, prefix):
        if follow:
            real = os.path.realpath(folder)
            if real in seen:
                return
            seen.add(real)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if not entries and prefix:
            yield prefix[:-1], "empty folder"
        for entry in entries:
            name, link = prefix + entry.name, entry.is_symlink()  # which asks the disk for nothing, unlike os.path
            if entry.name.startswith("."):
                yield name, "hidden"
            elif os.path.isdir(entry.path) if link else entry.is_dir(follow_symlinks=False):
                if link and not follow:
                    yield name, "linked folder"
                else:
                    yield from below(entry.path, f"{name}/")
            elif os.path.isfile(entry.path) if link else entry.is_file(follow_symlinks=False):
                yield name, "file"
            else:
                yield name, "broken link" if link and not os.path.exists(entry.path) else "special"

    yield from below(str(top), "")


def listed(root):
    """What lies below `root`: the names of its files, pipes and devices among them, sorted, and a Counter of what else
    there is, in words.

    Raises UserError for what DVC, which hashes `root`, cannot see or stumbles over: links to folders elsewhere, broken
    links, names that are not UTF-8."""
    files, others = [], Counter()
    for name, kind in scan(root):
        path = f"{root}/{name}"
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{path!a}: this name is not UTF-8, which DVC cannot track; rename it, as by "
                            f"`convmv -f latin1 -t utf8 -r --notest {root}`") from None
        if kind in ("file", "special"):  # what reads it says that it is none
            files.append(name)
        elif kind == "broken link":
            raise UserError(f"{path} is a link to nothing ({os.readlink(path)}), which DVC stumbles over; put the file "
                            f"there, or remove the link (`find {root} -xtype l -delete` removes all such)")
        elif kind == "linked folder":
            inside_root(path, root)
            others["link{s} to a folder of root itself"] += 1
        else:
            others[OTHERS[kind]] += 1
    return sorted(files), others


def inside_root(path, root):
    """A UserError where a link, or a path with a linked folder in it, leads out of `root`: DVC would not see what
    changes there."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    if real != top and not real.startswith(top + os.sep):
        raise UserError(f"{path} leads to {real}, outside {root}, where DVC does not look: changes there would go "
                        f"unnoticed; copy it (`cp -rl` makes hard links), or make {root} itself the link")


def phrases(others):
    """In words what a Counter holds, as {"empty folder{s}": 3}."""
    return [f"{count} {words.replace('{s}', 's' * (count > 1))}" for words, count in others.items()]


def by_ending(names):
    """In words how many files have which ending."""
    endings = Counter(name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else None
                      for name in sorted(names))
    return phrases({"file{s} " + (f"ending in .{ending}" if ending else "without an ending"): count
                    for ending, count in endings.most_common()})
