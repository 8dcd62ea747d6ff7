"""The floor: an encoder that nothing has trained."""

import torch

from ..inputs.views import Taken
from .base import Method


class Random(Method):
    """The encoder at random initialisation. Nothing is trainable, so the trainer takes no step."""

    inputs = Taken(augment="none")
    held_out = False
    means = True

    def __init__(self, encoder):
        super().__init__(encoder)
        encoder.requires_grad_(False)

    def forward(self, batch):
        return {"loss": torch.zeros((), device=batch[self.encoder.takes].device)}
