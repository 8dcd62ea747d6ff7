"""The resident reader: a split decoded once into memory-mapped arrays, one a column, of which batches are slices.

They are shared by all processes and runs through the page cache, and take memory while there is some to spare.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from selfsup import process
from selfsup.core import files
from selfsup.data import Split, tars
from selfsup.data.order import Shuffled, Steps
from selfsup.data.workers import batches as read_by

FORMAT = 2  # of the cache; to change with its layout or with how values are decoded
WAIT = 3 * 3600  # seconds for another process that decodes the same split
CHUNK = 1 << 25  # bytes decoded between two writes
BLOCK = 1 << 20  # bytes of a file that have a checksum


class Resident(Split):
    """`values`: {column: tensor (N, …)} in split order. Writing to them changes this process's copy only."""

    reader = "resident"

    def __init__(self, shards_dir, card, split, cache, columns=None):
        super().__init__(shards_dir, card, split, cache, columns)
        self.values, self.device = decoded(self, self.schema, cache), torch.device("cpu")

    def _batches(self, seed, batch, steps, rank, world, start, workers, order):
        dataset = Steps(self, order or Shuffled(), seed, batch, rank, world)
        if not workers:
            return ([dataset[step]] for step in range(start, steps))
        return ([batch] for batch in read_by(dataset, workers, range(start, steps)))

    def in_order(self, batch=512):
        for first in range(0, len(self), batch):
            index = torch.arange(first, min(first + batch, len(self)))
            yield self.take(index, torch.zeros_like(index))

    def take(self, index, epoch):
        """The batch of the samples `index` (n,), from where the values are."""
        out = {"index": index.to(self.device), "epoch": epoch.to(self.device)}
        for name, values in self.values.items():
            rows = values.view(len(self), -1).index_select(0, out["index"])  # 15 times as fast as values[index]
            out[name] = rows.view(-1, *values.shape[1:])
        return out

    def hold(self, device, memory):
        """Have the values on a device from now on, of so many bytes, if they take at most a quarter of them."""
        if 4 * sum(value.nbytes for value in self.values.values()) <= memory:
            self.values = {name: value.to(device) for name, value in self.values.items()}
            self.device = device

    def hide(self, budget, seed):
        super().hide(budget, seed)
        if "label" in self.values:
            self.values["label"] = self.numbers("label")


def decoded(split, wanted, cache):
    """{column: tensor (N, …)} of the Columns `wanted` of any Split, mapped from `cache`: what lacks there, or is no
    more what was written, is decoded, by one process, while others wait for it."""
    key = hashlib.sha256(json.dumps([split.card["hash"], split.name, FORMAT]).encode()).hexdigest()[:32]
    folder = Path(cache) / key
    paths = {name: folder / f"{name}.npy" for name in wanted}
    if not all(map(_intact, paths.values())):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with process.locked(folder.with_suffix(".lock"), WAIT, f"{split.folder} has been decoded for {WAIT} s"):
            missing = {name: column for name, column in wanted.items() if not _intact(paths[name])}
            if missing:
                for path in (paths[name] for name in missing if _sums(paths[name]).exists()):
                    print(f"{path} is damaged: it is made again", file=sys.stderr)
                _fill(split, missing, folder)
    # Copy-on-write, since torch knows no read-only tensors.
    return {name: torch.from_numpy(np.load(path, mmap_mode="c")) for name, path in paths.items()}


def _intact(path):
    """Whether a file of the cache is what was written: a disk, or a program, that changes a byte would change what is
    learned without a word. 2 GB a second and core, of what training reads anyway."""
    try:
        return _sums(path).read_bytes() == _checksums(path)
    except FileNotFoundError:
        return False


def _sums(path):
    return path.with_suffix(".crc")


def _checksums(path):
    """CRC-32 of each block of a file, one after the other."""
    with open(path, "rb") as file, ThreadPoolExecutor(process.cores()) as pool:
        starts = range(0, os.fstat(file.fileno()).st_size, BLOCK)
        found = pool.map(lambda at: zlib.crc32(os.pread(file.fileno(), BLOCK, at)), starts)
        return np.fromiter(found, "<u4", len(starts)).tobytes()


def _fill(split, wanted, folder):
    part = folder.with_suffix(".partial")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        offsets = {}
        for name, column in wanted.items():
            shape = (len(split), *column.shape)
            with files.naming(part / f"{name}.npy"):
                offsets[name] = np.lib.format.open_memmap(part / f"{name}.npy", "w+", column.dtype, shape).offset
        work = functools.partial(_decode_one, split.folder, split.card, wanted, part, offsets)
        for _ in tars.parallel(work, split.entries, f"decode {split.card['name']} {split.name}", total=len(split)):
            pass
        folder.mkdir(exist_ok=True)
        for name in wanted:
            files.write(_sums(folder / f"{name}.npy"), _checksums(part / f"{name}.npy"))
            (part / f"{name}.npy").rename(folder / f"{name}.npy")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _decode_one(folder, card, wanted, part, offsets, entry):
    """Write one shard's values to where they belong in the arrays."""
    each = max(1, CHUNK // max(1, sum(column.bytes for column in wanted.values())))
    with contextlib.ExitStack() as stack:
        opened = {}
        for name, column in wanted.items():
            opened[name] = stack.enter_context(open(part / f"{name}.npy", "r+b"))
            opened[name].seek(offsets[name] + entry["first"] * column.bytes)
        samples = tars.samples(folder, card, entry, wanted)
        while chunk := list(itertools.islice(samples, each)):
            for name, column in wanted.items():
                values = tars.stacked(folder, column, [(entry, sample[name]) for sample in chunk])
                with files.naming(part / f"{name}.npy"):
                    opened[name].write(values.data)
        for name, file in opened.items():
            with files.naming(part / f"{name}.npy"):
                file.flush()
                os.fsync(file.fileno())  # before the rename: the cache must not be believed after a power cut
    return {"images": entry["count"]}
