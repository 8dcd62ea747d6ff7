"""Few labels: a linear classifier, and fine-tuning, on shares of the labels (Chen et al. 2020, §6; Hénaff et al. 2020).

https://arxiv.org/abs/2002.05709, https://arxiv.org/abs/1905.09272
"""

from types import SimpleNamespace
from typing import Annotated

import torch

from selfsup.arguments import Budget, Decays, Range
from selfsup.data.order import purchase
from selfsup.evals import Subset, accuracy, embed, percent
from selfsup.evals.finetune import Together, tune
from selfsup.evals.linear import Probe

title = "Few labels"
column = False                                           # but a table of its own
WAYS = {"linear": "linear", "finetune": "fine-tuned"}


def choose(
    encoder,
    data,
    shares: Annotated[list[Annotated[float, Range(gt=0, le=1)]], Range(min_length=1, distinct=True)],
    linear: Decays,
    finetune: Budget,
):
    """Both ways at each share of the labels, with the options of those protocols; choices are made on the whole of val.

    The subsets are nested, as balanced over classes as these allow, and the same for every encoder of a seed. Each share
    has the same budget of images seen. Fine-tuning an encoder at random initialisation is training from scratch on few labels,
    so the row of method `random` is the supervised-only baseline. val holds more labels than the small shares; choosing
    on all of it is what the papers do, and kinder than practice (Oliver et al. 2018, https://arxiv.org/abs/1804.09170).
    val_accuracy is that of the way that is better on val at the smallest share.
    """
    features, labels = embed(encoder, data.train)
    held, classes = embed(encoder, data.val), len(data.card["classes"])
    order = bought(data.train, labels.cpu(), data.seed)
    subsets = {f"{100 * share:g}": order[:max(classes, round(share * len(order)))] for share in sorted(shares)}
    found = {way: {} for way in WAYS}                    # share -> (classifier, accuracy on val, what was chosen)
    for share, index in subsets.items():
        here = index.to(labels.device)
        probe = Probe((features[here], labels[here]), held, classes, linear["weight_decay"])
        found["linear"][share] = probe, probe.val, {"weight_decay": probe.decay}
        part = Subset(data.train, index) if len(index) < len(order) else data.train
        net, val, rate = tune(encoder, part, data.val, **finetune)
        found["finetune"][share] = net, val, {"lr": rate}
    fewest = next(iter(subsets))
    way = max(WAYS, key=lambda way: found[way][fewest][1])
    labels = {share: len(index) for share, index in subsets.items()}
    return SimpleNamespace(val_accuracy=percent(found[way][fewest][1]), way=way, found=found, labels=labels)


def test(encoder, data, chosen, bootstrap):
    """Yields, for the smallest share and the way that is better there on val: accuracy, low, high (percent, test),
    val_accuracy and `way`; then `linear` and `finetune`, each {share in percent: labels, accuracy, low, high,
    val_accuracy, weight_decay or lr}."""
    found, classes = chosen.found, len(data.card["classes"])
    together = Together(encoder, *(net for net, _, _ in found["finetune"].values()))
    outputs, truth = embed(together, data.test)          # one reading for all classifiers
    features, *logits = outputs.split([encoder.dim, *[classes] * len(chosen.labels)], 1)
    predicted = {"linear": [probe(features) for probe, _, _ in found["linear"].values()],
                 "finetune": [part.argmax(1) for part in logits]}
    results = {way: {share: {"labels": chosen.labels[share], **dict(accuracy(guess == truth, bootstrap)),
                             "val_accuracy": percent(val), **choice}
                     for guess, (share, (_, val, choice)) in zip(predicted[way], found[way].items())}
               for way in WAYS}
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, results[chosen.way][next(iter(chosen.labels))][name]
    yield "way", chosen.way
    yield from results.items()


def bought(train, labels, seed):
    """Rows of train in the order in which their labels (N,) are bought, which is that of a run's own budget of labels: a
    function of the seed and of where a sample stands in the whole split, of which train may be a part."""
    if not isinstance(train, Subset):                    # the whole split
        return purchase(labels, seed)
    whole = torch.full((int(train.index.max()) + 1,), -1)
    whole[train.index] = labels
    row = torch.empty_like(whole)
    row[train.index] = torch.arange(len(labels))
    return row[purchase(whole, seed)]


def notes(report, rows, options):
    yield "Few labels, in the verdict: the smallest share, linear or fine-tuned, as chosen on val."


def panel(report, rows, options):
    return report.Panel("few", "Few labels", table=table(report, rows), remarks=list(remarks(report, rows, options)))


def table(report, rows):
    """A column for each share of the labels and way."""
    def cells(content):
        return {(float(share), way): found for way in WAYS for share, found in content[way].items()}

    return report.crossed(rows, "low_shot", cells, lambda column: f"{column[0]:g} %, {WAYS[column[1]]}")


def remarks(report, rows, options):
    yield ("The same labels for every run of a seed, as many of each class, those of a smaller share among those of a larger one. "
           "Linear: on frozen features. Fine-tuned: the whole encoder, on crops and flips of "
           f"{options['finetune']['images']:,} images seen at any share; weight decay and rate are chosen on val.")
    yield (f"Fine-tuning the {report.FLOOR} encoder is training from scratch on these labels alone: what the others are to "
           f"be compared with. The {report.CEILING} encoder has seen all labels before.")
    counts = {(row.run.data, share): found["labels"] for row in rows
              for seed in row.results["low_shot"]["seeds"].values() for share, found in seed["linear"].items()}
    for data in dict.fromkeys(data for data, _ in counts):
        said = ", ".join(f"{share} % are {n:,}" for (of, share), n in counts.items() if of == data)
        yield f"Labels of {data}: {said}."
