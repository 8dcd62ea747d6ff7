"""ClusterFit: a fresh network learns to predict the clusters of another one's features."""

import torch.nn as nn

from ..core.precision import cross_entropy
from ..inputs.views import Pair
from .base import Method


class ClusterFit(Method):
    """Yan et al. 2020, "ClusterFit: Improving Generalization of Visual Representations", section 3.
    https://arxiv.org/abs/1912.03330

    The clusters are a column of the data set: the source `clusters` makes it, once, from a trained encoder, and
    DVC has that trained before. What is left here is the last step: from scratch, cross-entropy on the clusters' numbers. The
    paper has 16,000 of them for 1.3 million images. A student is as good as its teacher's clusters: on the generated
    scenes `counting` makes good ones, and a SimCLR that has seen 20,000 images worse ones than random weights do.
    """

    inputs = Pair("image", "cluster")
    means = True

    def __init__(self, encoder, card):
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, card["clusters"])

    def forward(self, batch):
        logits = self.classifier(self.encoder(batch["image"]))
        accuracy = (logits.argmax(1) == batch["cluster"]).float().mean()
        return {"loss": cross_entropy(logits, batch["cluster"]), "accuracy": accuracy}
