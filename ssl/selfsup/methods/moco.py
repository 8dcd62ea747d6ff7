"""MoCo: a view finds the other view's key among a long queue of earlier keys, made by a slowly moving encoder."""

from typing import Annotated, Literal

import torch
import torch.nn as nn

from ..arguments import Proportion, Range, Temperature, Width
from ..core.distributed import gather_rows
from ..core.precision import cross_entropy, float32, normalize
from ..layers import mlp
from ..training.state import Ema, Queue, in_groups
from ..inputs.views import Views
from .base import Method, affinity


class MoCo(Method):
    """He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning", Algorithm 1, eqs. 1 and 2.
    https://arxiv.org/abs/1911.05722 (`head="linear"`, v1)
    Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning", https://arxiv.org/abs/2003.04297
    (`head="mlp"`, v2: also its temperature and views).

    queue: number of keys. 65,536 is the paper's for 1.3 million images; take less than the training set, or an image meets
    its own older keys as negatives. It need not be a multiple of the batch.
    group: images that share BatchNorm's statistics. With a whole batch's statistics a query could tell its key from the
    older ones by them alone; the paper computes keys on shuffled GPUs of 32 images each. Here a process splits its
    images into groups of about 32, shuffled for the keys, so nothing is exchanged; without BatchNorm it has no effect.
    It needs at least twice as many images a process as a group has: with fewer there is one group, and query and key share
    their statistics. On several GPUs BatchNorm is synchronised, and a group is one of as many images on each of them.
    """

    inputs = Views(2, augment="moco_v2")
    sensitive = ("temperature", 0.1)  # between v1's and v2's, which v2 varies

    def __init__(
        self,
        encoder,
        head: Literal["linear", "mlp"] = "mlp",
        dim: Width = 128,
        hidden: Width = 2048,
        queue: Width = 65536,
        momentum: Proportion = 0.999,
        temperature: Temperature | None = None,
        group: Annotated[int, Range(ge=2)] = 32,
    ):
        super().__init__(encoder)
        v2 = head == "mlp"
        self.inputs = Views(2, augment="moco_v2" if v2 else "moco_v1")
        self.head = mlp(encoder.dim, hidden, dim, norm=False) if v2 else nn.Linear(encoder.dim, dim)
        self.key = Ema(self.query)
        self.queue = Queue(queue, dim)
        self.momentum, self.group = momentum, group
        self.temperature = (0.2 if v2 else 0.07) if temperature is None else temperature

    @property
    def query(self):
        return nn.Sequential(self.encoder, self.head)  # built anew: registered, its weights would have two names

    def embed(self, net, x):
        return normalize(in_groups(net, x, self.group), dim=1)

    @float32
    def logits(self, q, k):
        """Similarities (n, 1 + queue) of unit vectors (n, dim) with their own keys (n, dim), and with the queue's."""
        positive = (q * k).sum(1, keepdim=True)
        negative = q @ self.queue.keys.clone().T  # a copy: a later push must not change what the backward pass needs
        return torch.cat([positive, negative], 1) / self.temperature

    def forward(self, batch):
        x_q, x_k = batch["image"].unbind(1)
        q = self.embed(self.query, x_q)
        with torch.no_grad():
            shuffle = batch["key"].argsort()
            k = self.embed(self.key, x_k[shuffle])[shuffle.argsort()]
        logits = self.logits(q, k)
        if self.training:
            self.queue.push(gather_rows(k))  # only now: a batch's keys are never its own negatives
        loss = cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
        return {"loss": loss, "accuracy": (logits.argmax(1) == 0).float().mean(), "embedding": q}

    def after_step(self, progress):
        self.key.update(self.query, self.momentum)

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: A row is one view of an image, as a query, a column another view of an image, as a key; each cell
        is the cosine of their embeddings (black −1, opposite; white 1, the same). On the diagonal, which is to be
        the lightest, are two views of the same image."""
        x_q, x_k = batch["image"][:32].unbind(1)
        return {**super().pictures(batch), "affinity": affinity(self.embed(self.query, x_q), self.embed(self.key, x_k))}
