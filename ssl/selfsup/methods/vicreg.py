"""VICReg: views agree (invariance), coordinates vary (variance) and are uncorrelated (covariance)."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Weight, Width
from ..core.distributed import gather
from ..core.precision import float32, mse_loss
from ..layers import mlp
from ..inputs.views import Views
from .base import Method


class VICReg(Method):
    """Bardes et al. 2022, "VICReg: Variance-Invariance-Covariance Regularization", eqs. 1-6, Algorithm 1.
    https://arxiv.org/abs/2105.04906

    invariance, variance, covariance: weights λ, μ, ν of eq. 6. The invariance is averaged over the coordinates too, as
    in Algorithm 1, to which the weights belong; eq. 5 sums.
    The variance term is eq. 6's, the sum over both views; the authors' code halves it, which is `variance: 12.5` here.
    hidden, dim: of the expander's three layers; the paper's 8,192 on ImageNet are 2,048 here, solo-learn's for CIFAR.
    Variance and covariance are those of the global batch.
    """

    inputs = Views(2, augment="vicreg")
    sensitive = ("covariance", 4.0)  # the paper varies the weights; 2,048 coordinates have a quarter of the covariances

    def __init__(
        self,
        encoder,
        hidden: Width = 2048,
        dim: Width = 2048,
        invariance: Weight = 25.0,
        variance: Weight = 25.0,
        covariance: Weight = 1.0,
    ):
        super().__init__(encoder)
        self.expander = mlp(encoder.dim, hidden, dim, layers=3)
        self.expander[-1] = nn.Linear(hidden, dim, bias=False)  # no term would notice a bias
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def project(self, batch):
        """Embeddings (N, dim) of the one and of the other view."""
        return tuple(self.expander(self.encoder(x)) for x in batch["image"].unbind(1))

    def objective(self, z1, z2):
        a, b = gather(z1), gather(z2)
        terms = {
            "invariance": mse_loss(a, b),
            "variance": hinge(a) + hinge(b),
            "covariance": redundancy(a) + redundancy(b),
        }
        loss = sum(self.weights[name] * term for name, term in terms.items())
        return {"loss": loss, **terms, "embedding": torch.cat([z1, z2])}


@float32
def hinge(z, target=1.0, eps=1e-4):
    """How far the coordinates' standard deviations over the batch are below `target`, the paper's γ (eqs. 1 and 2)."""
    return F.relu(target - (z.var(0) + eps).sqrt()).mean()


@float32
def redundancy(z):
    """Sum of the squared covariances of different coordinates, over their number (eqs. 3 and 4)."""
    z = z - z.mean(0)
    c = z.T @ z / (len(z) - 1)
    return (c.square().sum() - c.diagonal().square().sum()) / len(c)
