"""Virtual adversarial training: the prediction should not change in the direction in which it would change most."""

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Count, Positive, Rounds, Scale, Weight
from ..core import rng
from ..core.precision import float32, normalize
from ..data.order import Labelled, apart
from ..inputs.views import View
from ..training.accumulate import untracked
from .base import Method


class VAT(Method):
    """Miyato et al. 2018, "Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised
    Learning", Algorithm 1. https://arxiv.org/abs/1704.03976

    Cross-entropy with the labels, and `weight` times the mean over the unlabelled rows of KL(p(x) ‖ p(x + r)), p(x)
    held still, where r has length ε and the direction of the divergence's largest curvature, found by power iteration.
    All passes take the whole batch, labelled rows too: with other companions BatchNorm would give another p at r = 0
    already. Only the first moves its running statistics.
    ratio: unlabelled rows beside each labelled one; 128 beside 32 in the authors' code. epsilon: in units of the
    normalised input, of which an image of 32 pixels has a norm of about 55; the authors' 8 is for whitened images.
    xi: of the finite difference. The authors' 1e-6 is lost in float32's rounding: of our ConvNet the direction found
    has a cosine of 0.06 with the true one, at 0.1 of 0.99, and at 1, over which the network bends, of 0.93. For the
    same reason the search is computed in float32 under bf16, too.
    """

    inputs = View("crop_flip", columns=("image", "label"))
    means = True
    sensitive = ("epsilon", 3.0)  # the one that the paper tunes

    def __init__(
        self,
        encoder,
        card,
        ratio: Count = 4,
        epsilon: Scale = 6.0,
        xi: Positive = 0.1,
        iterations: Rounds = 1,
        weight: Weight = 1.0,
    ):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        self.order = Labelled(ratio)
        self.ratio, self.epsilon, self.xi, self.iterations, self.weight = ratio, epsilon, xi, iterations, weight

    def logits(self, few, many):
        """Of labelled images (n, C, H, W) and unlabelled ones (n', C, H, W), in one pass."""
        return self.classifier(self.encoder(torch.cat([few, many]))).split([len(few), len(many)])

    def forward(self, batch):
        (few, many), (label, _), (_, key) = (apart(batch[name], self.ratio) for name in ("image", "label", "key"))
        logits, clean = self.logits(few, many)
        with untracked(self):
            r = self.epsilon * self.direction(few, many, key)
            changed = self.logits(few, many + r)[1]
        return self.objective(logits, label, clean.detach(), changed)

    @float32
    def direction(self, few, many, key):
        """Of each unlabelled image the unit vector (n', C, H, W) along which its prediction changes most."""
        with torch.no_grad():
            clean = self.logits(few, many)[1]
        d = unit(rng.normal(key, *many.shape[1:]))
        for _ in range(self.iterations):
            with torch.enable_grad():  # in evaluation, too; and of d alone, so that no parameter gets a gradient
                d.requires_grad_()
                changed = self.logits(few, many + self.xi * d)[1]
                (gradient,) = torch.autograd.grad(divergence(clean, changed).sum(), d)
            d = unit(gradient)
        return d

    @float32
    def objective(self, logits, label, clean, changed):
        labelled, smoothness = F.cross_entropy(logits, label), divergence(clean, changed).mean()
        accuracy = (logits.argmax(1) == label).float().mean()
        return {"loss": labelled + self.weight * smoothness, "labelled": labelled, "divergence": smoothness,
                "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}


def divergence(p, q):
    """KL(softmax p ‖ softmax q) of each row of logits (n, classes): (n,)."""
    return F.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="none", log_target=True).sum(1)


def unit(x):
    """Each sample (n, …) brought to length 1, by way of its largest entry, whose square may be too small a number."""
    flat = x.flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    return normalize(flat / largest, dim=1).view_as(x)
