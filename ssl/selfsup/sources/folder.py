"""Image files: root/[train|val|test/][<class>/…/]name.jpg. Class folders or none, splits or none."""

import os
from collections import Counter
from pathlib import Path

from selfsup.arguments import Count, Share, Text
from selfsup.data import columns
from selfsup.data.files import content
from selfsup.data.images import EXTENSIONS, Unreadable, bands
from selfsup.errors import UserError, nearest, nearest_path
from selfsup.sources import ALIASES, SPLITS, Source, divide


def source(root: Text, size: Count, val_share: Share, test_share: Share | None = None, class_level: Count = 1,
           unlabelled: bool = False, channels: Count | None = None):
    """class_level: which of the folders below root (or below a split's) is the class, counted from there. unlabelled:
    images in no class folder are for training, without a label. channels: images of so many, 8 or 16 bit, in `.npy`,
    `.tif` or other files, where they are no pictures, which become RGB."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no such folder: {root}{nearest_path(root)}")
    inside = {ALIASES[entry.name.lower()]: entry for entry in sorted(root.iterdir())
              if entry.is_dir() and entry.name.lower() in ALIASES}
    tops = inside if "train" in inside else {"train": root}
    extensions = EXTENSIONS if channels is None else (*EXTENSIONS, "npy")
    found = {split: files(top, extensions) for split, top in tops.items()}
    if not found["train"]:
        raise UserError(f"no images in {tops['train']}: looked for files ending in {', '.join(extensions)}")
    image = columns.picture(size) if channels is None else _bands(channels, size, tops["train"], found["train"])
    classes = sorted({_class(name, class_level) for name in found["train"]} - {None}) or None
    keyed = {split: _keyed(some) for split, some in found.items()}
    loose = []
    if unlabelled and classes:
        loose = [item for item in keyed["train"] if _class(item[1], class_level) is None]
        keyed["train"] = [item for item in keyed["train"] if _class(item[1], class_level) is not None]
    items = divide(keyed, val_share, test_share, loose)
    # A carved split's files lie under train.
    tops = {split: tops.get(split, tops["train"]) for split in SPLITS}

    def read(split, start, stop):
        for key, name in items[split][start:stop]:
            path = tops[split] / name
            try:
                yield str(path), _sample(path, key, _class(name, class_level), classes, unlabelled)
            except Unreadable as error:
                yield str(path), error

    kinds = [image] + [columns.Number("label")] * (classes is not None)
    return Source(str(root), {split: len(items[split]) for split in SPLITS}, read, kinds, classes)


def files(top, extensions=EXTENSIONS):
    """Relative paths, with "/" between folders, of all image files below, sorted."""
    names = []
    for where, folders, inside in os.walk(top, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [(Path(where) / name).relative_to(top).as_posix() for name in inside
                  if not name.startswith(".") and name.rpartition(".")[2].lower() in extensions]
    return sorted(names)


def _class(name, level):
    """The folder that is the class of a file; None where it lies less deep."""
    parents = name.split("/")[:-1]
    return parents[level - 1] if len(parents) >= level else None


def _bands(channels, size, top, names):
    """The column of images of many channels; the first readable file says how many bits they have."""
    for name in names:
        try:
            array = bands(content(top / name), channels)
        except Unreadable:
            continue
        return columns.Image("image", (channels, size, size), str(array.dtype), picture=False)
    raise UserError(f"none of the {len(names)} files in {top} is an image of {channels} channels")


def _keyed(names):
    """(key, name) pairs. A WebDataset key ends at the first dot of the file's name, so dots within it are escaped;
    files that differ in the extension alone keep it, escaped."""
    def escape(name):
        parent, _, base = name.rpartition("/")
        base = base.replace("%", "%25").replace(".", "%2E")
        return f"{parent}/{base}" if parent else base

    stems = [name.rpartition(".")[0] for name in names]
    times = Counter(stems)
    return [(escape(name if times[stem] > 1 else stem), name) for name, stem in zip(names, stems)]


def _sample(path, key, group, classes, unlabelled):
    sample = {"key": key}
    if classes is not None:
        if group is None and not unlabelled:
            raise Unreadable("lies in no class folder")
        if group is not None and group not in classes:
            raise Unreadable(f'the class "{group}" is not in the training split{nearest(group, classes)}')
        sample["label"] = -1 if group is None else classes.index(group)
    return sample | {"image": content(path)}
