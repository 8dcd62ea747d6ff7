"""Instance discrimination: every training image is a class of its own, its weights the image's last embedding."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Count, Share, Temperature, Weight, Width
from ..core import rng
from ..core.distributed import gather_rows, mean
from ..core.precision import float32, normalize
from ..training.state import Bank
from ..inputs.views import View
from .base import Method


class InstanceDiscrimination(Method):
    """Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", eq. 2 and 4-10.
    https://arxiv.org/abs/1805.01978

    negatives: None for the softmax over the whole bank, eq. 2, which is cheap for up to some 100,000 images; or m, the
    number of bank entries that noise-contrastive estimation draws for each image, eq. 4-8. The paper has 4,096.
    momentum: of a bank entry towards the new embedding, as in the authors' code.
    proximal: λ of eq. 10, which keeps an embedding near its image's last one.

    The paper's bank starts at random, its entries are an epoch old when they are used, and 200 epochs make up for it. In
    a small budget the encoder changes so much in an epoch that such entries teach nothing: here the bank is filled with
    the embeddings of the images as they are, un-augmented, before each epoch, and within it moves as in the paper. So Z,
    the paper's constant, is estimated anew (eq. 8) by the first batch of each epoch.
    """

    inputs = View("moco_v1")  # MoCo v1 took its views from this paper's code
    held_out = False  # only training images have an entry in the bank
    sensitive = ("temperature", 0.2)  # which MoCo v2 found better than this paper's

    def __init__(
        self,
        encoder,
        card,
        dim: Width = 128,
        temperature: Temperature = 0.07,
        negatives: Count | None = None,
        momentum: Share = 0.5,
        proximal: Weight = 0.0,
    ):
        super().__init__(encoder)
        self.head = nn.Linear(encoder.dim, dim)
        self.bank = Bank(card["counts"]["train"], dim)
        self.register_buffer("normaliser", torch.zeros(()))  # Z, 0 before an epoch's first batch
        self.temperature, self.negatives, self.momentum, self.proximal = temperature, negatives, momentum, proximal

    def embed(self, x):
        return normalize(self.head(self.encoder(x)), dim=1)

    @torch.no_grad()
    def before_epoch(self, run):
        def set_mode(net, _):
            # An untrained BatchNorm has no statistics yet: the first entries are made with their batch's, as in training.
            net.train(run.epoch == 0)

        hook = self.encoder.register_forward_pre_hook(set_mode)
        features = run.embed().to(self.bank.rows.device)
        hook.remove()
        self.bank.rows.copy_(F.normalize(self.head(features), dim=1))
        self.normaliser.zero_()

    def forward(self, batch):
        return self.objective(self.embed(batch["image"]), batch["index"], batch["key"])

    @float32
    def objective(self, v, index, key):
        rows = self.bank.rows.clone()  # as they are before the update below
        if self.negatives is None:
            scores = v @ rows.T / self.temperature
            loss = F.cross_entropy(scores, index, reduction="none")  # eq. 2
            accuracy = scores.argmax(1) == index
        else:
            loss, accuracy = self.contrast(v, index, rows, key)
        moved = (v - rows[index]).square().sum(1)
        if self.training:
            self.bank.update(gather_rows(index), gather_rows(v), self.momentum)
        loss = (loss + self.proximal * moved).mean()  # eq. 10
        return {"loss": loss, "accuracy": accuracy.float().mean(), "moved": moved.mean(), "embedding": v}

    def contrast(self, v, index, rows, key):
        """Noise-contrastive estimation: each image's loss and whether its own entry is the most similar one (N,)."""
        images = len(rows)
        drawn = rng.randint(key, images, self.negatives)  # uniformly, and perhaps its own among them
        entries = rows[torch.cat([index[:, None], drawn], 1)]  # (N, 1 + m, dim), own entry first
        scores = torch.einsum("nd,nmd->nm", v, entries) / self.temperature
        estimate = images * mean(scores[:, 1:].exp().mean())  # eq. 8
        z = torch.where(self.normaliser > 0, self.normaliser, estimate)
        if self.training:
            self.normaliser.copy_(z)
        # Eq. 6, h = P / (P + m/n) with P = exp(score) / Z: the sigmoid of this.
        logits = scores - z.log() - math.log(self.negatives / images)
        nce = F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1:]).sum(1)  # eq. 7
        return nce, scores[:, 0] >= scores[:, 1:].amax(1)
