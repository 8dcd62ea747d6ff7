"""Shards: ordinary WebDataset tars and the card that describes them, written. Reading them is in `selfsup.data`.

`write` makes a folder of shards out of a source, each shard one unit of parallel work, so that the bytes depend neither
on the run nor on the number of worker processes.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from selfsup import sources
from selfsup.data import columns, text
from selfsup.data.images import EXTENSIONS, Unreadable
from selfsup.data.tars import Torn, fraction, groups, hashes_of, naming, parallel, within
from selfsup.errors import UserError
from selfsup.sources import SPLITS

SHARD = 1000  # items a shard
COUNTED = 1 << 18  # bytes of images
SHOWN = 20  # unreadable samples that are named; all are counted


def write(name, spec, out, workers=None):
    """Shard the data set `spec` (an entry of `datasets`, called `name`, as a dict) into the folder `out`; -> the card.

    The folder appears whole or not at all. Unreadable samples are skipped, counted and reported on stderr; a share of
    them above spec["max_bad"] is a UserError that names the first. `workers` processes, by default one a core."""
    source = sources.open(spec)
    with replacing(out) as folder:
        if isinstance(source, sources.Tars):
            files, schema, found = _index(name, source, spec, Path(out), workers)
            classes = _numbered(found) if "label" in schema else []
        else:
            files, schema, found = _pack(name, source, spec, folder, workers)
            classes = source.classes or []
        bad = {split: sum(part["bad"] for part in found if part["split"] == split) for split in SPLITS}
        _report(name, found, sum(bad.values()), spec["max_bad"])
        counts = {split: sum(entry["count"] for entry in files[split]) for split in SPLITS}
        if not counts["train"]:
            raise UserError(f"{name}: nothing is left for the training split")
        card = {"name": name, "source": f"{spec['source']} {source.origin}".strip(), "licence": source.licence,
                "size": spec["size"], "columns": list(schema), "classes": classes, "counts": counts, "shards": files,
                "mean": [], "std": [], "bad": bad}
        if "image" in schema:
            card["channels"] = schema["image"].shape[0]
            card["mean"], card["std"] = _moments(sum(part["histogram"] for part in found))
        content = [[{**entry, "file": ""}, part["split"], part["sha256"]]
                   for entry, part in zip(sum(files.values(), []), found)]
        if any(column.kind == "text" for column in schema.values()):
            tokens, longest, schema = _tokenizer(schema, found)
            (folder / "tokenizer.json").write_text(tokens.to_str(pretty=True), encoding="utf-8")
            card |= {"vocabulary": tokens.get_vocab_size(), "caption_length": longest}
            content.append(tokens.to_str(pretty=True))
        card |= getattr(source, "facts", {})
        card |= _described(schema, found, classes)
        if any(column != columns.standard(each, spec["size"], card.get("caption_length")) for each, column in schema.items()):
            content.append(card["schema"])
        whole = json.dumps([content, classes, list(schema), spec["size"], card["mean"], card["std"]], sort_keys=True)
        card["hash"] = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
        for split in SPLITS:
            hashes = [part["hashes"] for part in found if part["split"] == split]
            np.save(hashes_of(folder, split), np.array(sum(hashes, []), np.uint64))
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def _tokenizer(schema, found):
    """The tokenizer of all training texts, how many tokens the longest has, and the schema with that length."""
    tokens, longest = text.train([words for part in found for words in part["texts"]])
    return tokens, longest, {name: dataclasses.replace(column, shape=(longest,)) if column.kind == "text" else column
                             for name, column in schema.items()}


def _described(schema, found, classes):
    """What a card says of its columns, and of how many samples of each class the splits have."""
    facts = {"schema": {name: column.entry() for name, column in schema.items()}}
    if "label" in schema:
        labels = {split: sum((part["labels"] for part in found if part["split"] == split), Counter()) for split in SPLITS}
        facts["class_counts"] = {split: [some[i] for i in range(len(classes))] for split, some in labels.items()}
        if any(some[-1] for some in labels.values()):
            facts["unlabelled"] = {split: some[-1] for split, some in labels.items()}
    return facts


def _part(split, file, schema):
    """What is known of the samples of one split in one tar."""
    part = {"split": split, "file": file, "count": 0, "bad": 0, "reasons": [], "texts": [], "labels": Counter(),
            "hashes": [], "images": 0}
    if "image" in schema:
        image = schema["image"]
        part["histogram"] = np.zeros((image.shape[0], np.iinfo(image.dtype).max + 1), np.int64)
        part["uncounted"] = []  # images that the histogram lacks as yet: counted together it takes half the time
    return part


def _count_good(part, schema, values):
    """values: {column: decoded value}, a text or number as it is."""
    part["count"] += 1
    main = values[next(iter(schema))]
    main = np.ascontiguousarray(main) if isinstance(main, np.ndarray) else str(main).encode()
    part["hashes"].append(int.from_bytes(hashlib.blake2b(main, digest_size=8).digest(), "big"))
    if "label" in schema:
        part["labels"][values["label"]] += 1
    if part["split"] == "train":
        if "image" in schema:
            part["uncounted"].append(values["image"])
            if len(part["uncounted"]) * values["image"].nbytes > COUNTED:
                _count_pixels(part)
        part["texts"] += [values[name] for name, column in schema.items() if column.kind == "text"]


def _count_pixels(part):
    """Bring the histogram up to date."""
    if part.get("uncounted"):
        part["histogram"] += histogram(np.stack(part["uncounted"]), part["histogram"].shape[1])
        part["uncounted"].clear()


def _pack(name, source, spec, folder, workers):
    """Write a source's samples into new tars."""
    from webdataset import TarWriter  # here, before the workers are forked: it takes seconds to import

    fit = {"fit": spec["fit"]} if spec.get("fit") else {}
    schema = {column.name: dataclasses.replace(column, **fit) if hasattr(column, "fit") else column
              for column in source.columns}
    tasks = [(split, start, min(start + SHARD, source.counts[split]))
             for split in SPLITS for start in range(0, source.counts[split], SHARD)]
    limit = spec["max_bad"] * sum(source.counts.values())
    work = functools.partial(_pack_one, TarWriter, source, schema, folder)
    found = []
    for part in parallel(work, tasks, f"shard {name}", total=sum(source.counts.values()), workers=workers):
        found.append(part)
        bad = sum(part["bad"] for part in found)
        if bad > limit:
            _report(name, found, bad, spec["max_bad"], seen=sum(source.counts.values()))
    files = {split: [{"file": part["file"], "count": part["count"]} for part in found if part["split"] == split]
             for split in SPLITS}
    return files, schema, found


def _pack_one(writer, source, schema, folder, task):
    split, start, stop = task
    part = _part(split, f"{split}-{start // SHARD:06d}.tar", schema)
    part["images"] = stop - start
    path = folder / part["file"]
    with naming(path), open(path, "wb") as file:
        # The writer's own default for mtime is the time of day.
        with writer(file, mtime=0, user="selfsup", group="selfsup", encoder=False, compress=False) as tar:
            for where, sample in source.read(split, start, stop):
                try:
                    members, values = _members(sample, schema, source.classes)
                except Unreadable as error:
                    _count_bad(part, where, error)
                    continue
                tar.write(members)
                _count_good(part, schema, values)
    _count_pixels(part)
    with open(path, "rb") as file:
        part["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return part


def _members(sample, schema, classes):
    """One sample as WebDataset's writer takes it, and its decoded values."""
    if isinstance(sample, Unreadable):
        raise sample
    members, values = {"__key__": sample["key"]}, {}
    if classes is not None:
        label = sample.get("label")
        if not isinstance(label, int) or not -1 <= label < len(classes):
            raise Unreadable(f"the label {label!r} is not one of 0 … {len(classes) - 1}")
    for name, column in schema.items():
        if sample.get(name) is None:
            raise Unreadable(f"no {name}")
        some, values[name] = column.encode(sample[name])
        members |= some
    if "meta" in sample:
        members["json"] = json.dumps(sample["meta"], sort_keys=True).encode()
    return members, values


def _index(name, source, spec, out, workers):
    """Read existing tars through once, for a card that points at them."""
    schema = _found(source, spec)
    ranges = {split: {split: None} for split in SPLITS} | {"train": {key: list(ends) for key, ends in source.carve.items()}}
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
                    further = [columns.Number("label")] * ("cls" in group) + [columns.Text("caption")] * ("txt" in group)
                    return {column.name: column for column in [image, *further]}
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
                split = next(split for split, ends in ranges[pool].items() if ends is None or within(fraction(key), ends))
                at[split].append(fraction(key))
    last = {split: sorted(some)[source.limit] for split, some in at.items() if len(some) > source.limit}
    return {pool: {split: [(ends or [0, 1])[0], last[split]] if split in last else ends for split, ends in some.items()}
            for pool, some in ranges.items()}


def _index_one(ranges, schema, task):
    """-> one part for each split that the tar holds samples of."""
    path, pool = task
    parts = {split: _part(split, path, schema) | {"skip": [], "torn": False, "keys": None if ends in (None, [0, 1]) else ends}
             for split, ends in ranges[pool].items()}
    digest = hashlib.sha256()
    try:
        for position, (key, group) in enumerate(groups(path, digest)):
            at = fraction(key)
            part = next((part for part in parts.values() if part["keys"] is None or within(at, part["keys"])), None)
            if part is None:
                continue
            part["images"] += 1
            try:
                parsed = {name: column.parse(column.find(group)) for name, column in schema.items()}
                values = {name: value if schema[name].kind in ("text", "number") else schema[name].decode(value)
                          for name, value in parsed.items()}
            except Unreadable as error:
                _count_bad(part, f"{path}: {key}", error)
                part["skip"].append(position)
                continue
            _count_good(part, schema, values)
    except Torn as error:
        for part in parts.values():
            part["torn"] = True
        [*parts.values()][-1]["reasons"].append((path, f"torn tar, its rest is lost: {error}"))
    for part in parts.values():
        _count_pixels(part)
        part["sha256"] = digest.hexdigest()
    return [part for part in parts.values() if part["images"] or part["torn"]]


def _numbered(found):
    """Class names of tars that only number them."""
    return [str(i) for i in range(max((max(part["labels"]) for part in found if part["labels"]), default=-1) + 1)]


def _count_bad(part, where, error):
    part["bad"] += 1
    if len(part["reasons"]) < SHOWN:
        part["reasons"].append((where, str(error)))


def _report(name, found, bad, limit, seen=None):
    """Say what was skipped; a UserError where that is more than the share `limit` of the samples `seen`."""
    if not bad:
        return
    reasons = [reason for part in found for reason in part["reasons"]]
    seen = seen or bad + sum(part["count"] for part in found)
    if bad > limit * seen:
        where, why = reasons[0]
        raise UserError(f"{name}: {bad} of {seen} samples are unreadable, more than the share max_bad = {limit}; "
                        f"the first is {where}: {why}")
    print(f"{name}: skipped {bad} unreadable of {seen} samples", file=sys.stderr)
    for where, why in reasons[:SHOWN]:
        print(f"  {where}: {why}", file=sys.stderr)


def histogram(pixels, values=256):
    """(N, C, H, W) of integers -> how often each of so many values occurs, int64 (C, values): exact in any order."""
    return np.stack([np.bincount(pixels[:, c].ravel(), minlength=values) for c in range(pixels.shape[1])])


def _moments(counts):
    """Per-channel mean and standard deviation, of values in 0 … 1."""
    values = np.arange(counts.shape[1]) / (counts.shape[1] - 1)
    weights = counts / counts.sum(1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.maximum(std, 1 / (counts.shape[1] - 1)).tolist()  # never 0, since images are divided by it


@contextlib.contextmanager
def replacing(out, patience=5.0):
    """A fresh folder that becomes `out` when the block ends well, and is removed when it does not. One writer at a
    time: a second gives up after `patience` seconds. What a killed one left behind is cleared by the next."""
    out = Path(out)
    part = out.with_name(f".{out.name}.partial")
    part.mkdir(parents=True, exist_ok=True)
    lock = os.open(part, os.O_RDONLY)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"another process is writing {out}: wait for it, or stop it first") from None
                time.sleep(0.1)
        try:
            for old in part.iterdir():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            yield part
            aside = out.with_name(f".{out.name}.old")
            shutil.rmtree(aside, ignore_errors=True)
            if out.exists():
                out.rename(aside)
            part.rename(out)
            shutil.rmtree(aside, ignore_errors=True)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    finally:
        os.close(lock)
