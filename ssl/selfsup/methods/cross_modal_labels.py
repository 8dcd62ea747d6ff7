"""Cross-modal labels: what is seen is called by what is heard, and the reverse."""

from typing import Annotated

import torch

from .. import nets
from ..arguments import Clusters, Range, Temperature, Weight, Width
from ..core import cluster
from ..core.distributed import gather
from ..core.precision import cross_entropy, float32
from ..inputs.sound import ImageSound
from .base import Method


class CrossModalLabels(Method):
    """de Sa 1993, "Learning Classification with Unlabeled Data", NIPS 6: two networks, one for each modality, minimise
    the disagreement between the labels that they give a pair. https://papers.nips.cc/paper/831

    There a network is a set of labelled vectors (LVQ), and the label that one gives teaches the other. Here it is an
    encoder and a softmax, and each learns by cross-entropy what the other says, made surer than it was. That all is one
    label is a minimum, too: the paper keeps vectors of every label; here the entropy of the mean output is kept up, and
    the softmax is on standardised features without a bias, or what all samples have in common would decide first.

    labels: how many, by default as many as there are classes; what the classes are is not looked at. temperature: by
    which the other's logits are divided for the target. Towards 0 that is a label, as in the paper, and the first ones
    that come about are kept; at 1 nothing makes either surer. balance: weight of the two entropies, without which
    everything gets one label. mels, width: of the network for sound, see the encoder `sound_convnet`.
    """

    inputs = ImageSound("crop")
    sensitive = ("balance", 2.0)

    def __init__(
        self,
        encoder,
        card,
        labels: Clusters | None = None,
        temperature: Temperature = 0.25,
        balance: Weight = 4.0,
        mels: Annotated[int, Range(ge=8, le=512)] = 64,
        width: Width = 16,
    ):
        super().__init__(encoder)
        labels = labels or len(card["classes"])
        self.temperature, self.balance = temperature, balance
        self.sound = nets.build("sound_net", card, mels=mels, width=width)
        self.image_labels = nets.build("standardised", d_in=encoder.dim, d_out=labels)
        self.sound_labels = nets.build("standardised", d_in=self.sound.dim, d_out=labels)

    def project(self, batch):
        """Logits of the labels by the images and by the sounds, each (N, labels)."""
        return self.image_labels(self.encoder(batch["image"])), self.sound_labels(self.sound(batch["sound"]))

    @float32
    def objective(self, image, sound):
        said = [(logits.detach() / self.temperature).softmax(1) for logits in (image, sound)]
        disagreement = cross_entropy(image, said[1]) + cross_entropy(sound, said[0])
        spread = entropy(image) + entropy(sound)
        seen, heard = image.argmax(1), sound.argmax(1)
        return {
            "loss": disagreement - self.balance * spread,
            "agreement": (seen == heard).float().mean(),
            "used": (cluster.counted(gather(seen), image.shape[1]) > 0).float().sum(),
        }

    def parts(self):
        return {"encoder": self.encoder, "sound": self.sound, "image_labels": self.image_labels,
                "sound_labels": self.sound_labels}


def entropy(logits):
    """Of the mean output over all processes' rows, in nats; logits (n, labels)."""
    mean = gather(logits).softmax(1).mean(0)
    return -(mean * mean.clamp(min=1e-12).log()).sum()
