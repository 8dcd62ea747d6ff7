"""Shards: ordinary WebDataset tars and the card that describes them.

`write` makes a folder of shards out of a source, each shard one unit of parallel work, so that the bytes depend neither
on the run nor on the number of worker processes. Reading them is in `tars`.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from selfsup.data import images, sources
from selfsup.data.images import Unreadable
from selfsup.data.tars import Torn, fraction, groups, image_of, naming, parallel, parse, within
from selfsup.errors import UserError

SHARD = 1000  # items a shard
SHOWN = 20  # unreadable samples that are named; all are counted
LONGEST = 64  # tokens a caption, start and end included
VOCABULARY = 1000
SPECIAL = ("[PAD]", "[START]", "[END]", "[UNK]")  # token ids 0 … 3


# Writing


def write(name, spec, out, workers=None):
    """Shard the data set `spec` (an entry of `datasets`, called `name`) into the folder `out`; -> the card.

    The folder appears whole or not at all. Unreadable samples are skipped, counted and reported on stderr; a share of
    them above spec.max_bad is a UserError that names the first. `workers` processes, by default one a core."""
    source = sources.open(spec)
    with replacing(out) as folder:
        if isinstance(source, sources.Tars):
            files, columns, found = _index(name, source, spec, Path(out), workers)
            classes = None
        else:
            files, columns, found = _pack(name, source, spec, folder, workers)
            classes = source.classes
        bad = {split: sum(part["bad"] for part in found if part["split"] == split) for split in sources.SPLITS}
        _report(name, found, sum(bad.values()), spec.max_bad)
        if isinstance(source, sources.Tars) and "label" in columns:
            classes = _numbered(found)
        counts = {split: sum(entry["count"] for entry in files[split]) for split in sources.SPLITS}
        if not counts["train"]:
            raise UserError(f"{name}: no image is left for the training split")
        mean, std = _moments(sum(part["histogram"] for part in found))
        card = {"name": name, "source": _origin(spec), "licence": source.licence, "size": spec.size, "channels": 3,
                "columns": columns, "classes": classes or [], "counts": counts, "shards": files, "mean": mean,
                "std": std, "bad": bad}
        content = [[{**entry, "file": ""}, part["split"], part["sha256"]]
                   for entry, part in zip(sum(files.values(), []), found)]
        if "caption" in columns:
            model, longest = train_tokenizer([text for part in found for text in part["captions"]])
            text = model.to_str(pretty=True)
            (folder / "tokenizer.json").write_text(text, encoding="utf-8")
            card |= {"vocabulary": model.get_vocab_size(), "caption_length": longest}
            content.append(text)
        if "cluster" in columns:
            card["clusters"] = source.clusters
        whole = json.dumps([content, card["classes"], columns, spec.size, mean, std], sort_keys=True)
        card["hash"] = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def _origin(spec):
    """The source in words."""
    tail = f", imbalance {spec.imbalance:g}" if getattr(spec, "imbalance", 1) != 1 else ""
    lens = f", aberration {spec.aberration:g}" if getattr(spec, "aberration", 0) else ""
    details = {"scenes": f"seed {getattr(spec, 'seed', 0)}{tail}{lens}", "torchvision": getattr(spec, "dataset", ""),
               "folder": str(spec.root), "webdataset": str(spec.root),
               "clusters": f"of {getattr(spec, 'data', '')} by {spec.root}"}
    return f"{spec.source} {details.get(spec.source, '')}".strip()


def _pack(name, source, spec, folder, workers):
    """Write a source's samples into new tars."""
    from webdataset import TarWriter  # here, before the workers are forked: it takes seconds to import

    columns = ["image"] + ["label"] * (source.classes is not None) + ["caption"] * source.captions
    columns += ["cluster"] * (source.clusters is not None)
    tasks = [(split, start, min(start + SHARD, source.counts[split]))
             for split in sources.SPLITS for start in range(0, source.counts[split], SHARD)]
    limit = spec.max_bad * sum(source.counts.values())
    work = functools.partial(_pack_one, TarWriter, source, spec.size, folder)
    found = []
    for part in parallel(work, tasks, f"shard {name}", total=sum(source.counts.values()), workers=workers):
        found.append(part)
        bad = sum(part["bad"] for part in found)
        if bad > limit:
            _report(name, found, bad, spec.max_bad, seen=sum(source.counts.values()))
    files = {split: [{"file": part["file"], "count": part["count"]} for part in found if part["split"] == split]
             for split in sources.SPLITS}
    return files, columns, found


def _pack_one(writer, source, size, folder, task):
    split, start, stop = task
    part = {"split": split, "file": f"{split}-{start // SHARD:06d}.tar", "count": 0, "bad": 0, "reasons": [],
            "histogram": np.zeros((3, 256), np.int64), "captions": [], "images": stop - start}
    path = folder / part["file"]
    with naming(path), open(path, "wb") as file:
        # The writer's own default for mtime is the time of day.
        with writer(file, mtime=0, user="selfsup", group="selfsup", encoder=False, compress=False) as tar:
            for where, sample in source.read(split, start, stop):
                try:
                    members, pixels = _members(sample, size, source.classes)
                except Unreadable as error:
                    _count_bad(part, where, error)
                    continue
                tar.write(members)
                part["count"] += 1
                if split == "train":
                    part["histogram"] += histogram(pixels)
                    part["captions"] += [sample["caption"]] if source.captions else []
    with open(path, "rb") as file:
        part["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return part


def _members(sample, size, classes):
    """One sample as WebDataset's writer takes it, and its pixels."""
    if isinstance(sample, Unreadable):
        raise sample
    members = {"__key__": sample["key"]}
    if classes is not None:
        label = sample.get("label")
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise Unreadable(f"the label {label!r} is not one of 0 … {len(classes) - 1}")
        members["cls"] = str(label).encode()
    if "caption" in sample:
        members["txt"] = sample["caption"].encode()
    if "cluster" in sample:
        members["cluster.cls"] = str(sample["cluster"]).encode()
    if "meta" in sample:
        members["json"] = json.dumps(sample["meta"], sort_keys=True).encode()
    extension, data, pixels = images.encode(sample["image"], size)
    members[extension] = data
    return members, pixels


def _index(name, source, spec, out, workers):
    """Read existing tars through once, for a card that points at them."""
    columns = _columns(source.files)
    work = functools.partial(_index_one, source.carve, columns, spec.size)
    by_tar = list(parallel(work, source.files, f"read {name}", workers=workers))
    for parts in by_tar:  # how much a tear has cost is unknown: guess from what the other tars hold
        if parts[-1]["torn"]:
            whole = max(sum(part["images"] for part in some) for some in by_tar)
            parts[-1]["bad"] += max(1, whole - sum(part["images"] for part in parts))
    found = sorted((part for parts in by_tar for part in parts), key=lambda part: sources.SPLITS.index(part["split"]))
    files = {split: [] for split in sources.SPLITS}
    for part in found:
        file = part["file"]
        if "://" not in file and not os.path.isabs(file):
            file = os.path.relpath(file, out)
        entry = {"file": file, "count": part["count"]}
        entry |= {key: part[key] for key in ("keys", "skip", "torn") if part[key]}
        files[part["split"]].append(entry)
    return files, columns, found


def _columns(files):
    """The columns of the first readable sample: what all others must have too."""
    for path, _ in files:
        with contextlib.suppress(Torn):
            for _, group in groups(path):
                if image_of(group) is not None:
                    return ["image"] + ["label"] * ("cls" in group) + ["caption"] * ("txt" in group)
    raise UserError(f"no images in {files[0][0]}{' and the other tars' if len(files) > 1 else ''}: looked for members "
                    f"ending in {', '.join(images.EXTENSIONS)}")


def _index_one(carve, columns, size, task):
    """-> one part for each split that the tar holds samples of."""
    path, split = task
    ranges = {key: list(ends) for key, ends in carve.items()} if split == "train" else {split: None}
    parts = {key: {"split": key, "file": path, "count": 0, "bad": 0, "reasons": [], "skip": [], "torn": False,
                   "histogram": np.zeros((3, 256), np.int64), "captions": [], "labels": set(), "images": 0,
                   "keys": None if ends in (None, [0, 1]) else ends} for key, ends in ranges.items()}
    digest = hashlib.sha256()
    try:
        for position, (key, group) in enumerate(groups(path, digest)):
            at = fraction(key)
            part = next(part for part in parts.values() if part["keys"] is None or within(at, part["keys"]))
            part["images"] += 1
            try:
                sample = parse(group, columns)
                pixels = images.decode(sample["image"], size)
            except Unreadable as error:
                _count_bad(part, f"{path}: {key}", error)
                part["skip"].append(position)
                continue
            part["count"] += 1
            part["labels"].add(sample.get("label"))
            if part["split"] == "train":
                part["histogram"] += histogram(pixels)
                part["captions"] += [sample["caption"]] if "caption" in columns else []
    except Torn as error:
        for part in parts.values():
            part["torn"] = True
        [*parts.values()][-1]["reasons"].append((path, f"torn tar, its rest is lost: {error}"))
    for part in parts.values():
        part["sha256"] = digest.hexdigest()
    return [part for part in parts.values() if part["images"] or part["torn"]]


def _numbered(found):
    """Class names of tars that only number them."""
    return [str(i) for i in range(max(max(part["labels"]) for part in found if part["labels"]) + 1)]


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


def histogram(pixels):
    """uint8 (H, W, 3) -> how often each value occurs, int64 (3, 256): sums of these are exact in any order."""
    return np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)])


def _moments(counts):
    """Per-channel mean and standard deviation, of values in 0 … 1."""
    values = np.arange(256) / 255
    weights = counts / counts.sum(1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.maximum(std, 1 / 255).tolist()  # never 0, since images are divided by it


def train_tokenizer(captions):
    """A small lower-case byte-pair `tokenizers.Tokenizer` that pads with 0 and cuts at LONGEST, and the number of
    tokens of the longest of `captions`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    model = Tokenizer(models.BPE(unk_token="[UNK]"))
    model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False,
                                  limit_alphabet=VOCABULARY // 2, initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"))
    model.train_from_iterator(captions, trainer)
    model.post_processor = processors.TemplateProcessing(single="[START] $A [END]",
                                                         special_tokens=[("[START]", 1), ("[END]", 2)])
    model.enable_truncation(LONGEST)
    longest = max(len(encoding.ids) for encoding in model.encode_batch(captions))
    model.enable_padding(pad_id=0, pad_token="[PAD]")
    return model, longest


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
