"""MixUp: images and their labels are mixed in pairs."""

import torch

from .. import nets
from ..arguments import Scale
from ..core.distributed import gather_rows
from ..core.precision import cross_entropy
from ..data.order import Shuffled
from ..inputs import mix
from ..inputs.views import View
from .base import Method, denormalise, rows


class MixUp(Method):
    """Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", section 2 and figure 1.
    https://arxiv.org/abs/1710.09412

    Trained on the images that have a label. Each has a share of its own and a partner in the batch, where the authors'
    code draws one share for all. alpha: of the share's distribution, 1 in the paper for CIFAR-10.
    """

    inputs = View(augment="crop_flip", columns=("image", "label"))
    order = Shuffled(labelled=True)
    sensitive = ("alpha", 0.2)  # most are hardly mixed

    def __init__(self, encoder, card, alpha: Scale = 1.0):
        super().__init__(encoder)
        self.alpha = alpha
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))

    def mixed(self, batch):
        """Mixed images, their shares of themselves (n,), and their partners' labels (n,)."""
        share, partner = mix.shares(batch["key"], self.alpha), mix.partners(batch["key"])
        return mix.mixed(batch["image"], partner, share), share, gather_rows(batch["label"])[partner]

    def forward(self, batch):
        x, share, others = self.mixed(batch)
        logits, label = self.classifier(self.encoder(x)), batch["label"]
        own, other = (cross_entropy(logits, of, reduction="none") for of in (label, others))
        larger = torch.where(share >= 0.5, label, others)
        accuracy = (logits.argmax(1) == larger).float().mean()
        return {"loss": (share * own + (1 - share) * other).mean(), "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}

    @torch.no_grad()
    def pictures(self, batch):
        """mixed: Each is a mixture of two images, of which the network is to say both labels, in the shares of the
        mixture."""
        return {"mixed": rows(denormalise(self.mixed(batch)[0][:8]))}
