"""Shards: ordinary WebDataset tars and the card that describes them, written. Reading them is in `selfsup.data`.

`write` makes a folder of shards out of a source, each shard one unit of parallel work, so that the bytes depend neither
on the run nor on the number of worker processes.
"""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from selfsup import data, process, sources
from selfsup.core import files
from selfsup.data import columns, images, text
from selfsup.data.images import Unreadable, blamed
from selfsup.data.tars import hashes_of, parallel
from selfsup.errors import UserError
from selfsup.shards import twins
from selfsup.shards.index import index
from selfsup.shards.tally import SHOWN, count_bad, count_good, finish, moments, part_of
from selfsup.sources import SPLITS

SHARD = 1000  # items a shard, at most where it is by position and on average where by hash


def write(name, spec, out, workers=None):
    """Shard the data set `spec` (an entry of `datasets`, called `name`, as a dict) into the folder `out`; -> the card.

    The folder appears whole or not at all. Unreadable samples are skipped, counted and reported on stderr; a share of
    them above spec["max_bad"] is a UserError that names the first. `workers` processes, by default one a core."""
    source = sources.open(spec)
    with replacing(out) as folder:
        if isinstance(source, sources.Tars):
            listed, schema, found, classes = index(name, source, spec, Path(out), workers)
        else:
            listed, schema, found = _pack(name, source, spec, folder, workers)
            classes = source.classes or []
        schema, classes = _told_apart(schema, classes, found, source.skipped)
        bad = {split: sum(part["bad"] for part in found if part["split"] == split) for split in SPLITS}
        _report(name, found, sum(bad.values()), spec["max_bad"])
        if source.skipped:
            print(f"{name}: skipped: {'; '.join(source.skipped)}", file=sys.stderr)
        counts = {split: sum(entry["count"] for entry in listed[split]) for split in SPLITS}
        hashes = {split: np.concatenate([np.empty(0, np.uint64), *(p["hashes"] for p in found if p["split"] == split)])
                  for split in SPLITS}
        same = twins.counted(found, hashes)
        sentences = list(data.twins({"name": name, "twins": same}))
        print(*sentences, sep="\n", end="\n" * bool(sentences), file=sys.stderr)
        if not counts["train"]:
            raise UserError(f"{name}: nothing is left for the training split. {' '.join(sentences)}")
        card = {"name": name, "source": f"{spec['source']} {source.origin}".strip(), "licence": source.licence,
                "size": spec.get("size"), "columns": list(schema), "classes": classes, "counts": counts,
                "shards": listed, "mean": [], "std": [], "bad": bad}
        if "image" in schema:
            card["channels"] = schema["image"].shape[0]
            card["mean"], card["std"] = moments(sum(part["histogram"] for part in found))
        content = [[{**entry, "file": ""}, part["split"], part["sha256"]]
                   for entry, part in zip(sum(listed.values(), []), found)]
        if any(column.kind == "text" for column in schema.values()):
            concepts = spec.get("concepts") or getattr(source, "concepts", ())
            tokens, facts, schema = _tokenizer(schema, found, spec.get("tokens") or "pieces", concepts)
            files.write(folder / "tokenizer.json", tokens.to_str(pretty=True))
            card |= facts
            content.append(tokens.to_str(pretty=True))
        card |= getattr(source, "facts", {})
        card |= _described(schema, found, classes) | ({"twins": same} if same else {})
        before = {each: columns.standard(each, card["size"], card.get("caption_length")) for each in schema}
        if schema != before:
            content.append(card["schema"])
        whole = json.dumps([content, classes, list(schema), card["size"], card["mean"], card["std"]], sort_keys=True)
        card["hash"] = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
        for split in SPLITS:
            files.write(hashes_of(folder, split), images.npy(hashes[split]))
        files.write(folder / "card.json", json.dumps(card, indent=1) + "\n")
    return card


def _tokenizer(schema, found, unit, concepts):
    """The tokenizer of all training texts, what a card says of it, of the words `concepts` those that are one token
    among that, and the schema with the length of the longest text."""
    tokens, longest, counts = text.train([words for part in found for words in part["texts"]], unit)
    known = sorted(number for number in map(tokens.token_to_id, concepts) if number is not None)
    facts = {"vocabulary": len(counts), "caption_length": longest, "token_counts": counts}
    facts |= {"concepts": known} if known else {}
    return tokens, facts, {name: dataclasses.replace(column, shape=(longest,)) if column.kind == "text" else column
                           for name, column in schema.items()}


def _described(schema, found, classes):
    """What a card says of its columns, of how many samples of each class the splits have, and which splits have
    `new_classes`: none that train has."""
    facts = {"schema": {name: column.entry() for name, column in schema.items()}}
    if "label" in schema:
        labels = {split: sum((part["labels"] for part in found if part["split"] == split), Counter())
                  for split in SPLITS}
        facts["class_counts"] = {split: [some[i] for i in range(len(classes))] for split, some in labels.items()}
        if any(some[-1] for some in labels.values()):
            facts["unlabelled"] = {split: some[-1] for split, some in labels.items()}
        seen = {split: set(some) - {-1} for split, some in labels.items()}
        if new := [split for split in ("val", "test") if seen[split] and not seen[split] & seen["train"]]:
            facts["new_classes"] = new
    return facts


def _pack(name, source, spec, folder, workers):
    """Write a source's samples into new tars."""
    from webdataset import TarWriter  # here, before the workers are forked: it takes seconds to import

    fit = {"fit": spec["fit"]} if spec.get("fit") else {}
    schema = {column.name: dataclasses.replace(column, **fit) if hasattr(column, "fit") else column
              for column in source.columns}
    tasks = [(split, *cut) for split in SPLITS for cut in _cuts(source, split, spec.get("limit"))]
    limit = spec["max_bad"] * sum(source.counts.values())
    work = functools.partial(_pack_one, TarWriter, source, schema, folder)
    found = []
    for part in parallel(work, tasks, f"shard {name}", total=sum(source.counts.values()), workers=workers):
        found.append(part)
        bad = sum(part["bad"] for part in found)
        if bad > limit:
            _report(name, found, bad, spec["max_bad"], seen=sum(source.counts.values()))
    by_task = twins.apart([[part] for part in found], tasks, lambda task: [work(task)], source.carved,
                          f"shard {name}", workers)
    found = [part for (part,) in by_task]
    listed = {split: [{"file": part["file"], "count": part["count"]} for part in found if part["split"] == split]
              for split in SPLITS}
    return listed, schema, found


def _cuts(source, split, limit=None):
    """The shards of a split: (number, first item, the one after the last). Where the source has items `spread`, by that
    number, into a power of two of them, so that an item more changes one shard, and all only where there are twice as
    many; else, or of a trial's `limit`, by position."""
    count = source.counts[split]
    if source.spread is None or limit:
        return [(start // SHARD, start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
    parts = 1 << (max(0, count - 1) // SHARD).bit_length()
    bounds = [bisect.bisect_left(source.spread[split], number / parts) for number in range(parts)] + [count]
    return [(number, *cut) for number, cut in enumerate(itertools.pairwise(bounds)) if cut[0] < cut[1]]


def _pack_one(writer, source, schema, folder, task):
    split, number, start, stop, *leave = task
    leave = leave[0][split] if leave else ()
    part = part_of(split, f"{split}-{number:06d}.tar", schema)
    part["images"] = stop - start
    path = folder / part["file"]
    with files.naming(path), open(path, "wb") as file:
        # The writer's own default for mtime is the time of day.
        with writer(file, mtime=0, user="selfsup", group="selfsup", encoder=False, compress=False) as tar:
            for where, sample in source.read(split, start, stop):
                try:
                    members, values = _members(sample, schema, source.classes)
                except Unreadable as error:
                    count_bad(part, where, error)
                    continue
                if count_good(part, schema, values, leave):
                    tar.write(members)
    finish(part)
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
        with blamed():
            some, values[name] = column.encode(sample[name])
        members |= some
    if "meta" in sample:
        members["json"] = json.dumps(sample["meta"], sort_keys=True).encode()
    return members, values


def _told_apart(schema, classes, found, skipped):
    """The schema and classes, without labels that tell nothing apart: one class is no labels."""
    seen = {label for part in found for label in part["labels"]} - {-1}
    if "label" not in schema or len(seen) != 1:
        return schema, classes
    skipped.append(f"all labels, which are {classes[seen.pop()]}: one class is no labels")
    return {name: column for name, column in schema.items() if name != "label"}, []


def _report(name, found, bad, limit, seen=None):
    """Say what was skipped; a UserError where that is more than the share `limit` of the samples `seen`."""
    if not bad:
        return
    reasons = [reason for part in found for reason in part["reasons"]]
    seen = seen or bad + sum(part["count"] + part["left_out"] for part in found)
    if bad > limit * seen:
        where, why = reasons[0]
        raise UserError(f"{name}: {bad} of {seen} samples are unreadable, more than the share max_bad = {limit}; "
                        f"the first is {where}: {why}")
    print(f"{name}: skipped {bad} unreadable of {seen} samples", file=sys.stderr)
    for where, why in reasons[:SHOWN]:
        print(f"  {where}: {why}", file=sys.stderr)


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
        while not process.taken(lock):
            if time.monotonic() > deadline:
                raise UserError(f"another process is writing {out}: wait for it, or stop it first")
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
