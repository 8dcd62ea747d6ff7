"""Existing tars, which stay where they are: read through once, for a card that points at them."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections import Counter

from selfsup.data import columns
from selfsup.data.images import EXTENSIONS, Unreadable, blamed
from selfsup.data.tars import Torn, fraction, groups, parallel, within
from selfsup.errors import UserError
from selfsup.shards import twins
from selfsup.shards.tally import count_bad, count_good, finish, part_of
from selfsup.sources import SPLITS, numbered, phrases

USUAL = (columns.Number("label"), columns.Text("caption"))  # columns beside the image, where nothing else is asked for


def index(name, source, spec, out, workers):
    """Read existing tars through once, for a card that points at them: -> (entries a split, schema, parts, classes).

    A second time where a sample has a column that the first one lacks, and those with twins in another split."""
    schema = _found(source, spec)
    ranges = {split: {split: None} for split in SPLITS}
    ranges["train"] = {split: list(ends) for split, ends in source.carve.items()}
    if source.limit:
        ranges = _limited(source, ranges)
    while True:
        work = functools.partial(_index_one, ranges, schema, source.columns is None)
        told = list(parallel(work, source.files, f"read {name}", workers=workers))
        more = set().union(*(one["more"] for one in told))
        if not more:
            break
        schema = {"image": schema["image"]} | {
            column.name: column for column in USUAL if column.name in schema or column.name in more}
    by_tar = twins.apart([one["parts"] for one in told], source.files, lambda task: work(task)["parts"], source.carved,
                         f"read {name}", workers)
    for parts in by_tar:  # how much a tear has cost is unknown: guess from what the other tars hold
        if parts and parts[-1]["torn"]:
            whole = max(sum(part["images"] for part in some) for some in by_tar)
            parts[-1]["bad"] += max(1, whole - sum(part["images"] for part in parts))
    passed = sum((one["passed"] for one in told), Counter())
    passed["tar{s} without a sample"] = sum(not one["samples"] and not one["parts"] for one in told)
    source.skipped += phrases(+passed)
    found = sorted((part for parts in by_tar for part in parts), key=lambda part: SPLITS.index(part["split"]))
    files = {split: [] for split in SPLITS}
    for part in found:
        file = part["file"]
        if "://" not in file and not os.path.isabs(file):
            file = os.path.relpath(file, out)
        entry = {"file": file, "count": part["count"]}
        entry |= {key: part[key] for key in ("keys", "skip", "torn") if part[key]}
        files[part["split"]].append(entry)
    samples = sum(one["samples"] for one in told)
    return files, schema, found, _classes(name, source, found, samples) if "label" in schema else []


def _classes(name, source, found, samples):
    """Names of the classes: those that a file says, or numbers."""
    most = max((max(part["labels"]) for part in found if part["labels"]), default=-1)
    if source.classes is None:
        return numbered(most, samples, name)
    if most >= len(source.classes):
        raise UserError(f"{name}: there is a label {most}, but the file of class names in {source.origin} has "
                        f"{len(source.classes)} lines, for labels from 0")
    return source.classes


def _found(source, spec):
    """The columns of the first readable sample: what all others must have too."""
    size, fit = source.size, spec.get("fit") or "crop"
    image, seen = columns.picture(size, fit=fit), {}
    for path, _ in source.files:
        with contextlib.suppress(Torn):
            for _, group in groups(path):
                seen = seen or group
                if source.columns is None and image.find(group) is not None:
                    return {column.name: column for column in (image, *USUAL) if column.find(group) is not None}
                for name in source.columns or ():
                    if columns.found(name, group, size) is None:
                        raise UserError(f"the first sample of {path} has no column {name}: its members are "
                                        f"{', '.join(group)}")
                if source.columns:
                    some = [columns.found(name, group, size) for name in source.columns]
                    return {column.name: dataclasses.replace(column, fit=fit) if hasattr(column, "fit") else column
                            for column in some}
    more = " and the other tars" if len(source.files) > 1 else ""
    there = f"; the first sample has {_members(seen)}" if seen else ""
    raise UserError(f"no images in {source.files[0][0]}{more}: looked for members ending in "
                    f"{', '.join(EXTENSIONS)}{there}")


def _members(group):
    """In words which members a sample has, and why they may not be found."""
    dots = " (the key ends at the first dot of a name)" if any("." in member for member in group) else ""
    return f"the members {', '.join([*group][:4])}{' …' * (len(group) > 4)}{dots}"


def _limited(source, ranges):
    """The ranges of hashes narrowed, so that each split keeps the `limit` samples of the smallest."""
    at = {split: [] for split in SPLITS}
    for path, pool in source.files:
        with contextlib.suppress(Torn):
            for key, _ in groups(path, wanted=()):
                here = fraction(key)
                split = next(split for split, ends in ranges[pool].items() if ends is None or within(here, ends))
                at[split].append(here)
    last = {split: sorted(some)[source.limit] for split, some in at.items() if len(some) > source.limit}
    return {pool: {split: [(ends or [0, 1])[0], last[split]] if split in last else ends for split, ends in some.items()}
            for pool, some in ranges.items()}


def _index_one(ranges, schema, usual, task):
    """-> `parts`, one for each split that the tar holds samples of; how many `samples` it has in all; what was `passed`
    over; and `usual` columns that some have `more` than the schema."""
    path, pool, *leave = task
    leave = leave[0] if leave else {}
    parts, passed, more, before = {}, Counter(), set(), {}
    for split, ends in ranges[pool].items():
        keys = None if ends in (None, [0, 1]) else ends
        parts[split] = part_of(split, path, schema) | {"skip": [], "torn": False, "keys": keys}
    digest = hashlib.sha256()
    try:
        for position, (key, group) in enumerate(groups(path, digest, passed=passed)):
            at = fraction(key)
            lacks = [name for name, column in schema.items() if column.find(group) is None]
            if key in before and (lacks or before[key]):
                raise UserError(f"{path}: the members of {key} do not stand side by side, as WebDataset needs them: "
                                f"pack the tar anew, with its names sorted (`tar --sort=name`)")
            before[key] = bool(lacks)
            part = next((part for part in parts.values() if part["keys"] is None or within(at, part["keys"])), None)
            if part is None:
                continue
            part["images"] += 1
            if usual:
                more |= {each.name for each in USUAL if each.name not in schema and each.find(group) is not None}
            try:
                if lacks:
                    raise Unreadable(f"no {lacks[0]} among {_members(group)}")
                with blamed():
                    parsed = {name: column.parse(column.find(group)) for name, column in schema.items()}
                    values = {name: value if schema[name].kind in ("text", "number") else schema[name].decode(value)
                              for name, value in parsed.items()}
            except Unreadable as error:
                count_bad(part, f"{path}: {key}", error)
                part["skip"].append(position)
                continue
            if not count_good(part, schema, values, leave.get(part["split"], ())):
                part["skip"].append(position)
    except Torn as error:
        for part in parts.values():
            part["torn"] = True
        [*parts.values()][-1]["reasons"].append((path, f"torn tar, its rest is lost: {error}"))
    for part in parts.values():
        finish(part)
        part["sha256"] = digest.hexdigest()
    found = [part for part in parts.values() if part["images"] or part["torn"]]
    return {"parts": found, "samples": len(before), "passed": passed, "more": more}
