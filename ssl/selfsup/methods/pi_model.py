"""Π-model: two noisy looks at one sample should give one prediction."""

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Count, Proportion, Weight
from ..core.precision import float32
from ..data.order import Labelled, apart
from ..inputs.views import Views
from ..training.state import ramp_up
from .base import Method


class PiModel(Method):
    """Laine & Aila 2017, "Temporal Ensembling for Semi-Supervised Learning", Algorithm 1.
    https://arxiv.org/abs/1610.02242

    Cross-entropy of the labelled rows' first view, and times a weight that rises the squared difference of the two
    views' probabilities, a mean over classes and over the unlabelled rows. The gradient flows through both views, as in
    the authors' code (later ones hold one still). Their noise is Gaussian, dropout, shifts and flips; our networks have
    no dropout, so here it is that of the views alone.
    ratio: unlabelled rows beside each labelled one. weight: the authors divide the labelled rows' sum by the whole
    batch, and multiply 100 by the share of samples with a label: as means of either kind that is 100. rising: the share
    of the budget in which the weight is reached, 80 of 300 epochs.
    """

    inputs = Views(2, augment="crop_flip", columns=("image", "label"))
    means = True
    sensitive = ("weight", 30.0)  # that of temporal ensembling

    def __init__(self, encoder, card, ratio: Count = 3, weight: Weight = 100.0, rising: Proportion = 0.27):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        self.order = Labelled(ratio)
        self.ratio, self.weight, self.rising = ratio, weight, rising
        self.register_buffer("risen", ramp_up(0, rising).float())

    def forward(self, batch):
        both = torch.cat(batch["image"].unbind(1))  # one forward, so that BatchNorm sees all
        return self.objective(*self.classifier(self.encoder(both)).chunk(2), batch["label"])

    @float32
    def objective(self, first, second, label):
        (few, many), (_, again), (label, _) = (apart(rows, self.ratio) for rows in (first, second, label))
        labelled, consistency = F.cross_entropy(few, label), (many.softmax(1) - again.softmax(1)).square().mean()
        accuracy = (few.argmax(1) == label).float().mean()
        return {"loss": labelled + self.weight * self.risen * consistency, "labelled": labelled,
                "consistency": consistency, "accuracy": accuracy}

    def after_step(self, progress):
        self.risen.fill_(ramp_up(progress, self.rising))

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
