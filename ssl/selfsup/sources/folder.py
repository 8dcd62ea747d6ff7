"""Image files: root/[train|val|test/][<class>/…/]name.jpg. Class folders or none, splits or none, captions or none."""

import csv
from collections import Counter
from pathlib import Path

from selfsup.arguments import Count, Share, Text
from selfsup.data import columns
from selfsup.data.files import content
from selfsup.data.images import EXTENSIONS, Unreadable, bands
from selfsup.data.tars import fraction
from selfsup.errors import UserError, nearest, nearest_path
from selfsup.sources import SPLITS, Source, carve, phrases, scan
from selfsup.sources._layout import arranged, ends

TXT = "txt"  # as `captions`: a text file for each image


def source(root: Text, size: Count, val_share: Share, test_share: Share | None = None, class_level: Count = 1,
           unlabelled: bool = False, channels: Count | None = None, captions: Text | None = None,
           new_classes: bool = False):
    """class_level: which of the folders below root (or below a split's) is the class, counted from there. unlabelled:
    images in no class folder are for training, without a label. channels: images of so many, 8 or 16 bit, in `.npy`,
    `.tif` or other files, where they are no pictures, which become RGB. captions: "txt", those of name.jpg being in
    name.txt beside it; or the name of a CSV file below root, with a heading and in it `file`, a path below root, and
    `caption`. new_classes: val and test have classes that train has not, for episodes; carved are whole classes, by a
    hash of their names."""
    extensions = EXTENSIONS if channels is None else (*EXTENSIONS, "npy")
    found = arranged(root, extensions, "image", val_share, test_share, class_level, unlabelled,
                     beside=lambda names: _beside(names, extensions, captions), new_classes=new_classes)
    told = _table(root, captions) if captions not in (None, TXT) else None
    image = columns.picture(size) if channels is None else _bands(channels, size, root, found)
    kinds = [image] + [columns.Number("label")] * (found.classes is not None)
    kinds += [columns.Text("caption")] * (captions is not None)
    if told is not None:
        found.skipped += _left_over(told, found)

    def read(split, start, stop):
        for key, name, path in found.items[split][start:stop]:
            try:
                sample = {"key": key, **found.label(name, unlabelled), "image": content(Path(root, path))}
                yield f"{root}/{path}", sample | ({"caption": _caption(root, path, told)} if captions else {})
            except Unreadable as error:
                yield f"{root}/{path}", error

    return Source(str(root), found.counts, read, kinds, found.classes, skipped=found.skipped, carved=found.carved,
                  spread=_spread(found, {} if new_classes or unlabelled else carve(
                      val_share, test_share, have={*SPLITS} - {*found.carved})))


def _spread(found, ranges):
    """Source.spread: the hash of each key, within the range of hashes that its split was given."""
    def numbers(split):
        low, high = ranges.get(split, (0.0, 1.0))
        return [(fraction(key) - low) / (high - low) for key, *_ in found.items[split]]

    return {split: numbers(split) for split in SPLITS}


def files(top, extensions=EXTENSIONS):
    """Relative paths, with "/" between folders, of all image files below, sorted. Linked folders are entered, once."""
    found = (name for name, kind in scan(top, follow=True) if kind in ("file", "broken link"))
    return sorted(name for name in found if ends(name, extensions))


def _bands(channels, size, root, found):
    """The column of images of many channels; the first readable file says how many bits they have."""
    paths = sorted(path for split in {"train", *found.carved} for _, _, path in found.items[split])
    for path in paths:
        try:
            array = bands(content(Path(root, path)), channels)
        except Unreadable:
            continue
        return columns.Image("image", (channels, size, size), str(array.dtype), picture=False)
    raise UserError(f"none of the {len(paths)} files in {root} is an image of {channels} channels")


# Captions


def _table(root, name):
    """{file: its captions, one after the other} of a CSV file."""
    path = Path(root, name)
    if not path.is_file():
        raise UserError(f"no such file of captions: {path}{nearest_path(path)}")
    found = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for column in ("file", "caption"):
                if column not in (rows.fieldnames or ()):
                    raise UserError(f'{path} has no column "{column}"{nearest(column, rows.fieldnames or ())}: its '
                                    f"first line should name the columns, file and caption among them")
            for row in rows:
                found.setdefault((row["file"] or "").removeprefix("./"), []).append((row["caption"] or "").strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}") from None
    return found


def _beside(names, extensions, captions):
    """Which of the files hold captions."""
    if captions == TXT:
        return {f"{name.rpartition('.')[0]}.{TXT}" for name in names if ends(name, extensions)}
    return {captions}


def _caption(root, path, told):
    """The first caption of an image. Raises Unreadable."""
    if told is None:
        beside = Path(root, path).with_suffix(f".{TXT}")
        if not beside.exists():
            raise Unreadable(f"no caption: there is no {beside.name} beside it")
        try:
            text = content(beside).decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise Unreadable(f"its caption, {beside.name}, is not UTF-8") from None
    elif path not in told:
        raise Unreadable("no caption: the table has no line of it")
    else:
        text = next(filter(None, told[path]), "")
    if not text:
        raise Unreadable("its caption is empty")
    return text


def _left_over(told, found):
    """In words what a table has beside a caption for each image."""
    there = {path for some in found.items.values() for _, _, path in some}
    counts = Counter()
    counts["caption{s} of no image here"] = sum(file not in there for file in told)
    counts["further caption{s} of an image"] = sum(len(some) - 1 for file, some in told.items() if file in there)
    return phrases(+counts)
