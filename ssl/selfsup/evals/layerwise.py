"""A linear classifier on the maps of every layer: at which depth a representation is best (Zhang et al. 2016, §3.2).

https://arxiv.org/abs/1603.08511
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from selfsup.evals import accuracy, embed, percent
from selfsup.evals.linear import Probe


def run(encoder, data, weight_decay, pool, bootstrap=1000):
    """Fits on train for each layer and weight decay; the weight decay of each layer and the layer are chosen on val.

    pool: maps are averaged to pool × pixels a side, smaller ones left as they are. 1 is the mean over the map, as in the
    encoder's own features: then the last layer's numbers are those of `linear`, and no layer has more features than it
    has channels. Zhang et al. give all layers about 9,000 features instead.
    Yields accuracy, low, high (percent, test) and val_accuracy of the chosen `layer`, 1 being nearest to the image; and
    in `layers` for each of them accuracy, low, high, val_accuracy and weight_decay.
    """
    maps = Maps(encoder, pool)
    train, labels = embed(maps, data.train)
    val, truth = embed(maps, data.val)
    layers = zip(train.split(maps.widths, 1), val.split(maps.widths, 1))
    probes = [Probe((seen, labels), (held, truth), len(data.card["classes"]), weight_decay) for seen, held in layers]
    best = max(range(len(probes)), key=lambda layer: probes[layer].val)  # the shallowest of equals
    features, truth = embed(maps, data.test)
    results = {str(layer): {**dict(accuracy(probe(part) == truth, bootstrap)), "val_accuracy": percent(probe.val),
                            "weight_decay": probe.decay}
               for layer, (probe, part) in enumerate(zip(probes, features.split(maps.widths, 1)), 1)}
    chosen = results[str(best + 1)]
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, chosen[name]
    yield "layer", best + 1
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
