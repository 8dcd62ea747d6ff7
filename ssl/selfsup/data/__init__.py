"""Data: `open` reads a split of a folder of shards in one of two ways behind one interface."""

import dataclasses
import os
import sys

from selfsup.data import tars
from selfsup.data.columns import of
from selfsup.data.text import tokenizer
from selfsup.errors import UserError, nearest

READERS = ("auto", "resident", "streaming")


def open(shards_dir, split, reader="auto", cache="data/cache", columns=None, labels=None, seed=0):
    """A Split of the shards in `shards_dir`.

    reader "resident": decoded once into memory-mapped arrays under `cache`, shared by processes and runs. "streaming":
    read from the tars as one goes. "auto": resident, if the decoded split takes half the machine's memory or less.
    columns: those to read, by default all; others cost neither decoding nor memory. labels: of the split train only so
    many (int), or that share (float), are shown, by `seed` (order.revealed); the others are -1."""
    card = tars.card_of(shards_dir)
    if reader not in READERS:
        raise UserError(f'there is no reader "{reader}"{nearest(reader, READERS)}')
    tars.entries_of(card, shards_dir, split)  # an unknown or empty split is an error now, not at the first batch
    for name in columns or ():
        if name not in card["columns"]:
            raise UserError(f'{shards_dir} has no column "{name}"{nearest(name, card["columns"])}')
    if reader == "auto":
        # Not the free memory: a resumed run must choose the same reader, since their orders differ.
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        decoded = card["counts"][split] * sum(column.bytes for name, column in of(card).items()
                                              if columns is None or name in columns)
        reader = "resident" if decoded <= memory / 2 else "streaming"
    if reader == "resident":
        from selfsup.data.resident import Resident as Reader
    else:
        from selfsup.data.streaming import Streaming as Reader
    opened = Reader(shards_dir, card, split, cache, columns)
    if labels is not None and split == "train":
        opened.hide(labels, seed)
    return opened


def shared(shards, split, others, other_split):
    """How many images of a split stand in another one, value by value; None where that is unknown, since a folder of
    shards is from before hashes were kept, or the images differ in size."""
    import numpy as np

    cards = [tars.card_of(folder) for folder in (shards, others)]
    paths = [tars.hashes_of(folder, name) for folder, name in ((shards, split), (others, other_split))]
    main = [next(iter(of(card).values())) for card in cards]
    if main[0] != main[1] or not all(path.exists() for path in paths):
        return None
    here, there = (np.load(path) for path in paths)
    return int(np.isin(here, there).sum())


def twins(card):
    """What the shard stage found of samples that stand in two splits, in sentences."""
    found, others = card.get("twins", {}), {"train": "val or test", "val": "test", "test": "val"}
    for split, count in found.get("left_out", {}).items():
        yield (f"Left out of {card['name']}: {count:,} sample{'s' * (count > 1)}, carved into {split}, of which the like "
               f"stands in {others[split]}, value by value.")
    for split, some in found.get("between", {}).items():
        for other, count in some.items():
            yield (f"The {split} and {other} splits of {card['name']} were given and share samples, value by value: "
                   f"{count:,} of {split} stand in {other}.")


class Split:
    """One split of a data set. `card` is its data card, `columns` the names of what is read of its samples, `reader`
    how."""

    reader = ""

    def __init__(self, shards_dir, card, split, cache, columns=None):
        self.folder, self.card, self.name, self.cache = str(shards_dir), card, split, cache
        self.entries = tars.entries_of(card, shards_dir, split)
        self.schema = {name: column for name, column in of(card).items() if columns is None or name in columns}
        self.hidden = {}  # column -> (N,) numbers of which some are hidden
        self.tokenizer = None
        texts = [name for name, column in self.schema.items() if column.kind == "text"]
        try:
            self.tokenizer = tokenizer(shards_dir) if texts else None
        except UserError as error:
            if columns is not None:
                raise
            self.schema = {name: column for name, column in self.schema.items() if name not in texts}
            print(f"{shards_dir}: {'s, '.join(texts)}s are left out: {error}", file=sys.stderr)
            texts = []  # methods that want no captions still work
        for name in texts:
            self.schema[name] = dataclasses.replace(self.schema[name], tokenizer=self.tokenizer)
        self.columns = list(self.schema)

    def __len__(self):
        return self.card["counts"][self.name]

    def batches(self, seed, batch, images, rank=0, world=1, start=0, workers=0, order=None, pin=False):
        """Iterate over this rank's part of the training steps `start` … images // batch - 1, each a dict of tensors

        of the columns, as `columns` shapes them: image uint8 (n, C, H, W), label int64 (n,) (-1 where it is missing) …;
        and index int64 (n,) position in the split, epoch int64 (n,); n = batch / world.

        order: who is in a batch (data.order), by default `Shuffled()`: each pair (epoch, sample) comes once, nothing is
        dropped, a batch may span the border of two epochs. The streaming reader, which sees a shard at a time, has an
        order of its own and no other: any other one is a UserError. The samples are a pure function of seed, batch and
        step: `start` only says where to begin, rank and workers who reads. `pin`: see workers.joined."""
        from selfsup.data.workers import joined

        if batch % world:
            raise UserError(f"train.batch: {batch} images cannot be split evenly over {world} processes")
        pieces = self._batches(seed, batch, images // batch, rank, world, start, workers, order)
        return (joined(some, pin) for some in pieces)

    def numbers(self, column):
        """A column of numbers of all samples in split order, whether it is read or not: int64 (N,)."""
        if column not in self.hidden:
            known = of(self.card)
            if column not in known or known[column].kind != "number":
                raise UserError(f'{self.folder} has no column of numbers "{column}"{nearest(column, known)}')
            from selfsup.data.resident import decoded

            return decoded(self, {column: known[column]}, self.cache)[column]
        return self.hidden[column]

    def hide(self, budget, seed):
        """Show `budget` labels only, see `open`: from now on the others are -1."""
        from selfsup.data import order

        labels = self.numbers("label")
        self.hidden["label"] = labels.where(order.revealed(labels, budget, seed), -1)

    def in_order(self, batch=512):
        """All samples once, in the order of the split, as dicts like those of `batches` (epoch is 0)."""
        raise NotImplementedError

    def _batches(self, seed, batch, steps, rank, world, start, workers, order):
        """Of each step the pieces of its batch, a list."""
        raise NotImplementedError
