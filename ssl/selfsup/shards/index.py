"""Existing tars, which stay where they are: read through once, for a card that points at them."""

import contextlib
import dataclasses
import functools
import hashlib
import os

from selfsup.data import columns
from selfsup.data.images import EXTENSIONS, Unreadable, blamed
from selfsup.data.tars import Torn, fraction, groups, parallel, within
from selfsup.errors import UserError
from selfsup.shards.tally import count_bad, count_good, count_pixels, part_of
from selfsup.sources import SPLITS


def index(name, source, spec, out, workers):
    """Read existing tars through once, for a card that points at them."""
    schema = _found(source, spec)
    ranges = {split: {split: None} for split in SPLITS}
    ranges["train"] = {split: list(ends) for split, ends in source.carve.items()}
    if source.limit:
        ranges = _limited(source, ranges)
    work = functools.partial(_index_one, ranges, schema)
    by_tar = list(parallel(work, source.files, f"read {name}", workers=workers))
    for parts in by_tar:  # how much a tear has cost is unknown: guess from what the other tars hold
        if parts and parts[-1]["torn"]:
            whole = max(sum(part["images"] for part in some) for some in by_tar)
            parts[-1]["bad"] += max(1, whole - sum(part["images"] for part in parts))
    found = sorted((part for parts in by_tar for part in parts), key=lambda part: SPLITS.index(part["split"]))
    files = {split: [] for split in SPLITS}
    for part in found:
        file = part["file"]
        if "://" not in file and not os.path.isabs(file):
            file = os.path.relpath(file, out)
        entry = {"file": file, "count": part["count"]}
        entry |= {key: part[key] for key in ("keys", "skip", "torn") if part[key]}
        files[part["split"]].append(entry)
    return files, schema, found


def _found(source, spec):
    """The columns of the first readable sample: what all others must have too."""
    size, fit = spec["size"], spec.get("fit") or "crop"
    image = columns.picture(size, fit=fit)
    for path, _ in source.files:
        with contextlib.suppress(Torn):
            for _, group in groups(path):
                if source.columns is None and image.find(group) is not None:
                    some = {"image": image}
                    some |= {"label": columns.Number("label")} if "cls" in group else {}
                    some |= {"caption": columns.Text("caption")} if "txt" in group else {}
                    return some
                for name in source.columns or ():
                    if columns.found(name, group, size) is None:
                        raise UserError(f"the first sample of {path} has no column {name}: its members are "
                                        f"{', '.join(group)}")
                if source.columns:
                    some = [columns.found(name, group, size) for name in source.columns]
                    return {column.name: dataclasses.replace(column, fit=fit) if hasattr(column, "fit") else column
                            for column in some}
    more = " and the other tars" if len(source.files) > 1 else ""
    raise UserError(f"no images in {source.files[0][0]}{more}: looked for members ending in {', '.join(EXTENSIONS)}")


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


def _index_one(ranges, schema, task):
    """-> one part for each split that the tar holds samples of."""
    path, pool = task
    parts = {}
    for split, ends in ranges[pool].items():
        keys = None if ends in (None, [0, 1]) else ends
        parts[split] = part_of(split, path, schema) | {"skip": [], "torn": False, "keys": keys}
    digest = hashlib.sha256()
    try:
        for position, (key, group) in enumerate(groups(path, digest)):
            at = fraction(key)
            part = next((part for part in parts.values() if part["keys"] is None or within(at, part["keys"])), None)
            if part is None:
                continue
            part["images"] += 1
            try:
                with blamed():
                    parsed = {name: column.parse(column.find(group)) for name, column in schema.items()}
                    values = {name: value if schema[name].kind in ("text", "number") else schema[name].decode(value)
                              for name, value in parsed.items()}
            except Unreadable as error:
                count_bad(part, f"{path}: {key}", error)
                part["skip"].append(position)
                continue
            count_good(part, schema, values)
    except Torn as error:
        for part in parts.values():
            part["torn"] = True
        [*parts.values()][-1]["reasons"].append((path, f"torn tar, its rest is lost: {error}"))
    for part in parts.values():
        count_pixels(part)
        part["sha256"] = digest.hexdigest()
    return [part for part in parts.values() if part["images"] or part["torn"]]
