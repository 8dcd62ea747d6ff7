"""Entropy minimisation: classes should lie apart, so unlabelled samples should be classified with certainty."""

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Count, Proportion, Temperature, Weight
from ..core.precision import float32
from ..data.order import Labelled, apart
from ..inputs.views import Taken, taken
from ..training.state import ramp_up
from .base import Method


class EntropyMinimization(Method):
    """Grandvalet & Bengio 2005, "Semi-supervised Learning by Entropy Minimization" (NIPS 17).
    https://papers.nips.cc/paper/2004/file/96f2b50b5d3613adf9c27049b2a888c7-Metadata.json

    Cross-entropy with the labels, and `weight` times the unlabelled rows' mean entropy H(p) = −Σ p log p, whose
    gradient flows through both p and log p.
    temperature: with one, below 1, the unlabelled rows' loss is instead their cross-entropy with the sharpened
    p^(1/T) / Σ p^(1/T), which is held still, as in MixMatch (Berthelot et al. 2019, https://arxiv.org/abs/1905.02249,
    where T is 0.5): towards the same end by another gradient. At 1 it has none, and towards 0 it becomes that of
    pseudo-labels.
    ratio: unlabelled rows beside each labelled one. weight: the paper chooses it for each data set; 0.06 is what
    MixMatch's code gives it beside VAT. rising: the share of the budget in which it is reached; the paper has no such
    time, but before anything is learned certainty about anything is wrong.
    """

    inputs = Taken(augment="crop_flip", more=("label",))
    means = True
    sensitive = ("temperature", 0.5)  # that of MixMatch

    def __init__(self, encoder, card, ratio: Count = 3, weight: Weight = 0.06, temperature: Temperature | None = None,
                 rising: Proportion = 0.4):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        self.order = Labelled(ratio)
        self.ratio, self.weight, self.temperature, self.rising = ratio, weight, temperature, rising
        self.register_buffer("risen", ramp_up(0, rising).float())

    def forward(self, batch):
        return self.objective(self.classifier(self.encoder(taken(batch, self.encoder))), batch["label"])

    @float32
    def objective(self, logits, label):
        (few, many), (label, _) = (apart(rows, self.ratio) for rows in (logits, label))
        labelled, entropy = F.cross_entropy(few, label), torch.special.entr(many.softmax(1)).sum(1).mean()
        told = {"labelled": labelled, "entropy": entropy, "accuracy": (few.argmax(1) == label).float().mean()}
        unlabelled = entropy
        if self.temperature is not None:
            # Of p = softmax(z) the sharpened is softmax(z / T).
            unlabelled = F.cross_entropy(many, (many.detach() / self.temperature).softmax(1))
            told["unlabelled"] = unlabelled
        return {"loss": labelled + self.weight * self.risen * unlabelled, **told}

    def after_step(self, progress):
        self.risen.fill_(ramp_up(progress, self.rising))

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
