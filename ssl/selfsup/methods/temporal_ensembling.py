"""Temporal ensembling: a sample's prediction should be the average of those that it had in the epochs before."""

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Count, Proportion, Share, Weight
from ..core.distributed import gather_rows
from ..core.precision import float32
from ..data.order import Labelled, apart
from ..inputs.views import View
from ..training.state import ramp_up
from .base import Method


class TemporalEnsembling(Method):
    """Laine & Aila 2017, "Temporal Ensembling for Semi-Supervised Learning", Algorithm 2.
    https://arxiv.org/abs/1610.02242

    Cross-entropy of the labelled rows, and times a weight that rises the squared difference of an unlabelled row's
    probabilities z from its ensemble z̃ = Z / (1 − α^t), a mean over classes and over all unlabelled rows; then
    Z ← αZ + (1 − α)z. The paper does that after each epoch, for all samples; here it is done as they come, since each
    unlabelled sample comes once an epoch, and t is a sample's own: a batch may span two epochs. A sample's first time
    has no ensemble yet and adds nothing, as the paper's first epoch.
    ratio: unlabelled rows beside each labelled one. momentum: α. weight: 30 on CIFAR-10 and SVHN, and as in `pi_model`
    the share of samples with a label falls out; rising, too, is as there, and the noise is that of the views.
    """

    inputs = View("crop_flip", columns=("image", "label"))
    held_out = False  # only training images have an ensemble
    sensitive = ("weight", 100.0)  # the authors' for CIFAR-100

    def __init__(self, encoder, card, ratio: Count = 3, momentum: Share = 0.6, weight: Weight = 30.0,
                 rising: Proportion = 0.27):
        super().__init__(encoder)
        classes = len(card["classes"])
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=classes)
        self.order = Labelled(ratio)
        self.ratio, self.momentum, self.weight, self.rising = ratio, momentum, weight, rising
        self.register_buffer("risen", ramp_up(0, rising).float())
        self.register_buffer("ensemble", torch.zeros(card["counts"]["train"], classes))  # Z
        self.register_buffer("times", torch.zeros(card["counts"]["train"]))  # t

    def forward(self, batch):
        return self.objective(self.classifier(self.encoder(batch["image"])), batch["label"], batch["index"])

    @float32
    def objective(self, logits, label, index):
        (few, many), (label, _), (_, index) = (apart(rows, self.ratio) for rows in (logits, label, index))
        z, t = many.softmax(1), self.times[index]
        known = t > 0
        target = self.ensemble[index] / (1 - self.momentum**t).where(known, 1)[:, None]
        labelled = F.cross_entropy(few, label)
        consistency = ((z - target).square().mean(1) * known).mean()
        if self.training:
            self.remember(gather_rows(index), gather_rows(z))
        accuracy = (few.argmax(1) == label).float().mean()
        return {"loss": labelled + self.weight * self.risen * consistency, "labelled": labelled,
                "consistency": consistency, "known": known.float().mean(), "accuracy": accuracy}

    @torch.no_grad()
    def remember(self, index, z):
        """Z and t of the samples `index` (n,) after predictions z (n, classes), one after the other where a sample
        comes twice, as at the border of two epochs."""
        same = index[:, None] == index
        later = same.triu(1).sum(1)  # how often it comes again
        added = same.to(z.dtype) @ (z * (1 - self.momentum) * self.momentum ** later[:, None])
        count = same.sum(1)
        self.ensemble[index] = self.ensemble[index] * self.momentum ** count[:, None] + added
        self.times[index] += count  # the same for each row of one sample

    def after_step(self, progress):
        self.risen.fill_(ramp_up(progress, self.rising))

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
