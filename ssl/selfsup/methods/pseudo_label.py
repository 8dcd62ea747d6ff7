"""Pseudo-labels: what the network takes an unlabelled sample for is learned like a label."""

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Count, Proportion, Share, Weight
from ..core.precision import float32
from ..data.order import Labelled, apart
from ..inputs.views import Taken, taken
from ..training.state import risen
from .base import Method


class PseudoLabel(Method):
    """Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks" (ICML
    workshop), with the threshold that later work gave it (Oliver et al. 2018, https://arxiv.org/abs/1804.09170).

    Cross-entropy with the labels, and times a weight that rises that of the unlabelled rows with their own likeliest
    class, a mean over all of them: where their probability is below the threshold it is 0, so that the first ones that
    are sure do not have the whole weight.
    ratio: unlabelled rows beside each labelled one. threshold: 0 is Lee's, who had none. weight, start, full: it is 0
    until the share `start` of the budget is spent, then rises linearly, and stays from `full` on; the values are those
    of Berthelot et al. 2019's code (https://arxiv.org/abs/1905.02249). Lee's waited before it rose.
    """

    inputs = Taken(augment="crop_flip", more=("label",))
    means = True
    sensitive = ("threshold", 0.0)  # Lee's own

    def __init__(
        self,
        encoder,
        card,
        ratio: Count = 3,
        threshold: Share = 0.95,
        weight: Weight = 1.0,
        start: Share = 0.0,
        full: Proportion = 0.4,
    ):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        self.order = Labelled(ratio)
        self.ratio, self.threshold, self.weight, self.start, self.full = ratio, threshold, weight, start, full
        self.register_buffer("risen", torch.zeros(()))

    def forward(self, batch):
        return self.objective(self.classifier(self.encoder(taken(batch, self.encoder))), batch["label"])

    @float32
    def objective(self, logits, label):
        (few, many), (label, _) = (apart(rows, self.ratio) for rows in (logits, label))
        probability, guess = many.detach().softmax(1).max(1)
        sure = (probability >= self.threshold).float()
        labelled = F.cross_entropy(few, label)
        unlabelled = (F.cross_entropy(many, guess, reduction="none") * sure).mean()
        accuracy = (few.argmax(1) == label).float().mean()
        return {"loss": labelled + self.weight * self.risen * unlabelled, "labelled": labelled,
                "unlabelled": unlabelled, "confident": sure.mean(), "accuracy": accuracy}

    def after_step(self, progress):
        self.risen.fill_(risen(progress, self.start, self.full))

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
