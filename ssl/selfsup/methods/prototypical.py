"""Prototypical networks: features in which a class is where the mean of a few examples is."""

from typing import Annotated

import torch

from ..arguments import Count, Range
from ..core.precision import cross_entropy
from ..data.order import Episodes
from ..inputs.views import Taken, taken
from ..training.episodes import nearest_mean
from .base import Method


class Prototypical(Method):
    """Snell et al. 2017, "Prototypical Networks for Few-shot Learning", Algorithm 1. https://arxiv.org/abs/1703.05175

    Trained on episodes, as `few_shot` judges: of `ways` classes `shots` examples each give a mean, and the `queries`
    of each are told by softmax over minus the squared distances to the means. `train.batch`: as many samples as one
    episode has, ways · (shots + queries), or a multiple of it. Defaults are those for Omniglot: 60 ways where 5 are
    judged, and as many shots as are judged. Views are the images themselves; the authors make further classes of them
    by quarter turns.
    """

    inputs = Taken(augment="none")

    def __init__(self, encoder, ways: Annotated[int, Range(ge=2, le=2**20)] = 60, shots: Count = 1, queries: Count = 5):
        super().__init__(encoder)
        self.order = Episodes(ways, shots, queries)

    def forward(self, batch):
        support, query = self.order.apart(self.encoder(taken(batch, self.encoder)))
        logits = nearest_mean(support, query).flatten(0, 1)
        ways, queries = query.shape[1:3]
        label = torch.arange(ways, device=logits.device).repeat_interleave(queries).repeat(len(query))
        accuracy = (logits.argmax(1) == label).float().mean()
        return {"loss": cross_entropy(logits, label), "accuracy": accuracy}
