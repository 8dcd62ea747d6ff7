"""FixMatch: what the network says of a weak view of an image, where it is sure, is the label of a strong view."""

import torch
import torch.nn as nn

from .. import nets
from ..arguments import Count, Proportion, Temperature, Weight
from ..core.precision import cross_entropy, float32
from ..data.order import Labelled, apart
from ..inputs.views import Views
from ..training.state import Ema
from .base import Method


class FixMatch(Method):
    """Sohn et al. 2020, "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", Algorithm 1
    and eqs. 2-4. https://arxiv.org/abs/2001.07685

    ratio: unlabelled images beside each labelled one (μ), with which `train.batch` is a multiple of 1 + ratio.
    threshold: τ. weight: λ_u. momentum: of the averaged weights, which are what is judged; 0.999 averages over a
    thousand steps, a run of some hundred needs about 0.98. BatchNorm's statistics are averaged with them.
    temperature: where given, the target is not one class but sharpened shares of all: with 0.4 and a threshold of 0.8
    this is the authors' code of UDA (Xie et al. 2020, https://arxiv.org/abs/1904.12848), which FixMatch simplifies.
    Labelled images have the first of the two views, which is weak. One forward sees all rows, so that BatchNorm does; a
    labelled image's strong view is made and not used.
    """

    inputs = Views(2, augment="fixmatch", columns=("image", "label"))
    means = True
    sensitive = ("threshold", 0.8)  # the paper varies it

    def __init__(
        self,
        encoder,
        card,
        ratio: Count = 7,
        threshold: Proportion = 0.95,
        weight: Weight = 1.0,
        temperature: Temperature | None = None,
        momentum: Proportion = 0.999,
    ):
        super().__init__(encoder)
        self.order = Labelled(ratio)
        self.threshold, self.weight, self.temperature, self.momentum = threshold, weight, temperature, momentum
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        self.average = Ema(nn.Sequential(encoder, self.classifier))

    def forward(self, batch):
        labelled, others = apart(batch["image"], self.order.ratio)
        x = torch.cat([labelled[:, 0], *others.unbind(1)])
        logits = self.classifier(self.encoder(x))
        label, _ = apart(batch["label"], self.order.ratio)
        return self.objective(*logits.tensor_split((len(labelled), len(labelled) + len(others))), label)

    @float32
    def objective(self, labelled, weak, strong, label):
        """Of logits (n, C) of the labelled rows, and of both views (n · ratio, C) of the others; label (n,)."""
        sure, said = weak.detach().softmax(1).max(1)
        if self.temperature is not None:
            said = (weak.detach() / self.temperature).softmax(1)
        confident = (sure >= self.threshold).float()
        supervised = cross_entropy(labelled, label)
        # A mean over all unlabelled rows: over the confident ones alone the first of them would have the whole weight.
        consistency = (cross_entropy(strong, said, reduction="none") * confident).mean()
        return {
            "loss": supervised + self.weight * consistency,
            "labelled": supervised.detach(),
            "unlabelled": consistency.detach(),
            "accuracy": (labelled.argmax(1) == label).float().mean(),
            "confident": confident.mean(),
        }

    def after_step(self, progress):
        self.average.update(nn.Sequential(self.encoder, self.classifier), self.momentum, buffers=True)

    def parts(self):
        encoder, classifier = self.average.module
        return {"encoder": encoder, "classifier": classifier}
