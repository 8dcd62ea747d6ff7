"""MixMatch: guessed labels, sharpened, and everything mixed with everything."""

from dataclasses import replace
from typing import Annotated

import torch
import torch.nn as nn

from .. import nets
from ..arguments import Count, Proportion, Range, Scale, Temperature, Weight
from ..core import rng
from ..core.precision import float32
from ..data.order import Labelled, apart
from ..inputs import mix
from ..inputs.views import Views
from ..training.accumulate import untracked
from ..training.state import Ema, risen
from .base import Method


class MixMatch(Method):
    """Berthelot et al. 2019, "MixMatch: A Holistic Approach to Semi-Supervised Learning", Algorithm 1 and eqs. 2-12.
    https://arxiv.org/abs/1905.02249

    ratio: unlabelled images beside each labelled one. views: K, of an unlabelled image; labelled ones have one.
    temperature: T of the sharpening. alpha: of the share's distribution. weight: λ_U, which rises linearly over `ramp`
    of the training, in the authors' code a 64th. momentum: of the averaged weights, which are what is judged; 0.999
    averages over a thousand steps, a run of some hundred needs about 0.98. BatchNorm's statistics are averaged with
    them. Guesses are made in training mode and leave BatchNorm's statistics alone. Then all mixed images go through the
    network at once; the authors' interleaving, for which there are several passes, has nothing left to do.
    """

    inputs = Views(2, augment="flip_shift", columns=("image", "label"))
    sensitive = ("weight", 75.0)  # the authors' example for CIFAR-10

    def __init__(
        self,
        encoder,
        card,
        ratio: Count = 1,
        views: Annotated[int, Range(ge=1, le=64)] = 2,
        temperature: Temperature = 0.5,
        alpha: Scale = 0.75,
        weight: Weight = 100.0,
        ramp: Proportion = 1 / 64,
        momentum: Proportion = 0.999,
    ):
        super().__init__(encoder)
        self.order, self.inputs = Labelled(ratio), replace(self.inputs, count=views)
        self.temperature, self.alpha, self.weight, self.ramp, self.momentum = temperature, alpha, weight, ramp, momentum
        self.classes = len(card["classes"])
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=self.classes)
        self.average = Ema(nn.Sequential(encoder, self.classifier))
        self.register_buffer("risen", torch.zeros(()))  # the share of λ_U that counts by now

    def forward(self, batch):
        labelled, others = apart(batch["image"], self.order.ratio)
        label, _ = apart(batch["label"], self.order.ratio)
        x, targets, n = torch.cat([labelled[:, 0], others.flatten(0, 1)]), self.targets(label, others), len(label)
        x, targets = self.mixed(x, targets, *apart(batch["key"], self.order.ratio))
        logits = self.classifier(self.encoder(x))
        return {**self.objective(logits[:n], targets[:n], logits[n:], targets[n:]),
                "accuracy": (logits[:n].argmax(1) == targets[:n].argmax(1)).float().mean()}

    @torch.no_grad()
    def targets(self, label, others):
        """Those of the labelled images and of each view (n, K, C, H, W) of the others: (n + n · K, classes)."""
        with untracked(self):
            logits = self.classifier(self.encoder(others.flatten(0, 1)))
        known = nn.functional.one_hot(label.clamp(min=0), self.classes).float()
        guessed = self.sharpened(logits.unflatten(0, others.shape[:2]))
        return torch.cat([known, guessed.repeat_interleave(others.shape[1], 0)])

    @float32
    def sharpened(self, logits):
        """The guess of each image (n, classes), from the logits of its views (n, K, classes): lines 7 and 8."""
        power = logits.softmax(2).mean(1).log() / self.temperature
        return power.softmax(1)

    def mixed(self, x, targets, key, others):
        """Lines 13 and 14: each with one of all, in images and in targets alike, and no less than half its own."""
        views = torch.arange(self.inputs.count, device=key.device)
        own = torch.cat([rng.key(key, self.inputs.count), rng.key(others[:, None], views).flatten()])
        share, partner = mix.shares(own, self.alpha), mix.partners(own)
        share = share.maximum(1 - share)
        return mix.mixed(x, partner, share), mix.mixed(targets, partner, share)

    @float32
    def objective(self, labelled, target, unlabelled, guess):
        supervised = -(target * labelled.log_softmax(1)).sum(1).mean()
        consistency = (unlabelled.softmax(1) - guess).square().mean()  # over classes, too
        return {
            "loss": supervised + self.weight * self.risen * consistency,
            "labelled": supervised.detach(),
            "unlabelled": consistency.detach(),
        }

    def after_step(self, progress):
        self.risen.fill_(risen(progress, 0, self.ramp))
        self.average.update(nn.Sequential(self.encoder, self.classifier), self.momentum, buffers=True)

    def parts(self):
        encoder, classifier = self.average.module
        return {"encoder": encoder, "classifier": classifier}
