"""Cutout: a square of each image is taken away."""

from .. import nets
from ..core.precision import cross_entropy
from ..data.order import Shuffled
from ..inputs.views import View
from .base import Method


class Cutout(Method):
    """DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".
    https://arxiv.org/abs/1708.04552

    Trained on the images that have a label. The square has half of the image's side, 16 of 32 pixels as in the paper
    for CIFAR-10, lies anywhere, also across the edge, and has the mean colour of the data.
    It is an option of any method's views: `augment: {cutout: 0.25}`.
    """

    inputs = View(augment="cutout", columns=("image", "label"))
    order = Shuffled(labelled=True)
    means = True

    def __init__(self, encoder, card):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))

    def forward(self, batch):
        logits = self.classifier(self.encoder(batch["image"]))
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": cross_entropy(logits, batch["label"]), "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
