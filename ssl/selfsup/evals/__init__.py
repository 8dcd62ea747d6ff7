"""Judging: a protocol is a module here, in two halves.

`choose(encoder, data, …)` fits on train and chooses on val from the grid in params.yaml, whose keys are its annotated
arguments; it returns what was chosen, with `val_accuracy` in percent. `test(encoder, data, chosen, bootstrap)` reads test
once, with the choice made, and yields (name, value). Every protocol treats every encoder alike. Nothing is refitted on
train and val together afterwards, so that what is tested is what was chosen. Protocols never import a method.

One whose `choose` names `source` is given the data that the encoder was trained on, as `data` is that it is judged on.
One that judges without labels says `labels = False`, one that judges by classes that training never saw `new_classes =
True`; one that needs further columns of the data, `columns`, their names, or what gives them of its options. One whose
accuracy depends on the number of labels gives by `by_labels(content)`, of a seed's result, {way: {labels: result}}, last
the way that trains the whole encoder; None are the labels that the run may see.
A protocol also says of itself what the report shows: its `title`; `column = False` if its accuracy is no column of the
main table; `points`, those of the numbers that it yields that are percentage points, but no accuracy; `elsewhere = True` if
it is shown what it found on data that are not a run's own, too; and, each given the package `report`, the rows that have
results and the protocol's options, sentences on how the numbers were made, `notes`, and a table or figure of its own, `panel`.
"""

import contextlib
import functools
import importlib
import pkgutil
import tempfile
from pathlib import Path

import numpy as np
import torch

import selfsup.data
from selfsup.core import rng
from selfsup.data import tars
from selfsup.errors import UserError, nearest

CONFIDENCE = 0.95
BLOCK, ROWS = 2**24, 128                                 # similarities held at once (64 MB), of so many queries at least
VALUES = 3 * 2**22                                       # numbers that an encoder is given at once: 512 images of 90 px


def names():
    """The protocols there are: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name):
    """The module of a protocol. It may state which `parts` of the encoder folder it needs besides `encoder`, and which it uses
    where they are there, `perhaps`."""
    if name not in names():
        raise UserError(f'unknown protocol "{name}"{nearest(name, names())} (there are: {", ".join(names())})')
    return importlib.import_module(f"selfsup.evals.{name}")


def judge(protocol, encoder, data, **options):
    """{"val_accuracy": percent} by the choosing half of a protocol, which never opens test."""
    return {"val_accuracy": load(protocol).choose(encoder, data, **options).val_accuracy}


def run(protocol, encoder, data, bootstrap=1000, **options):
    """Both halves of a protocol: yields (name, value), at least accuracy, low and high in percent, of test.

    options: of `choose`, and the parts of the encoder folder that the protocol asks for besides `encoder`."""
    module = load(protocol)
    yield from module.test(encoder, data, module.choose(encoder, data, **options), bootstrap)


class Data:
    """A shard folder as a protocol sees it: `card`, `train`, `val`, `test` and, with captions, `tokenizer`.

    Each is opened when first asked for, so a protocol that never asks for `test` never reads it. Samples without a label
    are left out, unless labels are not `needed`. labels: how many labels of train the protocol may see, or what share;
    which ones is the `seed`'s. val_labels: "same" shows of val no more than of train, since who has few labels has none
    to choose by (Oliver et al. 2018, section 4.6, https://arxiv.org/abs/1804.09170); unless said all.
    """

    def __init__(self, shards, labels=None, seed=0, needed=True, val_labels=None, **options):
        self.shards, self.labels, self.seed, self.needed, self.options = Path(shards), labels, seed, needed, options
        self.val_labels = val_labels

    def split(self, name):
        if not self.needed:
            return selfsup.data.open(self.shards, name, **self.options)
        budget = {} if self.labels is None or name != "train" else {"labels": self.labels, "seed": self.seed}
        split = selfsup.data.open(self.shards, name, **self.options, **budget)
        missing = self.card.get("unlabelled", {}).get(name, 0)
        if "label" not in split.columns or 0 < missing == len(split):
            raise UserError(f"{self.shards}: the {name} split has no labels, and without labels nothing can be judged")
        if not len(split):
            raise UserError(f"{self.shards}: the {name} split is empty, so nothing can be judged on it")
        few = name == "val" and self.val_labels == "same" and len(self.train) < len(split) - missing
        if few:
            split.hide(len(self.train), self.seed)
        return Subset(split) if missing or budget or few else split

    card = functools.cached_property(lambda self: tars.card_of(self.shards))
    train = functools.cached_property(lambda self: self.split("train"))
    val = functools.cached_property(lambda self: self.split("val"))
    test = functools.cached_property(lambda self: self.split("test"))
    tokenizer = functools.cached_property(lambda self: selfsup.data.tokenizer(self.shards))


def lacking(card):
    """Why nothing can be judged on a data set, as its card says it; None where all splits have labels."""
    counts, missing = card["counts"], card.get("unlabelled", {})
    without = [name for name, count in counts.items() if 0 < count == missing.get(name)]
    if "label" not in card["columns"] or len(without) == sum(count > 0 for count in counts.values()):
        return "the data has no labels"
    if without:
        return f"no sample of {' and '.join(without)} has a label: all are -1"
    return next((f"the {name} split is empty" for name, count in counts.items() if not count), None)


def unfit(protocol, card):
    """Why a protocol judges nothing on a data set, as its card says it; None where it does."""
    module = load(protocol)
    if not getattr(module, "labels", True):
        return None
    new = card.get("new_classes", [])
    if why := lacking(card):
        return why
    if getattr(module, "new_classes", False):
        seen = [name for name in ("val", "test") if name not in new]
        return f"train has classes of {' and '.join(seen)}, and {protocol} judges by new ones" if seen else None
    return f"train has no class of {' and '.join(new)}, and {protocol} learns from train which are which" if new else None


class Subset:
    """Samples of a split, dealt as a Split deals its own: those at the positions `rows` (n,), by default those that have a
    label. Each keeps its `index` (n,) in the whole split, by which it is augmented. They stay where a resident split has
    them; of another one they are copied to disk."""

    def __init__(self, split, rows=None):
        self.card, self.columns = split.card, list(split.columns)
        self.source = split if hasattr(split, "take") else _Copy(split, rows)
        labels = self.source.values.get("label")
        if self.source is not split:
            rows = torch.arange(len(self.source.index))
        self.rows = (labels >= 0).nonzero()[:, 0] if rows is None else rows.sort().values
        self.index = self.rows if self.source is split and not isinstance(split, Subset) else self.source.index[self.rows]
        self.values = {} if labels is None else {"label": labels[self.rows]}

    def __len__(self):
        return len(self.index)

    def take(self, rows, epoch):
        return self.source.take(self.rows[rows], epoch)

    def in_order(self, batch=512):
        for rows in torch.arange(len(self)).split(batch):
            yield self.take(rows, torch.zeros_like(rows))

    def batches(self, seed, batch, images):
        n = len(self)
        order = torch.cat([rng.permutation(n, seed, epoch) for epoch in range(-(-images // n))])
        for start in range(0, images // batch * batch, batch):
            position = torch.arange(start, start + batch)
            yield self.take(order[position], position // n)


class _Copy:
    """Of a split that is read in sequence the samples of a Subset, mapped from files that nobody else sees: pixels of a
    tenth of ImageNet are more than many a machine's memory."""

    def __init__(self, split, rows):
        start, self.values, names = 0, {}, (*split.columns, "index")
        cache = getattr(split, "cache", None)
        Path(cache or ".").mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            written = {name: stack.enter_context(tempfile.TemporaryFile(dir=cache)) for name in names}
            for part in split.in_order():
                there = torch.arange(start, start + len(part["index"]))
                keep, start = part["label"] >= 0 if rows is None else torch.isin(there, rows), start + len(there)
                for name, file in written.items():
                    file.write(part[name][keep].contiguous().numpy().data)
            for name, file in written.items():
                file.flush()
                values = part[name].numpy()
                whole = np.memmap(file, values.dtype, "c") if file.tell() else np.empty(0, values.dtype)
                self.values[name] = torch.from_numpy(whole.reshape(-1, *values.shape[1:]))
        self.index = self.values["index"]

    def take(self, rows, epoch):
        return {name: values[rows] for name, values in self.values.items()} | {"epoch": epoch}


class Batch:
    """Samples that are there, {column: tensor (n, …)}, as a split that deals them at once."""

    def __init__(self, part):
        self.part = part

    def __len__(self):
        return len(self.part["label"])

    def in_order(self, batch=512):
        yield self.part


@torch.no_grad()
def embed(encoder, split, batch=512):
    """Features of every sample in split order: float32 (N, d), and labels int64 (N,), both on the encoder's device.

    The encoder says which column it takes and prepares it itself. A batch holds VALUES at most, since the maps of a
    network grow with its pictures.
    """
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    features, labels, start = None, torch.empty(len(split), dtype=torch.int64, device=device), 0
    finite = torch.ones((), dtype=torch.bool, device=device)
    for part in split.in_order(batch=batch):
        column = part[encoder.takes]
        labels[start:start + len(column)] = part["label"]
        for rows in column.split(max(1, VALUES // max(1, column[0].numel()))):
            found = encoder(encoder.prepare(rows.to(device))).float()
            if features is None:                         # one array from the start: joined in the end it would be two
                features = found.new_empty(len(split), *found.shape[1:])
            features[start:start + len(rows)] = found
            finite &= torch.isfinite(found).all()
            start += len(rows)
    encoder.train(was_training)
    if not finite:
        raise UserError("the encoder gives features that are not finite numbers, so it cannot be judged")
    return features, labels


def in_blocks(queries, bank):
    """The queries (n, d) in blocks of which all similarities to a bank (N, d) are held at once."""
    return queries.split(max(ROWS, BLOCK // len(bank)))


def bootstrap(correct, n, seed=0):
    """95 % percentile interval (low, high) of the mean of `correct` (N,), from n resamples of the N test samples."""
    correct = np.asarray(correct, dtype=np.float32)
    generator = np.random.default_rng(seed)
    block = max(1, 2**21 // len(correct))               # resamples drawn at once: bounds the memory to a few MB
    sizes = [min(block, n - start) for start in range(0, n, block)]
    means = [correct[generator.integers(len(correct), size=(size, len(correct)), dtype=np.int32)].mean(1) for size in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def percent(share):
    """A share of one as percent with two decimals, as it stands in the result files."""
    return round(100 * float(share), 2)


def accuracy(correct, n):
    """Yields `accuracy`, `low` and `high` in percent, of right and wrong answers (N,) and n bootstrap resamples."""
    correct = torch.as_tensor(correct).cpu()
    low, high = bootstrap(correct.numpy(), n)
    yield "accuracy", percent(correct.float().mean())
    yield "low", percent(low)
    yield "high", percent(high)


def uneven(counts):
    """Whether the largest of some classes has more than half as many samples again as the smallest."""
    counts = [count for count in counts if count]
    return len(counts) > 1 and max(counts) > 1.5 * min(counts)


def balanced(correct, labels, n):
    """Yields `balanced`, the mean of the classes' accuracies with its interval, of answers to samples of `labels` (N,) and n
    bootstrap resamples of each class; where classes are even nothing, since it is the accuracy then."""
    labels, correct = labels.cpu(), correct.cpu().double()
    counts = torch.bincount(labels)
    if uneven(counts.tolist()):
        there = counts > 0
        size, right = counts[there].numpy(), torch.bincount(labels, correct)[there].numpy()
        drawn = np.random.default_rng(0).binomial(size, right / size, (n, len(size))) / size
        low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
        yield "balanced", {"accuracy": percent((right / size).mean()), "low": percent(low), "high": percent(high)}


def students(values):
    """Mean of two values or more, and half its 95 % interval by Student's t."""
    from scipy.special import stdtrit

    values = np.array(values)
    half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


def summarise(per_seed):
    """Mean accuracy over seeds and its 95 % interval, from {seed: {"accuracy", "low", "high", …}} in percent.

    With two seeds or more the interval is Student's t over the seeds; with one it is that seed's bootstrap interval.
    It ends at 0, or what "least" says, and at 100: none is a share that cannot be.
    """
    values = [result["accuracy"] for result in per_seed.values()]
    if len(values) > 1:
        mean, half = students(values)
        least = min(result.get("least", 0.0) for result in per_seed.values())
        low, high, kind = max(least, mean - half), min(100.0, mean + half), "seeds"
    else:
        (only,) = per_seed.values()
        mean, low, high, kind = values[0], only["low"], only["high"], "bootstrap"
    return {"accuracy": round(float(mean), 2), "low": round(float(low), 2), "high": round(float(high), 2),
            "interval": kind}
