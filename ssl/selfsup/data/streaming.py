"""The streaming reader, for splits larger than memory: tars, local or remote, read in sequence and decoded on the way.

A batch is filled by `lanes`, each an endless stream of samples that supplies the same part of every batch. Shards are
shuffled anew each epoch, by (seed, epoch), and dealt to the lanes in turn: of the shards of all epochs put end to end,
the s-th goes to lane s % lanes. Within a shard, blocks of BLOCK samples are shuffled by (seed, epoch, shard, block).
A rank reads some of the lanes, each of its workers some of those. What follows:
- The number of lanes does not depend on the number of processes if that divides it, nor ever on the number of workers:
  the global batches are then the same for 1 or N processes.
- A lane never ends, so every rank has as many batches as it is asked for, however uneven its shards.
- Every pair (epoch, sample) comes exactly once. Lanes go on to their next shard by themselves: where shards are equal
  and the lanes divide their number, epochs end together; else lanes run ahead of others, by a shard or so.
- To resume, whole shards are passed over unread, and part of one undecoded.

Of a local tar a block is where its samples lie, and they are read as they are wanted; of a remote or gzipped one it is
their encoded bytes. Either way a lane reads as much of the next block as it hands out of this one, so that no step
waits for a whole one.
"""

import collections
import itertools
import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from selfsup.core import rng
from selfsup.data import Split, tars
from selfsup.data.order import Shuffled
from selfsup.data.workers import batches as read_by
from selfsup.errors import UserError

LANES = 16  # at most, unless there are more processes than that
BLOCK = 1000  # samples that a lane shuffles


class Streaming(Split):
    reader = "streaming"

    def lanes(self, batch, world):
        """How many lanes fill a batch: the same for any `world` if possible, and never more than there are shards."""
        fits = [n for n in range(1, min(len(self.entries), batch) + 1) if batch % n == 0]
        usual = max(n for n in fits if n <= LANES)
        if usual % world == 0:
            return usual
        fits = [n for n in fits if n % world == 0]
        if not fits:
            raise UserError(f"{self.folder} has {len(self.entries)} shards in {self.name}: too few to stream a batch "
                            f"of {batch} to {world} processes; use train.reader: resident, or fewer processes")
        return min(fits, key=lambda n: (abs(n - LANES), n))

    def _batches(self, seed, batch, steps, rank, world, start, workers, order):
        partial = isinstance(order, Shuffled) and order.labelled and (
            "label" in self.hidden or self.card.get("unlabelled", {}).get(self.name))
        if partial or order is not None and not isinstance(order, Shuffled):
            what = "batches of labelled samples alone" if partial else f"{type(order).__name__} batches"
            raise UserError(f"{what} need the whole split at hand: use train.reader: resident")
        lanes = self.lanes(batch, world)
        mine = range(rank * lanes // world, (rank + 1) * lanes // world)
        parts = [part.tolist() for part in np.array_split(mine, min(max(workers, 1), len(mine)))]
        dataset = _Lanes(self, seed, batch // lanes, lanes, parts, start, steps)
        if not workers:
            return ([batch] for batch in dataset)
        return _in_pieces(read_by(dataset, len(parts)), len(parts))

    def in_order(self, batch=512):
        def samples():
            for entry in self.entries:
                for position, sample in enumerate(tars.samples(self.folder, self.card, entry, self.schema)):
                    yield 0, entry, position, sample

        some = []
        for item in samples():
            some.append(item)
            if len(some) == batch:
                yield self.collate(some)
                some = []
        if some:
            yield self.collate(some)

    def collate(self, items):
        """The batch of (epoch, entry, position in the shard, parsed sample) items."""
        out = {}
        for name, column in self.schema.items():
            values = [(entry, sample[name]) for _, entry, _, sample in items]
            out[name] = torch.from_numpy(tars.stacked(self.folder, column, values))
        out["index"] = torch.tensor([entry["first"] + position for _, entry, position, _ in items])
        out["epoch"] = torch.tensor([epoch for epoch, *_ in items])
        return out | {name: numbers[out["index"]] for name, numbers in self.hidden.items() if name in out}

    def lane(self, seed, lane, lanes, skip):
        """The endless stream of one lane, from its `skip`-th sample on: (epoch, entry, position in the shard, parsed
        sample). While one block is handed out the next one is read, a sample of it for each of the other."""
        known, known_too = itertools.tee(self.blocks(seed, lane, lanes, skip))
        reading = self.read(known)
        held = None
        for block, following in itertools.pairwise(known_too):
            held = held or list(itertools.islice(reading, block.count))
            order = rng.permutation(block.count, seed, block.epoch, block.shard, block.first // BLOCK).tolist()
            ahead, order = [], order[block.skip:]
            for given, at in enumerate(order, 1):
                (key, group), held[at] = held[at], None
                sample = tars.parsed(self.folder, block.entry, key, group, self.schema)
                yield block.epoch, block.entry, block.first + at, sample
                ahead += itertools.islice(reading, following.count * given // len(order) - len(ahead))
            held = ahead

    def blocks(self, seed, lane, lanes, skip):
        """The endless sequence of the blocks of one lane, from that on in which its `skip`-th sample is."""
        for turn in itertools.count(lane, lanes):  # place in the sequence of the shards of all epochs
            epoch, place = divmod(turn, len(self.entries))
            if turn - lanes < epoch * len(self.entries):  # the lane's first shard of this epoch
                order = rng.permutation(len(self.entries), seed, epoch).tolist()
            shard = order[place]
            entry = self.entries[shard]
            for first in range(0, entry["count"], BLOCK):
                count = min(BLOCK, entry["count"] - first)
                if skip < count:
                    yield _Block(epoch, shard, entry, first, count, skip)
                skip = max(0, skip - count)

    def read(self, blocks):
        """(key, members) of each sample of the blocks, in the order of their tars."""
        tar, at = None, 0
        for block in blocks:
            if tar is None:
                tar, at = tars.members(self.folder, block.entry, self.schema.values(), later=True), 0
            yield from itertools.islice(tar, block.first - at, block.first - at + block.count)
            at = block.first + block.count
            if at == block.entry["count"]:
                collections.deque(tar, maxlen=0)  # it says at its end whether it is what the card says
                tar = None


class _Block(typing.NamedTuple):
    epoch: int
    shard: int
    entry: dict
    first: int  # position in the shard of its first sample
    count: int
    skip: int  # how many of its samples were handed out before


class _Lanes(torch.utils.data.IterableDataset):
    """Batches of some lanes; a DataLoader's worker w takes parts[w], each step one piece of the batch."""

    def __init__(self, split, seed, share, lanes, parts, start, steps):
        self.split, self.seed, self.share, self.lanes = split, seed, share, lanes
        self.parts, self.start, self.steps = parts, start, steps

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        mine = sum(self.parts, []) if worker is None else self.parts[worker.id]
        streams = [self.split.lane(self.seed, lane, self.lanes, self.start * self.share) for lane in mine]
        if self.start >= self.steps:
            return
        try:
            with ThreadPoolExecutor(len(streams)) as pool:  # a remote tar's answer is waited for: for all at once
                items = list(pool.map(self.some, streams))
            for step in range(self.start, self.steps):
                yield self.split.collate([item for some in items for item in some])
                items = [self.some(stream) for stream in streams] if step + 1 < self.steps else []
        except UserError as error:
            if worker is None:
                raise
            yield error  # the loader would wrap it into a traceback

    def some(self, stream):
        """What one lane has in a batch."""
        return list(itertools.islice(stream, self.share))


def _in_pieces(loader, workers):
    """The pieces of each batch from `workers` workers, which the loader hands out in turn."""
    pieces = []
    for piece in loader:
        if isinstance(piece, UserError):
            raise piece
        pieces.append(piece)
        if len(pieces) == workers:
            yield pieces
            pieces = []
