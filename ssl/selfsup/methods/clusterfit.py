"""ClusterFit: a fresh network learns to predict the clusters of another one's features."""

import torch.nn as nn
import torch.nn.functional as F

from ..views import Pair
from .base import Method, by_label


class ClusterFit(Method):
    """Yan et al. 2020, "ClusterFit: Improving Generalization of Visual Representations", section 3.
    https://arxiv.org/abs/1912.03330

    The clusters are a column of the data set: the source `clusters` makes it, once, from a trained encoder, and
    DVC has that trained before. What is left here is step 3: from scratch, cross-entropy on the clusters' numbers. The
    paper has 16,000 of them for 1.3 million images.
    """

    inputs = Pair("image", "cluster")

    def __init__(self, encoder, card):
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, card["clusters"])

    def forward(self, batch):
        logits = self.classifier(self.encoder(batch["image"]))
        accuracy = (logits.argmax(1) == batch["cluster"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["cluster"]), "accuracy": accuracy}

    def pictures(self, batch):
        """clusters: up to eight images of each of the most frequent clusters, one a row."""
        return {**super().pictures(batch), "clusters": by_label(batch["image"], batch["cluster"])}
