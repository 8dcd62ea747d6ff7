"""The resident reader: a split decoded once into a memory-mapped array, of which batches are slices.

The array is shared by all processes and runs through the page cache; it takes memory while there is some to spare.
Position p of the endless stream of samples is entry p % N of the permutation of (seed, p // N); step b takes p in
[b * batch, (b + 1) * batch), and rank r the r-th contiguous part of that.
"""

import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch

from selfsup.core import rng
from selfsup.data import Split, tars

FORMAT = 1  # of the cache; to change with its layout or with how images are decoded


class Resident(Split):
    """`images` uint8 (N, C, H, W), `labels` and `clusters` int64 (N,) or None, `captions` list of str or None, `tokens`
    int64 (N, L) or None: all in split order. Writing to them changes this process's copy only."""

    reader = "resident"

    def __init__(self, shards_dir, card, split, cache):
        super().__init__(shards_dir, card, split)
        key = hashlib.sha256(json.dumps([card["hash"], split, FORMAT]).encode()).hexdigest()[:32]
        folder = Path(cache) / key
        if not folder.exists():
            self._fill(folder)
        self.images = _mapped(folder / "images.npy")
        self.labels = _mapped(folder / "labels.npy") if "label" in card["columns"] else None
        self.clusters = _mapped(folder / "clusters.npy") if "cluster" in card["columns"] else None
        self.captions = self.tokens = None
        if "caption" in card["columns"]:
            self.captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        if self.tokenizer is not None:
            self.tokens = torch.tensor(self.encode(self.captions))

    def _fill(self, folder):
        """Decode into `folder`: by one process, while others wait for it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return
            part = folder.with_suffix(".partial")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                self._decode(part)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            part.rename(folder)

    def _decode(self, folder):
        size, path = self.card["size"], folder / "images.npy"
        header = np.lib.format.open_memmap(path, "w+", np.uint8, (len(self), 3, size, size)).offset
        work = functools.partial(_decode_one, self.folder, self.card, path, header)
        found = list(tars.parallel(work, self.entries, f"decode {self.card['name']} {self.name}", total=len(self)))
        with tars.naming(folder):
            for column in tars.NUMBERS:
                if column in self.card["columns"]:
                    numbers = itertools.chain.from_iterable(part[f"{column}s"] for part in found)
                    np.save(folder / f"{column}s.npy", np.fromiter(numbers, np.int64))
            if "caption" in self.card["columns"]:
                captions = list(itertools.chain.from_iterable(part["captions"] for part in found))
                (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")

    def _batches(self, seed, batch, steps, rank, world, start, workers):
        dataset = _Steps(self, seed, batch, rank, world)
        if not workers:
            return (dataset[step] for step in range(start, steps))
        return iter(torch.utils.data.DataLoader(dataset, None, sampler=range(start, steps), num_workers=workers))

    def in_order(self, batch=512):
        for first in range(0, len(self), batch):
            index = torch.arange(first, min(first + batch, len(self)))
            yield self.take(index, torch.zeros_like(index))

    def take(self, index, epoch):
        """The batch of the samples `index` (n,)."""
        rows = self.images.view(len(self), -1).index_select(0, index)  # 15 times as fast as images[index]
        out = {"image": rows.view(-1, *self.images.shape[1:]), "index": index, "epoch": epoch}
        if self.labels is not None:
            out["label"] = self.labels[index]
        if self.clusters is not None:
            out["cluster"] = self.clusters[index]
        if self.tokens is not None:
            out["caption"] = self.tokens[index]
        return out


class _Steps(torch.utils.data.Dataset):
    """Batches by step: which one a worker makes does not depend on what it made before."""

    def __init__(self, split, seed, batch, rank, world):
        self.split, self.seed, self.batch, self.share, self.rank = split, seed, batch, batch // world, rank
        self.orders = {}

    def order(self, epoch):
        if epoch not in self.orders:
            self.orders = {e: order for e, order in self.orders.items() if e == epoch - 1}
            self.orders[epoch] = rng.permutation(len(self.split), self.seed, epoch)
        return self.orders[epoch]

    def __getitem__(self, step):
        first = step * self.batch + self.rank * self.share
        position = torch.arange(first, first + self.share)
        epoch = position // len(self.split)
        index = torch.empty_like(position)
        for e in range(int(epoch[0]), int(epoch[-1]) + 1):
            here = epoch == e
            index[here] = self.order(e)[position[here] % len(self.split)]
        return self.split.take(index, epoch)


def _decode_one(folder, card, path, header, entry):
    """Write one shard's pixels to where they belong in the array; its labels and captions are the result."""
    found = {"labels": [], "clusters": [], "captions": [], "images": entry["count"]}
    with tars.naming(path), open(path, "r+b") as file:
        file.seek(header + entry["first"] * 3 * card["size"] ** 2)
        for sample in tars.samples(folder, card, entry):
            file.write(tars.decode(folder, entry, sample, card["size"]).transpose(2, 0, 1).tobytes())
            for column in tars.NUMBERS:
                found[f"{column}s"].append(sample.get(column))
            found["captions"].append(sample.get("caption"))
        file.flush()
        os.fsync(file.fileno())  # before the rename: the cache must not be believed after a power cut
    return found


def _mapped(path):
    return torch.from_numpy(np.load(path, mmap_mode="c"))  # copy-on-write, since torch knows no read-only tensors
