"""The ceiling: the same encoder trained on all labels."""

from .. import nets
from ..core.precision import cross_entropy
from ..data.order import Shuffled
from ..inputs.views import Taken, taken
from .base import Method


class Supervised(Method):
    """Cross-entropy of a linear classifier on the encoder, from scratch, on as many images as every other run sees: those
    that have a label, of which `labels` of the run may hide some."""

    inputs = Taken(augment="crop_flip", more=("label",))
    order = Shuffled(labelled=True)
    means = True

    def __init__(self, encoder, card):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))

    def forward(self, batch):
        logits = self.classifier(self.encoder(taken(batch, self.encoder)))
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": cross_entropy(logits, batch["label"]), "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
