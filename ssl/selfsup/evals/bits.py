"""Bits a token of a language model, beside interpolated Kneser-Ney models, which count (core/ngram.py)."""

from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from selfsup.arguments import Count, Range
from selfsup.core.ngram import KneserNey
from selfsup.evals import CONFIDENCE, accuracy, percent, summarise

title = "Bits a token"
column = False                                           # but a table and a figure of its own
labels = False                                           # judges texts, whatever they are called
parts = ("predict",)                                     # of the encoder folder, besides the encoder


def choose(encoder, data, predict, orders: Annotated[list[Count], Range(min_length=1, distinct=True)]):
    """Counts the tokens of train; the order of the list that guesses val best is chosen. All have the encoder's own
    tokens of each text, cut where it cuts them."""
    device = next(encoder.parameters()).device
    train, val = (tokens(encoder, split) for split in (data.train, data.val))
    counting = {order: KneserNey(train.numpy(), order, data.card["vocabulary"]) for order in orders}
    found = {order: model.bits(val.numpy()) for order, model in counting.items()}
    _, right = guessed(encoder, predict, val, device)
    share = right.sum() / (val[:, 1:] != 0).sum()
    return SimpleNamespace(val_accuracy=percent(share), counting=counting, predict=predict, val=found,
                           order=min(found, key=found.get))


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent of the tokens of a text that were the likeliest, mean over the texts of
    test) and val_accuracy; of the `model` and in `orders` of each order of counting the bits a token, each with bits,
    low and high; and the `order` that was best on val."""
    texts = tokens(encoder, data.test)
    count = (texts[:, 1:] != 0).sum(1).numpy()
    device = next(encoder.parameters()).device
    bits, right = (values.numpy() for values in guessed(encoder, chosen.predict, texts, device))
    ends = np.cumsum(count) - count
    counted = {order: np.add.reduceat(-np.log2(model.probabilities(texts.numpy())), ends)
               for order, model in chosen.counting.items()}
    resampled = resamples(len(texts), bootstrap)
    yield from accuracy(right / count, bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "model", ratio(bits, count, resampled)
    yield "orders", {str(order): ratio(values, count, resampled) | {"val_bits": round(chosen.val[order], 4)}
                     for order, values in counted.items()}
    yield "order", chosen.order


@torch.no_grad()
def tokens(encoder, split):
    """All texts of a split as the encoder sees them, int64 (N, L), on the CPU."""
    return torch.cat([encoder.prepare(part[encoder.takes]) for part in split.in_order(512)])


@torch.no_grad()
def guessed(encoder, predict, texts, device):
    """Of each text's tokens but the first, the bits (N,) that they cost, and how many were the likeliest (N,)."""
    bits, right = [], []
    for some in texts.split(128):
        some = some.to(device)
        logits = predict(encoder.states(some)[-1][:, :-1]).float()
        told, real = some[:, 1:], some[:, 1:] != 0
        loss = F.cross_entropy(logits.flatten(0, 1), told.flatten(), reduction="none").view_as(told)
        bits.append((loss * real).double().sum(1).cpu() / np.log(2))
        right.append(((logits.argmax(2) == told) & real).double().sum(1).cpu())
    return torch.cat(bits), torch.cat(right)


def resamples(n, times, seed=0):
    """How often each of n texts stands in each of `times` resamples (times, n)."""
    generator = np.random.default_rng(seed)
    return np.stack([np.bincount(generator.integers(n, size=n), minlength=n) for _ in range(times)]).astype(np.float32)


def ratio(bits, count, resampled):
    """Bits a token of texts that cost `bits` (N,) and have `count` tokens (N,), with a bootstrap interval over
    texts."""
    low, high = np.quantile((resampled @ bits) / (resampled @ count), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    found = {"bits": bits.sum() / count.sum(), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in found.items()}


def notes(report, rows, options):
    yield ("Bits a token: what a text of test costs by the model's probabilities, a character where tokens are "
           f"characters, beside interpolated Kneser-Ney of order {', '.join(map(str, options['orders']))}, counted on "
           "the same training texts in the same tokens. A curve is of the training texts as they come.")


def panel(report, rows, options):
    table = ["model", *(f"order {order}" for order in options["orders"])]
    cells = [(row, [summary(row, "model"), *(summary(row, "orders", str(order)) for order in options["orders"])])
             for row in rows]
    return report.Panel(
        "bits", "Guessing the next token", "Bits a token, on test and over training, beside models that count "
        "what follows the last tokens: of order 3 the last two. Fewer are better.", sentences=[standing(row) for row in rows],
        table=(table, cells), figure=figure(report, rows), digits=2)


def summary(row, *path):
    """Bits of a row's seeds as the report's tables take them: mean, and the interval, of one seed the bootstrap's."""
    found = {}
    for seed, content in row.results["bits"]["seeds"].items():
        for key in path:
            content = content[key]
        found[seed] = {"accuracy": content["bits"], "low": content["low"], "high": content["high"]}
    return summarise(found)


def standing(row):
    """Where the model stands among those that count, in a sentence."""
    own, orders = summary(row, "model")["accuracy"], next(iter(row.results["bits"]["seeds"].values()))["orders"]
    counted = {order: summary(row, "orders", order)["accuracy"] for order in orders}
    below = [order for order, bits in counted.items() if own < bits]
    above = [order for order, bits in counted.items() if own >= bits]
    said = f"below counting of order {', '.join(below)}" if below else "below none that counts"
    return f"{row.title}: {own:.3f} bits, {said}" + (f", above order {', '.join(above)}." if above else ".")


def figure(report, rows):
    """Bits over training, a panel for each data set, and lines for the orders of counting."""
    sets = list(dict.fromkeys(row.run.data for row in rows))
    drawing, axes = report.pyplot().subplots(1, len(sets), figsize=(7 * len(sets), 4), squeeze=False)
    for axis, data in zip(axes[0], sets):
        members = [row for row in rows if row.run.data == data]
        lows = []
        for colour, row in zip(report.PALETTE * len(members), members):
            for number, lines in enumerate(row.history.values()):
                points = [(line["images"], line["bits"]) for line in lines if "bits" in line]
                axis.plot(*zip(*points), color=colour, linewidth=1.3, alpha=1 if not number else 0.45,
                          label=None if number else row.title)
            lows.append(summary(row, "model")["accuracy"])
            axis.plot(points[-1][0], lows[-1], "D", color=colour, markersize=5, markerfacecolor="white")
        orders = next(iter(members[0].results["bits"]["seeds"].values()))["orders"]
        counted = {order: summary(members[0], "orders", order)["accuracy"] for order in orders}
        lows += counted.values()
        for place, names in beside(counted, (max(lows) - min(lows)) / 25):
            axis.annotate(f"order {', '.join(names)}", (1.01, place), xycoords=("axes fraction", "data"), fontsize=7.5,
                          va="center")
        for bits in counted.values():
            axis.axhline(bits, color=report.MUTED, linestyle=(0, (4, 2)), linewidth=1)
        axis.set_ylim(min(lows) - 0.2, max(lows) + 0.8)
        axis.set_title(data)
        axis.set_xlabel("texts seen")
        axis.legend(loc="upper right")
    axes[0][0].set_ylabel("bits a token")
    drawing.tight_layout()
    return report.svg(drawing)


def beside(heights, apart):
    """(height, names) of labels that would otherwise lie on one another: of {name: height} those nearer to the next higher
    one than `apart` stand at the height of the highest."""
    groups, last = [], None
    for name, height in sorted(heights.items(), key=lambda item: -item[1]):
        if last is None or last - height > apart:
            groups.append((height, []))
        groups[-1][1].append(name)
        last = height
    return groups
