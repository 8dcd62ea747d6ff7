"""Deep InfoMax: the code of an image tells as much as it can about each place in it."""

import math
from typing import Literal

import torch
import torch.nn as nn

from ..arguments import Weight, Width
from ..core import rng
from ..core.distributed import gather, rank
from ..core.precision import float32, sigmoid, softplus
from ..training.losses import local_info_nce, of_others, of_own
from ..layers import map_shapes, mlp
from ..training.state import frozen
from ..inputs.views import View
from .base import Method


class DeepInfoMax(Method):
    """Hjelm et al. 2019, "Learning Deep Representations by Mutual Information Estimation and Maximization", eqs. 4
    to 8: the local objective, DIM(L), with prior matching. https://arxiv.org/abs/1808.06670

    Places are those of the encoder's middle map, 4 × 4 for the ConvNet at 32 pixels. Code and places are mapped to `dim`
    numbers and multiplied, the paper's encode-and-dot critic; products are divided by √dim, which the authors' are not. The
    prior's critic has one hidden layer of 200, the authors' 1,000 and 200.
    code: size of the code, 64 as in the paper, made by a linear layer of the features that are judged.
    estimator: "jsd" (eq. 4) or "infonce" (eq. 5), of the mutual information. local, prior: the paper's β and γ. The prior is
    uniform on (0, 1)^code; the encoder plays the non-saturating game, as is usual, where eq. 7 has min max.
    """

    inputs = View("crop_flip")
    sensitive = ("estimator", "infonce")  # the paper compares the two on every data set

    def __init__(
        self,
        encoder,
        card,
        estimator: Literal["jsd", "infonce"] = "jsd",
        code: Width = 64,
        hidden: Width = 512,
        dim: Width = 512,
        local: Weight = 1.0,
        prior: Weight = 0.1,
    ):
        super().__init__(encoder)
        shapes = map_shapes(encoder, card["size"])
        self.middle = len(shapes) // 2
        self.code = nn.Linear(encoder.dim, code)
        self.global_head, self.local_head = mlp(code, hidden, dim), mlp(shapes[self.middle][0], hidden, dim)
        self.critic = mlp(code, 200, 1, norm=False)
        self.estimator, self.weights, self.scale = estimator, (local, prior), dim**-0.5

    def scores(self, code, places):
        """Of the codes (n, code) with the places (n, C, h, w) of all images of the global batch: (n, N, h·w)."""
        query = self.global_head(code)
        place = self.local_head(places.flatten(2).transpose(1, 2).flatten(0, 1)).unflatten(0, (len(places), -1))
        return products(query, gather(place)) * self.scale

    def forward(self, batch):
        maps = self.encoder.layers(batch["image"])
        code = self.code(maps[-1].mean((2, 3)))
        scores = self.scores(code, maps[self.middle])
        image = torch.arange(len(code), device=code.device) + rank() * len(code)
        if self.estimator == "jsd":
            estimate = jsd(scores, image)
        else:
            others = math.log((scores.shape[1] - 1) * scores.shape[2] + 1)
            estimate = others - local_info_nce(scores, image)
        inside = sigmoid(code)
        drawn = rng.uniform(batch["key"], code.shape[1], salt=1).to(inside.dtype)
        with frozen(self.critic):
            fooled = softplus(-self.critic(inside)).mean()
        judging = (softplus(-self.critic(drawn)).mean() + softplus(self.critic(inside.detach())).mean()) / 2
        local, prior = self.weights
        # The two players have no parameter in common, so one backward of the sum serves both.
        loss = -local * estimate + prior * fooled + judging
        return {"loss": loss, "mutual_information": estimate, "critic": judging, "embedding": code}


@float32
def products(query, place):
    """Inner products (n, N, P) of vectors (n, dim) with places (N, P, dim)."""
    return torch.einsum("nd,mpd->nmp", query, place)


def jsd(scores, image):
    """Lower bound of the Jensen-Shannon divergence of joint and product, in nats, 0 if the scores tell nothing (eq. 4).

    scores: (n, N, P), of the codes of n images with the places of N; image: (n,), the code's own among the N.
    """
    own, others = of_own(scores, image), of_others(scores, image)
    return -softplus(-own).mean() - softplus(others).mean() + 2 * math.log(2)
