"""A linear classifier on the maps of every layer: at which depth a representation is best (Zhang et al. 2016, §3.2).

https://arxiv.org/abs/1603.08511
"""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F

from selfsup.arguments import Count, NotNegative, Range
from selfsup.evals import accuracy, embed, percent
from selfsup.evals.linear import Probe

title = "Best layer"
column = False                                           # but a figure of its own


def choose(encoder, data, weight_decay: Annotated[list[NotNegative], Range(min_length=1)], pool: Count):
    """Fits on train for each layer and weight decay; the weight decay of each layer and the layer are chosen on val.

    pool: maps are averaged to pool × pixels a side, smaller ones left as they are. 1 is the mean over the map, as in the
    encoder's own features: then the last layer's numbers are those of `linear`, and no layer has more features than it
    has channels. Zhang et al. give all layers about 9,000 features instead.
    """
    maps = Maps(encoder, pool)
    train, labels = embed(maps, data.train)
    val, truth = embed(maps, data.val)
    layers = zip(train.split(maps.widths, 1), val.split(maps.widths, 1))
    probes = [Probe((seen, labels), (held, truth), len(data.card["classes"]), weight_decay) for seen, held in layers]
    best = max(range(len(probes)), key=lambda layer: probes[layer].val)  # the shallowest of equals
    return SimpleNamespace(val_accuracy=percent(probes[best].val), layer=best + 1, maps=maps, probes=probes)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) and val_accuracy of the chosen `layer`, 1 being nearest to the image;
    and in `layers` for each of them accuracy, low, high, val_accuracy and weight_decay."""
    features, truth = embed(chosen.maps, data.test)
    results = {str(layer): {**dict(accuracy(probe(part) == truth, bootstrap)), "val_accuracy": percent(probe.val),
                            "weight_decay": probe.decay}
               for layer, (probe, part) in enumerate(zip(chosen.probes, features.split(chosen.maps.widths, 1)), 1)}
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, results[str(chosen.layer)][name]
    yield "layer", chosen.layer
    yield "layers", results


class Maps(nn.Module):
    """All maps of an encoder side by side as one row of features an image, `widths` of them from each layer."""

    def __init__(self, encoder, pool):
        super().__init__()
        self.encoder, self.takes, self.prepare, self.pool = encoder, encoder.takes, encoder.prepare, pool
        self.train(encoder.training)                     # which `embed` restores

    def forward(self, x):
        rows = []
        for m in self.encoder.layers(x):
            side = [min(self.pool, length) for length in m.shape[2:]]
            rows.append(F.adaptive_avg_pool2d(m, side).flatten(1))
        self.widths = [row.shape[1] for row in rows]
        return torch.cat(rows, 1)


def notes(report, rows, options):
    yield "Best layer, in the verdict: as Linear, on the layer chosen on val."


def panel(report, rows, options):
    return report.Panel(
        "layers", "Layer by layer",
        "A linear classifier on the averaged map of each layer: how early a representation tells the classes apart, and "
        "whether its last layers have specialised in the pretext task. Shaded: 95 % intervals.",
        table=table(report, rows), figure=figure(report, rows))


def table(report, rows):
    """A column for each layer."""
    def cells(content):
        return {int(layer): found for layer, found in content["layers"].items()}

    return report.crossed(rows, "layerwise", cells, "Layer {}".format)


def figure(report, rows):
    """Accuracy of the classifier on each layer, a panel for each encoder and data set."""
    groups = {}
    for row in rows:
        groups.setdefault((row.run.data, row.architecture), []).append(row)
    several = len({data for data, _ in groups}) > 1
    drawing, axes = report.pyplot().subplots(1, len(groups), figsize=(6.5 * len(groups), 3.4), sharey=True, squeeze=False)
    for axis, ((data, architecture), members) in zip(axes[0], groups.items()):
        colours = iter(report.PALETTE * len(members))
        for row, cells in table(report, members)[1]:
            low, middle, high = ([cell[key] for cell in cells if cell] for key in ("low", "accuracy", "high"))
            depth = range(1, len(middle) + 1)
            colour = {"floor": report.BAD, "ceiling": report.GOOD}.get(row.role) or next(colours)
            axis.plot(depth, middle, "o--" if row.role else "o-", color=colour, markersize=4, linewidth=1.5, label=row.title)
            axis.fill_between(depth, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set_title(f"{data}: {architecture}" if several else architecture)
        axis.set_xlabel("layer, 1 nearest to the image")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(loc="upper left")
    axes[0][0].set_ylabel("accuracy on test, %")
    drawing.tight_layout()
    return report.svg(drawing)
