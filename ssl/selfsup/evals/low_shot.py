"""Few labels: a linear classifier, and fine-tuning, on some of the labels (Chen et al. 2020, §6; Hénaff et al. 2020).

https://arxiv.org/abs/2002.05709, https://arxiv.org/abs/1905.09272
"""

from types import SimpleNamespace
from typing import Annotated

import torch

from selfsup.arguments import Budget, Count, Decays, Range
from selfsup.data.order import purchase
from selfsup.errors import UserError
from selfsup.evals import Subset, accuracy, embed, percent
from selfsup.evals.finetune import Together, tune
from selfsup.evals.linear import Probe

title = "Few labels"
column = False                                           # but a table of its own
WAYS = {"linear": "linear", "finetune": "fine-tuned"}


def choose(
    encoder,
    data,
    shares: Annotated[list[Annotated[float, Range(gt=0, le=1)] | Count], Range(min_length=1, distinct=True)],
    linear: Decays,
    finetune: Budget,
):
    """Both ways at each share of the labels, or number of them, with the options of those protocols; choices are made
    on the whole of val, or on as many labels of it as of train where the run says `val_labels: same`.

    The subsets are nested, as balanced over classes as these allow, and the same for every encoder of a seed. Each share
    has the same budget of images seen. Fine-tuning an encoder at random initialisation is training from scratch on few
    labels, so the row of method `random` is the supervised-only baseline. Choosing on all of val, which holds more labels
    than the small shares, is what the papers do, and kinder than practice (Oliver et al. 2018,
    https://arxiv.org/abs/1804.09170).
    val_accuracy is that of the way that is better on val at the smallest share.
    """
    features, labels = embed(encoder, data.train)
    held, classes = embed(encoder, data.val), len(data.card["classes"])
    order, held_order = (bought(*split, data.seed) for split in ((data.train, labels.cpu()), (data.val, held[1].cpu())))
    sizes = {named(share): size(share, len(order), classes) for share in shares}
    subsets = {share: order[:n] for share, n in sorted(sizes.items(), key=lambda item: item[1])}
    found = {way: {} for way in WAYS}                    # share -> (classifier, accuracy on val, what was chosen)
    for share, index in subsets.items():
        here, val, seen = index.to(labels.device), data.val, held
        if data.val_labels == "same" and len(index) < len(held_order):
            few = held_order[:len(index)]
            val, seen = Subset(data.val, few), tuple(values[few.to(values.device)] for values in held)
        probe = Probe((features[here], labels[here]), seen, classes, linear["weight_decay"])
        found["linear"][share] = probe, probe.val, {"weight_decay": probe.decay}
        part = Subset(data.train, index) if len(index) < len(order) else data.train
        net, right, rate = tune(encoder, part, val, **finetune)
        found["finetune"][share] = net, right, {"lr": rate}
    fewest = next(iter(subsets))
    way = max(WAYS, key=lambda way: found[way][fewest][1])
    labels = {share: len(index) for share, index in subsets.items()}
    return SimpleNamespace(val_accuracy=percent(found[way][fewest][1]), way=way, found=found, labels=labels)


def test(encoder, data, chosen, bootstrap):
    """Yields, for the smallest share and the way that is better there on val: accuracy, low, high (percent, test),
    val_accuracy and `way`; then `linear` and `finetune`, each {share in percent, or "250 labels": labels, accuracy,
    low, high, val_accuracy, weight_decay or lr}."""
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


def named(share):
    """The key of a share, in percent, or of a number of labels, which says so: a hundred labels are not 100 %."""
    return f"{share} labels" if isinstance(share, int) else f"{100 * share:g}"


def size(share, there, classes):
    """How many labels a share or a number of them is."""
    if isinstance(share, float):
        return max(classes, round(share * there))
    if not classes <= share <= there:
        raise UserError(f"low_shot.shares: {share} labels should be from {classes}, one a class, to {there}, as many "
                        "as there are; a share of them is written with a point, as 1.0")
    return share


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


def by_labels(content):
    return {said: {found["labels"]: found for found in content[way].values()} for way, said in WAYS.items()}


def table(report, rows):
    """A column for each share of the labels, or number of them, and way."""
    def cells(content):
        return {(" " not in share, float(share.split()[0]), way): found
                for way in WAYS for share, found in content[way].items()}

    def heading(column):
        share, number, way = column
        return f"{number:,g} {'%' if share else 'labels'}, {WAYS[way]}"

    return report.crossed(rows, "low_shot", cells, heading)


def remarks(report, rows, options):
    yield ("The same labels for every run of a seed, as many of each class, those of a smaller share among those of a larger one. "
           "Linear: on frozen features. Fine-tuned: the whole encoder, on "
           f"{'views of its own' if options['finetune'].get('augment') else 'crops and flips'} of "
           f"{options['finetune']['images']:,} images seen at any share; weight decay and rate are chosen on val.")
    yield (f"Fine-tuning the {report.FLOOR} encoder is training from scratch on these labels alone: what the others are to "
           f"be compared with. The {report.CEILING} encoder has seen all labels before.")
    counts = {(row.run.data, share): found["labels"] for row in rows
              for seed in row.results["low_shot"]["seeds"].values() for share, found in seed["linear"].items()}
    for data in dict.fromkeys(data for data, _ in counts):
        said = ", ".join(f"{share} % are {n:,}" for (of, share), n in counts.items() if of == data and " " not in share)
        if said:
            yield f"Labels of {data}: {said}."
