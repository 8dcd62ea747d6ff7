"""Who is in a batch, and which labels a run may see: counter-based, so the same for one process and for many.

An order deals *groups*: a sample, an anchor and its partner, an episode. `over(split, seed)` binds it to a split's
samples and gives a function from places (G,) in the endless stream of groups to the positions of their samples in the
split and to their epochs, both int64 (G, order.group). A batch is a row of groups, and a process reads a contiguous
part of it, so every process has the same composition. Epochs count how often the samples were gone through; views
depend on them.
"""

from dataclasses import dataclass

import torch

from selfsup.core import rng
from selfsup.errors import UserError

LABELLED, UNLABELLED, PARTNER, CLASSES = -2, -3, -4, -5  # each use of the random numbers has its own


@dataclass(frozen=True)
class Shuffled:
    """Each epoch a permutation of the whole split, or of its samples that have a label."""

    labelled: bool = False

    group = 1

    def over(self, split, seed):
        some = _labelled(split) if self.labelled else torch.arange(len(split))
        stream = _stream(len(some), seed)

        def deal(place):
            index, epoch = stream(place)
            return some[index][:, None], epoch[:, None]

        return deal


@dataclass(frozen=True)
class Labelled:
    """A group is a sample with a label and after it `ratio` samples whose labels do not matter: those of the whole
    split, the labelled ones too, as in the authors' code of MixMatch and of FixMatch (Sohn et al. 2020, section 2.2,
    https://arxiv.org/abs/2001.07685). The two kinds are shuffled apart, and each has epochs of its own; `apart` takes
    a batch of them apart."""

    ratio: int = 1

    @property
    def group(self):
        return 1 + self.ratio

    def over(self, split, seed):
        kinds = [_labelled(split), torch.arange(len(split))]
        streams = [_stream(len(some), seed, salt) for some, salt in zip(kinds, (LABELLED, UNLABELLED))]

        def deal(place):
            index, epoch = streams[0](place)
            further = place[:, None] * self.ratio + torch.arange(self.ratio)
            index2, epoch2 = streams[1](further.flatten())
            return (torch.cat([kinds[0][index][:, None], kinds[1][index2].view(further.shape)], 1),
                    torch.cat([epoch[:, None], epoch2.view(further.shape)], 1))

        return deal


def apart(rows, ratio):
    """Of rows (n · (1 + ratio), …) as `Labelled` deals them those with a label (n, …), and the others (n · ratio, …)."""
    if len(rows) % (1 + ratio):
        raise UserError(f"{len(rows)} samples are not whole groups of one with a label and {ratio} others (args.ratio)")
    groups = rows.unflatten(0, (-1, 1 + ratio))
    return groups[:, 0], groups[:, 1:].flatten(0, 1)


@dataclass(frozen=True)
class Pairs:
    """A group is a sample and another that has the same number in `column` (a class, a track, a scene). Anchors are
    shuffled each epoch; samples that have no partner, or -1, are left out. A partner's epoch is its anchor's."""

    column: str = "label"

    group = 2

    def over(self, split, seed):
        members = _members(split, self.column, 2)
        anchors = torch.cat(members)
        own = torch.cat([torch.full((len(some),), i) for i, some in enumerate(members)])
        place_in_own = torch.cat([torch.arange(len(some)) for some in members])
        sizes = torch.tensor([len(some) for some in members])
        starts = sizes.cumsum(0) - sizes
        stream = _stream(len(anchors), seed)

        def deal(place):
            at, epoch = stream(place)
            size = sizes[own[at]]
            step = 1 + rng.randint(rng.key(seed, PARTNER, epoch, anchors[at]), 2**62) % (size - 1)
            other = starts[own[at]] + (place_in_own[at] + step) % size
            return torch.stack([anchors[at], anchors[other]], 1), epoch[:, None].expand(-1, 2)

        return deal


@dataclass(frozen=True)
class Episodes:
    """A group is an episode (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080): `ways` classes at random, of each
    `shots` samples and then `queries` more, none twice. Its number is the epoch of its samples."""

    ways: int = 5
    shots: int = 1
    queries: int = 15
    column: str = "label"

    @property
    def group(self):
        return self.ways * (self.shots + self.queries)

    def over(self, split, seed):
        each = self.shots + self.queries
        members = _members(split, self.column, each)
        if len(members) < self.ways:
            raise UserError(f"{split.folder} has {len(members)} classes of {each} samples or more in {split.name}: too "
                            f"few for episodes of {self.ways}")

        def one(episode):
            chosen = rng.permutation(len(members), seed, CLASSES, episode)[:self.ways].tolist()
            return torch.cat([members[c][rng.permutation(len(members[c]), seed, episode, c)[:each]] for c in chosen])

        def deal(place):
            index = torch.stack([one(episode) for episode in place.tolist()])
            return index, place[:, None].expand(-1, index.shape[1])

        return deal

    def apart(self, rows):
        """Of rows (n · group, …) as they are dealt those to learn from (n, ways, shots, …), and those to be told
        (n, ways, queries, …)."""
        if len(rows) % self.group:
            raise UserError(f"{len(rows)} samples are not whole episodes of {self.group}: args.ways times args.shots and "
                            "args.queries")
        groups = rows.unflatten(0, (-1, self.ways, self.shots + self.queries))
        return groups[:, :, :self.shots], groups[:, :, self.shots:]


class Steps(torch.utils.data.Dataset):
    """One process's batches of a resident split by step: which one a worker makes does not depend on what it made
    before."""

    def __init__(self, split, order, seed, batch, rank, world):
        share = batch // world
        if share % order.group:
            raise UserError(f"train.batch: {share} samples a process are not whole groups of {order.group}, which "
                            f"{type(order).__name__} deals")
        self.split, self.deal = split, order.over(split, seed)
        self.groups, self.share, self.first = batch // order.group, share // order.group, rank * share // order.group

    def __getitem__(self, step):
        place = step * self.groups + self.first + torch.arange(self.share)
        index, epoch = self.deal(place)
        return self.split.take(index.flatten(), epoch.flatten())


def _stream(n, seed, *salt):
    """A function from places (P,) in the stream of all epochs to (index (P,), epoch (P,)): place p is entry p % n of
    the permutation of (seed, epoch p // n)."""
    orders = {}

    def order(epoch):
        if epoch not in orders:
            for old in [old for old in orders if old != epoch - 1]:
                del orders[old]
            orders[epoch] = rng.permutation(n, seed, *salt, epoch)
        return orders[epoch]

    def at(place):
        epoch = place // n
        index = torch.empty_like(place)
        for e in range(int(epoch.min()), int(epoch.max()) + 1):
            here = epoch == e
            index[here] = order(e)[place[here] % n]
        return index, epoch

    return at


def _labelled(split):
    """Positions of the samples that have a label, int64 (n,)."""
    some = (split.numbers("label") >= 0).nonzero()[:, 0]
    if not len(some):
        raise UserError(f"{split.folder} has no samples with a label in {split.name}: see `labels` of the run")
    return some


def _members(split, column, fewest):
    """Positions of the samples of each number in `column` that has `fewest` or more: a list of int64 (n,)."""
    numbers = split.numbers(column)
    by_number = [(numbers == number).nonzero()[:, 0] for number in numbers[numbers >= 0].unique()]
    found = [some for some in by_number if len(some) >= fewest]
    if not found:
        raise UserError(f"{split.folder}: no number of the column {column} has {fewest} samples in {split.name}")
    return found


# Few labels


def purchase(labels, seed=0):
    """Positions of all labelled samples in the order in which their labels are bought: at random, one of each class in
    turn.

    labels: (N,), -1 where there is none. Any first part is as balanced as the classes' sizes let it be, and contained
    in any longer one."""
    order = rng.uniform(rng.key(seed, torch.arange(len(labels)))).argsort(stable=True)
    order = order[labels[order] >= 0]
    by_class = labels[order].argsort(stable=True)
    sizes = labels[order].bincount()
    turn = torch.empty_like(order)  # how many of its class come before it
    turn[by_class] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order[turn.argsort(stable=True)]


def revealed(labels, budget, seed):
    """Which labels a run may see: bool (N,), a function of the labels and the seed, nested in the budget and balanced.

    labels: int64 (N,), -1 where there is none. budget: a number (int), or a share of them (float), at least one a
    class. Raises UserError for more than there are."""
    order = purchase(labels, seed)
    classes = len(labels[order].unique())
    count = budget if isinstance(budget, int) else max(classes, round(budget * len(order)))
    if not 0 < count <= len(order):
        raise UserError(f"labels: {budget} should be a number between 1 and {len(order)}, as many as there are, or a "
                        "share of them")
    shown = torch.zeros(len(labels), dtype=torch.bool)
    shown[order[:count]] = True
    return shown
