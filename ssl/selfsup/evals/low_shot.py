"""Few labels: a linear classifier, and fine-tuning, on shares of the labels (Chen et al. 2020, §6; Hénaff et al. 2020).

https://arxiv.org/abs/2002.05709, https://arxiv.org/abs/1905.09272
"""

import torch
import torch.nn as nn

from selfsup.core import rng
from selfsup.evals import accuracy, embed, percent
from selfsup.evals.finetune import SEED, tune
from selfsup.evals.linear import Probe

WAYS = ("linear", "finetune")


def run(encoder, data, shares, linear, finetune, bootstrap=1000):
    """Both ways at each share of the labels, with the options of those protocols; choices are made on the whole of val.

    The subsets are nested, as balanced over classes as these allow, and the same for every encoder. Each share has the
    same budget of images seen. Fine-tuning an encoder at random initialisation is training from scratch on few labels,
    so the row of method `random` is the supervised-only baseline. val holds more labels than the small shares; choosing
    on all of it is what the papers do, and kinder than practice (Oliver et al. 2018, https://arxiv.org/abs/1804.09170).

    Yields, for the smallest share and the way that is better there on val: accuracy, low, high (percent, test),
    val_accuracy and `way`; then `linear` and `finetune`, each {share in percent: labels, accuracy, low, high,
    val_accuracy, weight_decay or lr}.
    """
    features, labels = embed(encoder, data.train)
    held, classes, order = embed(encoder, data.val), len(data.card["classes"]), purchase(labels.cpu())
    subsets = {f"{100 * share:g}": order[:max(classes, round(share * len(order)))] for share in sorted(shares)}
    found = {way: {} for way in WAYS}                    # share -> (classifier, accuracy on val, what was chosen)
    for share, index in subsets.items():
        here = index.to(labels.device)
        probe = Probe((features[here], labels[here]), held, classes, linear["weight_decay"])
        found["linear"][share] = probe, probe.val, {"weight_decay": probe.decay}
        part = Subset(data.train, index) if len(index) < len(order) else data.train
        net, val, rate = tune(encoder, part, data.val, **finetune)
        found["finetune"][share] = net, val, {"lr": rate}
    together = Together(encoder, *(net for net, _, _ in found["finetune"].values()))
    outputs, truth = embed(together, data.test)          # one reading for all classifiers
    features, *logits = outputs.split([encoder.dim, *[classes] * len(subsets)], 1)
    predicted = {"linear": [probe(features) for probe, _, _ in found["linear"].values()],
                 "finetune": [part.argmax(1) for part in logits]}
    results = {way: {share: {"labels": len(subsets[share]), **dict(accuracy(guess == truth, bootstrap)),
                             "val_accuracy": percent(val), **chosen}
                     for guess, (share, (_, val, chosen)) in zip(predicted[way], found[way].items())}
               for way in WAYS}
    fewest = next(iter(subsets))
    way = max(WAYS, key=lambda way: found[way][fewest][1])
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, results[way][fewest][name]
    yield "way", way
    yield from results.items()


def purchase(labels):
    """Positions of all samples in the order in which their labels are bought: at random, one of each class in turn.

    labels: (N,). Any first part is as balanced as the classes' sizes let it be, and contained in any longer one.
    """
    order = rng.uniform(rng.key(SEED, torch.arange(len(labels)))).argsort(stable=True)
    by_class = labels[order].argsort(stable=True)
    sizes = labels.bincount()
    turn = torch.empty_like(order)                       # how many of its class come before it
    turn[by_class] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order[turn.argsort(stable=True)]


class Subset:
    """The samples of a split at the positions `index` (n,), held in memory and dealt in batches as a Split deals them."""

    def __init__(self, split, index):
        self.card, self.index = split.card, index.sort().values
        parts = [{name: part[name][torch.isin(part["index"], index)] for name in ("image", "label")}
                 for part in split.in_order()]
        self.image, self.label = (torch.cat([part[name] for part in parts]) for name in ("image", "label"))

    def batches(self, seed, batch, images):
        n = len(self.index)
        order = torch.cat([rng.permutation(n, seed, epoch) for epoch in range(-(-images // n))])
        for start in range(0, images // batch * batch, batch):
            position = torch.arange(start, start + batch)
            at = order[position]
            yield {"image": self.image[at], "label": self.label[at], "index": self.index[at], "epoch": position // n}


class Together(nn.Module):
    """What several modules make of an image, side by side. Normalisation is that of the first, as it is of its copies."""

    def __init__(self, *members):
        super().__init__()
        self.members, self.takes, self.prepare = nn.ModuleList(members), members[0].takes, members[0].prepare
        self.train(members[0].training)                  # which `embed` restores

    def forward(self, x):
        return torch.cat([member(x) for member in self.members], 1)
