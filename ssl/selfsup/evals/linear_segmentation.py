"""Segmentation by a linear layer: what each pixel shows, told from the maps of a frozen encoder."""

from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from selfsup.arguments import Count, NotNegative, Range
from selfsup.core.maps import at_side
from selfsup.errors import UserError
from selfsup.evals import CONFIDENCE, percent
from selfsup.evals.linear import Standardise, path

title = "Segmentation, linear"
columns = ("mask",)                                      # of the data, besides what the encoder takes
labels = False                                           # masks are the labels here
KINDS = ("background", "object", "prop")                 # the numbers in the column


def choose(encoder, data, weight_decay: Annotated[list[NotNegative], Range(min_length=1)], images: Count,
           side: Count):
    """Fits on the first `images` images of train, for each layer's map and each weight decay, logistic regression of
    the mask at each place; layer and decay are chosen on val.

    Maps are brought to side × side places, of which each takes the kind that most of its pixels have; what is told of
    them is enlarged to the image's pixels before it is compared. The same images for every encoder.
    """
    if lacking := [name for name in columns if name not in data.card["columns"]]:
        raise UserError(f"{data.shards}: linear_segmentation needs the column '{lacking[0]}', which it does not have")
    maps, masks = places(encoder, data.train, side, images)
    val, truth = places(encoder, data.val, side)
    targets = F.one_hot(masks.long(), len(KINDS)).permute(0, 3, 1, 2).float()
    targets = at_side(targets, side).argmax(1).flatten()
    found = []
    for layer, (seen, held) in enumerate(zip(maps, val)):
        standardise = Standardise(rows(seen))
        for decay, (weight, bias) in path(standardise(rows(seen)), targets, len(KINDS), weight_decay).items():
            tell = told(standardise, weight, bias)
            found.append((ratio(*overlap(tell(held, truth.shape[1]), truth)).item(), layer, decay, tell))
    best = max(found, key=lambda each: each[0])          # the shallowest of equals
    return SimpleNamespace(val_accuracy=percent(best[0]), layer=best[1] + 1, decay=best[2], tell=best[3], side=side,
                           layers={str(i + 1): percent(max(f[0] for f in found if f[1] == i)) for i in range(len(maps))})


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high: the mean over kinds of the IoU, in percent, of all pixels of test together, and its
    interval over images; val_accuracy; the `layer`, 1 being nearest to the image, and weight_decay that were chosen;
    `layers`, of each the best on val; and `kinds`, the IoU of each."""
    maps, truth = places(encoder, data.test, chosen.side)
    both, either = overlap(chosen.tell(maps[chosen.layer - 1], truth.shape[1]), truth)
    yield "accuracy", percent(ratio(both, either))
    low, high = interval(both, either, bootstrap)
    yield "low", percent(low)
    yield "high", percent(high)
    yield "val_accuracy", chosen.val_accuracy
    yield "layer", chosen.layer
    yield "weight_decay", chosen.decay
    yield "layers", chosen.layers
    each = both.sum(0) / either.sum(0).clamp(min=1)
    yield "kinds", {kind: percent(value) for kind, value in zip(KINDS, each)}


@torch.no_grad()
def places(encoder, split, side, most=None):
    """The maps of every layer of a split's images, [(N, C, side, side), …], and their masks (N, S, S), on the encoder's
    device; of the first `most` images alone, if that is given."""
    device, maps, masks, count = next(encoder.parameters()).device, [], [], 0
    encoder.eval()
    for part in split.in_order(256):
        kept = slice(None if most is None else max(0, most - count))
        images = encoder.prepare(part[encoder.takes][kept].to(device))
        if len(images):
            maps.append([at_side(x.float(), side) for x in encoder.layers(images)])
            masks.append(part["mask"][kept].to(device))
        count += len(images)
        if count == most:
            break
    return [torch.cat(layer) for layer in zip(*maps)], torch.cat(masks)


def rows(maps):
    """Maps (N, C, h, w) as features of their places (N · h · w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def told(standardise, weight, bias):
    """A function from maps (N, C, h, w) and the side of the images to the kind of each pixel (N, side, side)."""

    def tell(maps, side):
        logits = standardise(rows(maps)) @ weight + bias
        logits = logits.view(len(maps), *maps.shape[2:], -1).permute(0, 3, 1, 2)
        return F.interpolate(logits, (side, side), mode="bilinear", align_corners=False).argmax(1)

    return tell


def overlap(guess, truth):
    """Pixels of each image that are of a kind by both, and by either of the two: float64 (N, kinds)."""
    kinds = torch.arange(len(KINDS), device=truth.device)[:, None, None]
    guess, truth = guess[:, None] == kinds, truth[:, None] == kinds
    return tuple(x.flatten(2).sum(2).double().cpu() for x in (guess & truth, guess | truth))


def ratio(both, either):
    """The mean IoU of images taken together, over the kinds that are there."""
    both, either = both.sum(-2), either.sum(-2)
    there = either > 0
    return (both / either.clamp(min=1) * there).sum(-1) / there.sum(-1)


def interval(both, either, n, seed=0):
    """Percentile interval of `ratio` from n resamples of the images."""
    generator = np.random.default_rng(seed)
    values = [ratio(both[drawn], either[drawn]) for drawn in
              (torch.from_numpy(generator.integers(len(both), size=len(both))) for _ in range(n))]
    return np.quantile(torch.stack(values).numpy(), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])


def notes(report, rows, options):
    yield (f"Segmentation, linear: the mean over {', '.join(KINDS)} of the IoU of all test pixels, by a linear layer on "
           f"the frozen map of one layer, at {options['side']} × {options['side']} places, fitted on the masks of "
           f"{options['images']:,} training images; layer and weight decay were chosen on val.")
