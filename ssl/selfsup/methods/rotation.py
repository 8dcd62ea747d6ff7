"""Rotation: which way up is the image."""

import torch
import torch.nn as nn

from ..core.precision import cross_entropy
from .base import Method, denormalise, rows


class Rotation(Method):
    """Gidaris et al. 2018, eq. 2-3. https://arxiv.org/abs/1803.07728

    All four rotations of every image are in the batch, the paper's best choice (section 3). The classifier is linear on
    the pooled features; the paper's is the network's last block, and its features are taken from an earlier one.
    """

    means = True
    sensitive = ("augment", {"crop": [0.77, 1.0], "flip": 0.5})  # the authors' crops, 224 of 256 pixels

    def __init__(self, encoder):
        super().__init__(encoder)
        self.classifier = nn.Linear(encoder.dim, 4)

    def forward(self, batch):
        x = batch["image"]  # (N, C, S, S)
        turned = torch.cat([x.rot90(quarter, (2, 3)) for quarter in range(4)])
        quarters = torch.arange(4, device=x.device).repeat_interleave(len(x))
        logits = self.classifier(self.encoder(turned))
        accuracy = (logits.argmax(1) == quarters).float().mean()
        return {"loss": cross_entropy(logits, quarters), "accuracy": accuracy}

    def pictures(self, batch):
        """rotations: A column is an image of val, in a row each as it is and turned by 90, 180 and 270 degrees against
        the clock: the network is to say which row an image is of."""
        x = denormalise(batch["image"][:8])
        return {"rotations": rows(torch.stack([x.rot90(quarter, (2, 3)) for quarter in range(4)], 1))}
