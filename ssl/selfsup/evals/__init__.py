"""Judging: a protocol is a module here with `run(encoder, data, **params)` yielding (name, value).

Every protocol treats every encoder alike, chooses its hyper-parameters on val from the grid in params.yaml, and
reads test once, with the choice made. Nothing is refitted on train and val together afterwards, so that what is
tested is what was chosen. Protocols never import a method.
"""

import functools
import importlib
from pathlib import Path

import numpy as np
import torch

import selfsup.data
from selfsup.errors import UserError, nearest

CONFIDENCE = 0.95


def names():
    """The protocols there are: the modules of this folder."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def load(name):
    """The module of a protocol. It may state which `parts` of the encoder folder it needs besides `encoder`."""
    if name not in names():
        raise UserError(f'unknown protocol "{name}"{nearest(name, names())} (there are: {", ".join(names())})')
    return importlib.import_module(f"selfsup.evals.{name}")


class Data:
    """A shard folder as a protocol sees it: `card`, `train`, `val`, `test` and, with captions, `tokenizer`.

    Each is opened when first asked for, so a protocol that never asks for `test` never reads it.
    """

    def __init__(self, shards, **options):
        self.shards, self.options = Path(shards), options

    def split(self, name):
        split = selfsup.data.open(self.shards, name, **self.options)
        if "label" not in split.columns:
            raise UserError(f"{self.shards}: the data has no label column, and without labels nothing can be judged")
        if not len(split):
            raise UserError(f"{self.shards}: the {name} split is empty, so nothing can be judged on it")
        return split

    train = functools.cached_property(lambda self: self.split("train"))
    val = functools.cached_property(lambda self: self.split("val"))
    test = functools.cached_property(lambda self: self.split("test"))
    tokenizer = functools.cached_property(lambda self: selfsup.data.tokenizer(self.shards))

    @property
    def card(self):
        return self.val.card


@torch.no_grad()
def embed(encoder, split, batch=512):
    """Features of every sample in split order: float32 (N, d), and labels int64 (N,), both on the encoder's device.

    The encoder says which column it takes and prepares it itself.
    """
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    features, labels = [], []
    for part in split.in_order(batch=batch):
        features.append(encoder(encoder.prepare(part[encoder.takes].to(device))).float())
        labels.append(part["label"].to(device))
    encoder.train(was_training)
    features, labels = torch.cat(features), torch.cat(labels)
    if not torch.isfinite(features).all():
        raise UserError("the encoder gives features that are not finite numbers, so it cannot be judged")
    return features, labels


def bootstrap(correct, n, seed=0):
    """95 % percentile interval (low, high) of the mean of `correct` (N,), from n resamples of the N test samples."""
    correct = np.asarray(correct, dtype=np.float32)
    rng = np.random.default_rng(seed)
    block = max(1, 2**21 // len(correct))               # resamples drawn at once: bounds the memory to a few MB
    sizes = [min(block, n - start) for start in range(0, n, block)]
    means = [correct[rng.integers(len(correct), size=(size, len(correct)), dtype=np.int32)].mean(1) for size in sizes]
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


def summarise(per_seed):
    """Mean accuracy over seeds and its 95 % interval, from {seed: {"accuracy", "low", "high", …}} in percent.

    With two seeds or more the interval is Student's t over the seeds; with one it is that seed's bootstrap interval.
    """
    values = np.array([result["accuracy"] for result in per_seed.values()])
    mean = values.mean()
    if len(values) > 1:
        from scipy.special import stdtrit

        half = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values))
        low, high, kind = max(0.0, mean - half), min(100.0, mean + half), "seeds"
    else:
        (only,) = per_seed.values()
        low, high, kind = only["low"], only["high"], "bootstrap"
    return {"accuracy": round(float(mean), 2), "low": round(float(low), 2), "high": round(float(high), 2),
            "interval": kind}
