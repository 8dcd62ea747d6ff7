"""Shards: ordinary WebDataset tars and the card that describes them.

`write` makes a folder of shards out of a source, each shard one unit of parallel work, so that the bytes depend neither
on the run nor on the number of worker processes. `groups` reads any WebDataset tar, with the standard library alone.
"""

import contextlib
import ctypes
import fcntl
import functools
import gzip
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from selfsup.data import images, sources
from selfsup.data.images import Unreadable
from selfsup.errors import UserError, nearest, nearest_path

SHARD = 1000  # items a shard
SHOWN = 20  # unreadable samples that are named; all are counted
LONGEST = 64  # tokens a caption, start and end included
VOCABULARY = 1000
SPECIAL = ("[PAD]", "[START]", "[END]", "[UNK]")  # token ids 0 … 3
MEMBER = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # key and extension, as WebDataset splits a member's name


class Torn(Exception):
    """A tar that ends early or turns into garbage: the reason, without the file's name."""


# Writing


def write(name, spec, out, workers=None):
    """Shard the data set `spec` (an entry of `datasets`, called `name`) into the folder `out`; -> the card.

    The folder appears whole or not at all. Unreadable samples are skipped, counted and reported on stderr; a share of
    them above spec.max_bad is a UserError that names the first. `workers` processes, by default one a core."""
    source = sources.open(spec)
    with replacing(out) as folder:
        if isinstance(source, sources.Tars):
            files, columns, found = _index(name, source, spec, Path(out), workers)
            classes = _numbered(found) if "label" in columns else None
        else:
            files, columns, found = _pack(name, source, spec, folder, workers)
            classes = source.classes
        bad = {split: sum(part["bad"] for part in found if part["split"] == split) for split in sources.SPLITS}
        _report(name, found, sum(bad.values()), spec.max_bad)
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
        whole = json.dumps([content, card["classes"], columns, spec.size, mean, std], sort_keys=True)
        card["hash"] = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def _origin(spec):
    """The source in words."""
    details = {"scenes": f"seed {getattr(spec, 'seed', 0)}", "torchvision": getattr(spec, "dataset", ""),
               "folder": str(spec.root), "webdataset": str(spec.root)}
    return f"{spec.source} {details.get(spec.source, '')}".strip()


def _pack(name, source, spec, folder, workers):
    """Write a source's samples into new tars."""
    from webdataset import TarWriter  # here, before the workers are forked: it takes seconds to import

    columns = ["image"] + ["label"] * (source.classes is not None) + ["caption"] * source.captions
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
            at = sources.fraction(key)
            part = next(part for part in parts.values() if part["keys"] is None or _within(at, part["keys"]))
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


def _within(at, ends):
    return ends[0] <= at < ends[1]


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


# Reading


def card_of(folder):
    """The card of a folder of shards; a UserError says what is missing and how to get it."""
    path = Path(folder) / "card.json"
    again = f"make it with `dvc repro shard@{Path(folder).name}` or fetch it with `dvc pull`"
    if not Path(folder).is_dir():
        raise UserError(f"no such data set: {folder}{nearest_path(folder)}; {again}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        missing = {"size", "columns", "classes", "counts", "shards", "mean", "std", "hash"} - card.keys()
    except FileNotFoundError:
        raise UserError(f"no data card: {path}; {again}") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"the data card {path} is damaged ({error}); {again}") from None
    if missing:
        raise UserError(f"the data card {path} lacks {', '.join(sorted(missing))}; {again}")
    return card


def entries_of(card, folder, split):
    """The card's entries for a split, with "first" (position in the split of the shard's first sample) added."""
    if split not in card["shards"]:
        raise UserError(f'{folder} has no split "{split}"{nearest(split, card["shards"])}')
    if not card["counts"][split]:
        raise UserError(f'the split "{split}" of {folder} is empty: give it a share of the samples in params.yaml')
    first, entries = 0, []
    for entry in card["shards"][split]:
        if entry["count"]:
            entries.append({**entry, "first": first})
        first += entry["count"]
    return entries


def samples(folder, card, entry):
    """The samples of one shard in order, as `parse` gives them. A UserError if the tar is not what the card says."""
    path = entry["file"] if "://" in entry["file"] else os.path.join(folder, entry["file"])
    advice = f"get it back with `dvc checkout`, or run `dvc repro shard@{Path(folder).name}`"
    skip, ends, count = set(entry.get("skip", ())), entry.get("keys", (0, 1)), 0
    try:
        for position, (key, group) in enumerate(groups(path)):
            if position in skip or not _within(sources.fraction(key), ends):
                continue
            yield parse(group, card["columns"])
            count += 1
    except Torn as error:
        if not entry.get("torn"):
            raise UserError(f"the shard {path} is torn ({error}); {advice}") from None
    except Unreadable as error:
        raise UserError(f"the shard {path} is damaged at {key} ({error}); {advice}") from None
    except FileNotFoundError:
        raise UserError(f"the shard {path} is missing; {advice}") from None
    if count != entry["count"]:
        raise UserError(f"the shard {path} holds {count} samples where its card says {entry['count']}; {advice}")


def decode(folder, entry, sample, size):
    """uint8 (size, size, 3) of a sample from `samples`."""
    try:
        return images.decode(sample["image"], size)
    except Unreadable as error:
        raise UserError(f"the shard {os.path.join(folder, entry['file'])} is damaged: an image cannot be read "
                        f"({error}); get it back with `dvc checkout`") from None


def image_of(group):
    return next((group[name] for name in images.EXTENSIONS if name in group), None)


def parse(group, columns):
    """Raw members of one sample -> {"image": file bytes, "label": int, "caption": str}, as far as in `columns`.

    Raises Unreadable where one is missing or not what it should be."""
    sample = {"image": image_of(group)}
    if sample["image"] is None:
        raise Unreadable("no image")
    if "label" in columns:
        text = group.get("cls", b"").decode("utf-8", "replace").strip()
        if not text.isascii() or not text.isdigit():
            raise Unreadable(f"the label {text!r} is not a number" if text else "no label")
        sample["label"] = int(text)
    if "caption" in columns:
        if "txt" not in group:
            raise Unreadable("no caption")
        try:
            sample["caption"] = group["txt"].decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable("the caption is not UTF-8") from None
    return sample


def groups(path, digest=None):
    """(key, {extension: bytes}) of each sample of a tar, local or remote, plain or gzipped, in order.

    Nothing is written to disk, links and special files are passed over. Raises Torn at the end if the tar is cut off or
    turns into garbage, a boundary between two members included. `digest`, a hashlib object, is fed all bytes read."""
    key, group = None, {}
    try:
        with contextlib.closing(_Watched(path, digest)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                tar.members.clear()  # else it remembers every member
                match = MEMBER.fullmatch(member.name)
                if match is None or not member.isreg() or member.issparse():
                    continue
                if match[1] != key and group:
                    yield key, group
                    group = {}
                key = match[1]
                group[match[2].lower()] = tar.extractfile(member).read()
            stream.check_end(tar.offset)
    except (tarfile.TarError, EOFError, gzip.zlib.error, gzip.BadGzipFile) as error:
        raise Torn(str(error) or type(error).__name__) from None
    if group:
        yield key, group


class _Watched:
    """A stream that notices how it ends: tarfile takes a cut between two members, or garbage there, for the end."""

    def __init__(self, path, digest):
        self.raw = sources.open_bytes(path)
        self.stream = gzip.open(self.raw) if str(path).endswith(("gz", "tgz")) else self.raw
        self.digest, self.length, self.content = digest, 0, 0

    def read(self, size):
        data = self.stream.read(size)
        self.length += len(data)
        stripped = len(data.rstrip(b"\0"))
        if stripped:
            self.content = self.length - len(data) + stripped  # the end of the last byte that is not 0
        if self.digest is not None:
            self.digest.update(data)
        return data

    def check_end(self, offset):
        """Only zeros may follow the header at which tarfile stopped, and at least one block of them."""
        while self.read(1 << 20):
            pass
        if self.content > offset:
            raise tarfile.ReadError("garbage after the last whole member")
        if self.length < offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("no end mark")

    def close(self):
        self.stream.close()
        self.raw.close()


# Files and processes


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


@contextlib.contextmanager
def naming(path):
    """Name the file in errors of writes to it, such as a full disk, which Python leaves unnamed."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def cores():
    return len(os.sched_getaffinity(0))


def parallel(work, tasks, title, total=None, workers=None):
    """Yield work(task) for each task, in order, from `workers` processes (by default one a core), with a progress bar
    that counts the tasks, or up to `total` by the results' "images". Forked: `work` may hold anything."""
    from tqdm import tqdm

    workers = min(workers or cores(), len(tasks))
    with tqdm(total=total or len(tasks), desc=title, unit=" images" if total else " tars", file=sys.stderr) as bar:
        if workers <= 1:
            for task in tasks:
                result = work(task)
                bar.update(result["images"] if total else 1)
                yield result
            return
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _prepare, (work, os.getpid()))
        try:
            for future in [pool.submit(_perform, task) for task in tasks]:
                result = future.result()
                bar.update(result["images"] if total else 1)
                yield result
        except BrokenProcessPool:
            raise UserError(f"{title}: a worker process was killed, perhaps for want of memory") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare(work, parent):
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends its workers
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no orphans
    if os.getppid() != parent:
        os._exit(1)
    if "torch" in sys.modules:  # its thread pool does not survive a fork
        sys.modules["torch"].set_num_threads(1)


def _perform(task):
    return _work(task)
