"""Ambient sound: from a picture, which kind of sound goes with it."""

import torch.nn as nn

from ..core.precision import cross_entropy
from ..inputs.views import Pair
from .base import Method


class AmbientSound(Method):
    """Owens et al. 2016, "Ambient Sound Provides Supervision for Visual Learning", section 3, the clustering variant.
    https://arxiv.org/abs/1608.07017

    The sound itself is not heard here: its statistics over time, as McDermott & Simoncelli 2011 have them, are
    clustered once, and the clusters' numbers are a column of the data set. The source `clusters` makes it where its
    `root` is a data set with sound. What is left is to predict the number from the image, by cross-entropy. The paper
    has 30 clusters. It takes 3.75 seconds of sound around a frame, here all that the sample has.
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
