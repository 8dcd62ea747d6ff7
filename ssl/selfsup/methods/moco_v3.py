"""MoCo v3: each view finds the other's momentum key among the batch's, without a queue; made to train ViTs stably."""

import torch
import torch.nn as nn

from ..arguments import Proportion, Temperature, Width
from ..core.precision import normalize
from ..training.losses import info_nce
from ..layers import mlp
from ..training.state import Ema, rising
from ..inputs.views import Views
from .base import Method


class MoCoV3(Method):
    """Chen, Xie & He 2021, "An Empirical Study of Training Self-Supervised Vision Transformers", Algorithm 1, eq. 1.
    https://arxiv.org/abs/2104.02057

    hidden, dim: of the projector (three layers) and the predictor (two), with BatchNorm after every layer, the last
    one's without scale and shift, as in the authors' code for ViTs. Theirs for a ResNet has a projector of two layers and no
    BatchNorm after the predictor; here every encoder has the ViT's heads.
    temperature: 0.2 is the paper's for ViT; for ResNet it has 1.0. momentum: rises to 1 along a cosine; 0.99 averages
    over a hundred steps, a run of as few needs about 0.95.
    The encoder `vit` keeps its random patch projection, as do timm's transformers: learning it made training unstable
    (section 4.2). Positions of `vit` are fixed sines as in the paper, its other weights start as PyTorch's, where the
    paper's are Xavier's; features are the mean of the patches where the paper's are a class token. Views are the paper's without blur (see views.py).
    """

    inputs = Views(2, augment="asym")
    sensitive = ("momentum", 0.9)  # the paper's ablation has 0 to 0.999

    def __init__(
        self,
        encoder,
        hidden: Width = 4096,
        dim: Width = 256,
        temperature: Temperature = 0.2,
        momentum: Proportion = 0.99,
    ):
        super().__init__(encoder)
        if hasattr(encoder, "embed"):
            encoder.embed.requires_grad_(False)
        self.projector = normed(mlp(encoder.dim, hidden, dim, layers=3))
        self.predictor = normed(mlp(dim, hidden, dim))
        self.key = Ema(self.base)
        self.temperature, self.momentum = temperature, momentum

    @property
    def base(self):
        return nn.Sequential(self.encoder, self.projector)  # built anew: registered, its weights would have two names

    def forward(self, batch):
        x1, x2 = batch["image"].unbind(1)
        q1, q2 = (normalize(self.predictor(self.base(x)), dim=1) for x in (x1, x2))
        k1, k2 = (normalize(self.key(x), dim=1) for x in (x1, x2))
        loss1, accuracy1 = info_nce(q1, k2, self.temperature)
        loss2, accuracy2 = info_nce(q2, k1, self.temperature)
        loss = 2 * self.temperature * (loss1 + loss2)  # so that gradients do not depend on the temperature's size
        return {"loss": loss, "accuracy": (accuracy1 + accuracy2) / 2, "embedding": torch.cat([q1, q2])}

    def after_step(self, progress):
        self.key.update(self.base, rising(self.momentum, progress))


def normed(head):
    """The head with BatchNorm on its output, which would subtract a bias."""
    last = head[-1]
    head[-1] = nn.Linear(last.in_features, last.out_features, bias=False)
    return head.append(nn.BatchNorm1d(last.out_features, affine=False))
