"""Segmentation of what moves: of one frame, which pixels are of the thing that moves by itself in the film."""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn.functional as F

from selfsup.arguments import Proportion, Range
from selfsup.core.cluster import kmeans_each
from selfsup.core.maps import at_side
from selfsup.core.moving import BORDER, CELLS, moving, window
from selfsup.errors import UserError
from selfsup.evals import accuracy, percent, summarise
from selfsup.inputs.operations import crop as cropped

title = "Segmentation"
column = False
columns = ("frames", "flow", "mask")                     # of the data, besides what the encoder takes
perhaps = ("pixels",)                                    # a part of the encoder folder that is used where there is one
THING = 1                                                # in the column mask


def choose(encoder, data, crop: Proportion, clusters: Annotated[list[Annotated[int, Range(ge=2, le=256)]],
                                                                Range(min_length=1, distinct=True)], pixels=None):
    """Chooses on val how many clusters of pixels an image has, where its pixels have to be clustered.

    pixels: what makes of the encoder's maps one number for each pixel, above 0 for what moves (motion_segmentation's), or
    an embedding (common_fate's). An embedding's pixels, and without `pixels` those of all maps together, each of unit
    length, are clustered by k-means, an image at a time, and what has the least share of its pixels at the border is
    taken for the thing. crop: side of the square around what moves, as a share of the image's, as in motion_segmentation.
    """
    if lacking := [name for name in columns if name not in data.card["columns"]]:
        raise UserError(f"{data.shards}: segmentation needs the column '{lacking[0]}', which it does not have")
    tried = [None] if pixels is not None and pixels(maps_of(encoder, data.card["size"])).shape[1] == 1 else clusters
    val = {count: measured(encoder, pixels, data.val, crop, count)["own"].mean().item() for count in tried}
    best = max(val, key=val.get)
    return SimpleNamespace(val_accuracy=percent(val[best]), clusters=best, crop=crop, pixels=pixels)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test), the mean over images of the IoU with the truth; val_accuracy and
    `clusters`, which were chosen; and the same three of two that look at no image: `all_foreground`, and `found`, what the
    flow alone says."""
    found = measured(encoder, chosen.pixels, data.test, chosen.crop, chosen.clusters)
    yield from accuracy(found["own"], bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "clusters", chosen.clusters
    for name in ("all_foreground", "found"):
        yield name, dict(accuracy(found[name], bootstrap))


@torch.no_grad()
def measured(encoder, pixels, split, crop, clusters):
    """IoU (N,) of each of a split's images by what it is found with."""
    device, scores = next(encoder.parameters()).device, {"own": [], "all_foreground": [], "found": []}
    for part in split.in_order(256):
        frames, flow, mask = (part[name].to(device) for name in columns)
        frames = encoder.prepare(frames.flatten(0, 1)).view(frames.shape)
        image, found, truth = cuts(frames, flow, mask == THING, crop)
        guesses = {"own": foreground(encoder, pixels, image, clusters), "found": found > 0.5,
                   "all_foreground": torch.ones_like(truth)}
        for name, guess in guesses.items():
            scores[name].append(iou(guess, truth).cpu())
    return {name: torch.cat(found) for name, found in scores.items()}


def cuts(frames, flow, truth, crop):
    """Crops (N, C, S, S) of the first of frames (N, T, C, H, W) around what the flow finds to move, and the same of that
    (N, S, S) and of the truth (N, H, W), bool."""
    side = max(1, round(crop * frames.shape[-1]))
    found = moving(frames, flow)
    corner, _ = window(found, side)
    box, flip = torch.cat([corner, torch.full_like(corner, side)], 1), torch.zeros(len(corner), dtype=torch.bool,
                                                                                   device=corner.device)
    both = cropped(torch.stack([found, truth.float()], 1), box, flip)
    return cropped(frames[:, 0], box, flip), both[:, 0], both[:, 1] > 0.5


def foreground(encoder, pixels, image, clusters):
    """bool (N, S, S) of images (N, C, S, S)."""
    maps = encoder.layers(image)
    if pixels is None:
        values = torch.cat([F.normalize(at_side(x, CELLS), dim=1) for x in maps], 1)
    else:
        values = pixels(maps)
    if clusters is None:
        return F.interpolate(values, image.shape[2:], mode="bilinear", align_corners=False)[:, 0] > 0
    thing = inner(F.normalize(values, dim=1), clusters)
    return F.interpolate(thing[:, None].float(), image.shape[2:])[:, 0] > 0.5


def inner(values, clusters):
    """Of the k-means clusters of the pixels' values (N, D, h, w), an image at a time, where the one is that has the least
    share of its pixels at the border: bool (N, h, w)."""
    height, width = values.shape[2:]
    label = kmeans_each(values.flatten(2).transpose(1, 2), clusters).view(-1, height, width)
    edge = [max(1, round(BORDER * side)) for side in (height, width)]
    middle = label[:, edge[0]:-edge[0], edge[1]:-edge[1]]
    count, inside = (F.one_hot(x.flatten(1), clusters).sum(1) for x in (label, middle))
    return label == (inside / count.clamp(min=1)).argmax(1)[:, None, None]


def maps_of(encoder, size):
    return encoder.layers(torch.zeros(1, encoder.channels, size, size, device=next(encoder.parameters()).device))


def iou(guess, truth):
    """(N,) of bool (N, H, W); 1 where both are empty."""
    both, either = ((x.flatten(1).sum(1)) for x in (guess & truth, guess | truth))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def notes(report, rows, options):
    yield ("Segmentation: the mean over test images of the IoU of what is taken for the moving thing with the truth, by one "
           "frame alone, cut out around what the flow says moves. Embeddings are clustered, an image at a time; into how "
           "many clusters was chosen on val. All-foreground and what the flow found are measured on the same crops.")


def panel(report, rows, options):
    heads = {"IoU": lambda seed: seed, "all foreground": lambda seed: seed["all_foreground"],
             "what the flow found": lambda seed: seed["found"]}
    table = [(row, [summarise({number: take(seed) for number, seed in row.results["segmentation"]["seeds"].items()})
                    for take in heads.values()]) for row in rows]
    return report.Panel(
        "segmentation", "What moves, told from one frame",
        "IoU, in per cent, of what is taken for the thing that moves with the truth, which no method is shown; and that "
        "of two guesses on the same crops: that all of it moves, and what the optical flow found, which methods learn from.",
        table=(list(heads), table))
