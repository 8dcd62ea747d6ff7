"""Detection: boxes, by FCOS on the encoder, all of it trained (He et al. 2020, section 4.2; Tian et al. 2019).

https://arxiv.org/abs/1911.05722, https://arxiv.org/abs/1904.01355
"""

import copy
from collections import OrderedDict
from types import SimpleNamespace
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn as nn

from selfsup.arguments import Batch, Count, NotNegative, Positive, Range, Share
from selfsup.core import rng
from selfsup.core.boxes import Precision, matched
from selfsup.errors import UserError
from selfsup.evals import CONFIDENCE, percent
from selfsup.inputs.views import View
from selfsup.training import step

title = "Detection"
columns = ("boxes",)                                     # of the data, besides what the encoder takes and the label
SEED = 0                                                 # of order, flips and heads: the same for every encoder
WIDTH = 64                                               # of the pyramid and the heads
FLIP = 1                                                 # salt


def choose(
    encoder,
    data,
    images: Count,
    batch: Batch,
    optimizer: Literal["adamw", "sgd"],
    lr: Annotated[list[Positive], Range(min_length=1)],
    weight_decay: NotNegative,
    warmup: Share,
    clip: NotNegative,
):
    """Trains a detector on a copy of the encoder for each learning rate and chooses on val: arguments.Budget says what
    the options are. Nothing is frozen; for an encoder at random initialisation it is training from scratch.

    A box is of the label's class or, the second thing of a scene, of one kind more. Images keep their size.
    """
    if lacking := [name for name in columns if name not in data.card["columns"]]:
        raise UserError(f"{data.shards}: detection needs the column '{lacking[0]}', which it does not have")
    budget = dict(images=images, batch=batch, optimizer=optimizer, weight_decay=weight_decay, warmup=warmup, clip=clip)
    best = None, -1, None
    for rate in lr:
        net = fit(encoder, data.train, rate, **budget)
        if net is not None:
            whole = torch.ones(1, len(data.val), dtype=torch.float64)
            best = max(best, (net, found(net, data.val)(whole).mean().item(), rate), key=lambda each: each[1])
    if best[0] is None:
        raise UserError(f"detection diverges at every learning rate of {lr}; lower them in params.yaml")
    return SimpleNamespace(val_accuracy=percent(best[1]), net=best[0], lr=best[2])


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high: AP in percent, COCO's mean over kinds and ten thresholds of the IoU, with its interval
    over images; AP50 and AP75, at one threshold each; val_accuracy and lr."""
    precision, n = found(chosen.net, data.test), len(data.test)
    each = precision(torch.ones(1, n, dtype=torch.float64))[0]
    generator, means = np.random.default_rng(SEED), []
    for start in range(0, bootstrap, 20):
        drawn = generator.integers(n, size=(min(20, bootstrap - start), n))
        weights = np.stack([np.bincount(row, minlength=n) for row in drawn])
        means.append(precision(torch.from_numpy(weights).double()).mean(1))
    low, high = np.quantile(torch.cat(means).numpy(), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    for name, value in (("accuracy", each.mean()), ("low", low), ("high", high), ("AP50", each[0]), ("AP75", each[5])):
        yield name, percent(value)
    yield "val_accuracy", chosen.val_accuracy
    yield "lr", chosen.lr


def fit(encoder, train, rate, images, batch, optimizer, weight_decay, warmup, clip):
    """A detector after `images` images of train, each flipped or not, or None where it diverges."""
    device = next(encoder.parameters()).device
    settings = SimpleNamespace(optimizer=optimizer, lr=rate, weight_decay=weight_decay, warmup=warmup, clip=clip)
    names = (encoder.takes, "label", "boxes", "index", "epoch")
    parts = ({name: part[name].to(device) for name in names} for part in train.batches(SEED, batch, images))
    batches = (seen(part, encoder, len(train.card["classes"])) for part in parts)

    def objective(part):
        return {"loss": sum(net(part["image"], part["targets"]).values())}

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)
        net = step.placed(Detector(encoder, train.card), device)
        converged = step.fit(net, objective, batches, images // batch, settings, SEED)
    return net.eval() if converged else None


def seen(part, encoder, classes):
    """Images (N, C, S, S), half of them flipped, and what is in each, as torchvision's detectors take it: a list of its
    boxes (n, 4) in pixels and their labels (n,)."""
    out = View("none")(part, SEED, encoder.mean, encoder.std)
    flip = rng.uniform(out["key"], salt=FLIP) < 0.5
    image = torch.where(flip[:, None, None, None], out["image"].flip(3), out["image"])
    boxes, kinds = truths(part, classes)
    boxes = torch.where(flip[:, None, None], flipped(boxes), boxes) * image.shape[3]
    return {"image": image, "targets": [{"boxes": some[kind >= 0], "labels": kind[kind >= 0]}
                                        for some, kind in zip(boxes, kinds)]}


def flipped(boxes):
    """Boxes (…, 4), in shares of the image's side, as its mirror image has them."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([1 - right, top, 1 - left, bottom], -1)


def truths(part, classes):
    """Boxes (N, 2, 4) of a picture's things, in shares of its side, and what they are (N, 2): a class, `classes` for the
    second thing, -1 for none."""
    boxes = part["boxes"][:, 0].clamp(0, 1)
    there = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    kinds = torch.stack([part["label"], torch.full_like(part["label"], classes)], 1)
    return boxes, torch.where(there, kinds, -1)


class Detector(nn.Module):
    """torchvision's FCOS without its resizing, on a pyramid of a copy of the encoder's maps: of each resolution the last
    one, of which the three coarsest. Heads have one convolution, for boxes of a few dozen pixels.
    """

    def __init__(self, encoder, card):
        super().__init__()
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.fcos import FCOS, FCOSHead

        pyramid, classes, size = Pyramid(encoder, card["size"]), len(card["classes"]) + 1, card["size"]
        self.takes, self.prepare = encoder.takes, encoder.prepare
        strides = tuple((size // side,) for side in pyramid.sides)
        self.fcos = FCOS(pyramid, classes, size, size, [0.0] * encoder.channels, [1.0] * encoder.channels,
                         AnchorGenerator(strides, ((1.0,),) * len(strides)), FCOSHead(WIDTH, 1, classes, num_convs=1),
                         score_thresh=0.01, detections_per_img=10, topk_candidates=100)

    def forward(self, images, targets=None):
        return self.fcos(list(images), targets)

    def param_groups(self):
        return [{"params": self.parameters()}]


class Pyramid(nn.Module):
    """Images -> maps of `WIDTH` channels, `sides` pixels wide, the finest first (Lin et al. 2017)."""

    def __init__(self, encoder, size):
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.encoder, self.out_channels = copy.deepcopy(encoder).requires_grad_(), WIDTH
        with torch.no_grad():
            maps = self.encoder.layers(torch.zeros(1, encoder.channels, size, size, device=next(encoder.parameters()).device))
        last = {x.shape[2]: number for number, x in enumerate(maps)}
        self.sides = sorted(last, reverse=True)[-3:]
        self.levels = [last[side] for side in self.sides]
        self.fpn = FeaturePyramidNetwork([maps[level].shape[1] for level in self.levels], WIDTH)

    def forward(self, x):
        maps = self.encoder.layers(x)
        return self.fpn(OrderedDict((str(level), maps[level]) for level in self.levels))


@torch.no_grad()
def found(net, split):
    """The Precision of what a detector finds in a split's images."""
    device, parts = next(net.parameters()).device, []
    for part in split.in_order(256):
        told = net(net.prepare(part[net.takes].to(device)))
        boxes, kinds = truths(part, net.fcos.head.classification_head.num_classes - 1)
        most = net.fcos.detections_per_img
        scores, guess, own = (torch.stack([filled(each[name].cpu(), most) for each in told])
                              for name in ("scores", "labels", "boxes"))
        size = part[net.takes].shape[-1]
        hit = matched(own.float() / size, guess, boxes.float(), kinds)
        parts.append((scores, guess, hit, kinds))
    return Precision(*map(torch.cat, zip(*parts)))


def filled(rows, count):
    """Rows (n, …) and below them as many of -1 as there are to `count`."""
    return torch.cat([rows, rows.new_full((count - len(rows), *rows.shape[1:]), -1)])


def notes(report, rows, options):
    yield (f"Detection: AP, in per cent, COCO's mean over kinds and ten thresholds of the IoU, of FCOS on the whole encoder, "
           f"trained for {options['images']:,} images; on val chosen was the rate, of {report.listed(options['lr'])}. For "
           f"{report.FLOOR} initialisation that is training from scratch.")
