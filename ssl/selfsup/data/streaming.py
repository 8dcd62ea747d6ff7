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
"""

import numpy as np
import torch

from selfsup.core import rng
from selfsup.data import Split, tars
from selfsup.data.order import Shuffled
from selfsup.data.workers import batches as read_by
from selfsup.errors import UserError

LANES = 16  # at most, unless there are more processes than that
BLOCK = 1000  # samples of encoded images that a lane holds in memory


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
            return iter(dataset)
        return _joined(read_by(dataset, len(parts)), len(parts))

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
        """The batch of (epoch, entry, position in the shard, encoded sample) items."""
        out = {}
        for name, column in self.schema.items():
            values = [(entry, sample[name]) for _, entry, _, sample in items]
            out[name] = torch.from_numpy(tars.stacked(self.folder, column, values))
        out["index"] = torch.tensor([entry["first"] + position for _, entry, position, _ in items])
        out["epoch"] = torch.tensor([epoch for epoch, *_ in items])
        return out | {name: numbers[out["index"]] for name, numbers in self.hidden.items() if name in out}

    def lane(self, seed, lane, lanes, skip):
        """The endless stream of one lane, from its `skip`-th sample on."""
        turn = lane  # place in the sequence of the shards of all epochs
        order, ordered = None, -1
        while True:
            epoch = turn // len(self.entries)
            if epoch != ordered:
                order, ordered = rng.permutation(len(self.entries), seed, epoch).tolist(), epoch
            shard = order[turn % len(self.entries)]
            entry = self.entries[shard]
            if skip < entry["count"]:
                for position, sample in self.shuffled(entry, skip, seed, epoch, shard):
                    yield epoch, entry, position, sample
            skip = max(0, skip - entry["count"])
            turn += lanes

    def shuffled(self, entry, skip, *key):
        """(position, encoded sample) of one shard in the order of `key`, from the `skip`-th on."""
        block = []
        for position, sample in enumerate(tars.samples(self.folder, self.card, entry, self.schema)):
            block.append((position, sample))
            if len(block) == BLOCK or position == entry["count"] - 1:
                first = position + 1 - len(block)
                if skip <= position:
                    order = rng.permutation(len(block), *key, first // BLOCK).tolist()
                    yield from (block[i] for i in order[max(0, skip - first):])
                block = []


class _Lanes(torch.utils.data.IterableDataset):
    """Batches of some lanes; a DataLoader's worker w takes parts[w], each step one piece of the batch."""

    def __init__(self, split, seed, share, lanes, parts, start, steps):
        self.split, self.seed, self.share, self.lanes = split, seed, share, lanes
        self.parts, self.start, self.steps = parts, start, steps

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        mine = sum(self.parts, []) if worker is None else self.parts[worker.id]
        streams = [self.split.lane(self.seed, lane, self.lanes, self.start * self.share) for lane in mine]
        try:
            for _ in range(self.start, self.steps):
                yield self.split.collate([next(stream) for stream in streams for _ in range(self.share)])
        except UserError as error:
            if worker is None:
                raise
            yield error  # the loader would wrap it into a traceback


def _joined(loader, workers):
    """Whole batches from the pieces of `workers` workers, which the loader hands out in turn."""
    pieces = []
    for piece in loader:
        if isinstance(piece, UserError):
            raise piece
        pieces.append(piece)
        if len(pieces) == workers:
            yield {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
            pieces = []
