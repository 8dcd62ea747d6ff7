"""Noisy Student: a teacher labels all images as they are, a student learns them under noise and is the next teacher."""

import torch

from .. import nets
from ..arguments import Count, Proportion, Share
from ..core import cluster, rng
from ..core.precision import cross_entropy, float32
from ..data.order import Labelled, Shuffled, apart
from ..inputs.views import View
from .base import Method


class NoisyStudent(Method):
    """Xie et al. 2020, "Self-Training with Noisy Student Improves ImageNet Classification", Algorithm 1.
    https://arxiv.org/abs/1911.04252

    A generation is a run. The first one has no `from` and learns from the labelled images alone. Each further one names
    the run before by `from`: that teacher, without noise and of whole images, says once what each training image is;
    the student, with the same encoder or a larger one, starts at random and learns from labels and from what was said.
    Noise of the student: strong views, and `dropout` of the features. Its third kind, layers left out, is an encoder's
    own. What the teacher says are shares of the classes, not one of them. Images of which it gives its first class no
    more than `least` are left out. Of the others each class has as many: where there are more those of which it is
    surest, where there are less each counts more often (the authors' code draws them again). ratio: such images beside
    each labelled one.
    """

    inputs = View(augment="noisy_student", columns=("image", "label"))
    held_out = False  # the teacher speaks of training images only
    sensitive = ("dropout", 0.2)

    def __init__(self, encoder, card, teacher=None, ratio: Count = 1, dropout: Share = 0.5, least: Proportion = 0.3):
        super().__init__(encoder)
        classes = len(card["classes"])
        self.order = Labelled(ratio) if teacher else Shuffled(labelled=True)
        self.teacher, self.dropout, self.least = teacher, dropout, least
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=classes)
        if teacher:
            teacher.classifier(classes)
            images = card["counts"]["train"]
            self.register_buffer("said", torch.zeros(images, classes))
            self.register_buffer("counts", torch.zeros(images))  # how much an image does, 1 on average

    @torch.no_grad()
    def before_epoch(self, run):
        if not self.teacher or self.counts.any():
            return
        features = run.embed(self.teacher.net).to(self.said.device)
        said = self.teacher.part("classifier")(features).float().softmax(1)
        self.said.copy_(said)
        self.counts.copy_(balanced(said, self.least))
        run.log(kept=float((self.counts > 0).float().mean()))

    def logits(self, batch):
        """Of images with noise, where this trains."""
        features = self.encoder(batch["image"])
        if self.training and self.dropout:
            features = self.dropped(features, batch["key"])
        return self.classifier(features)

    @float32
    def dropped(self, features, key):
        """Dropout whose choice is the sample's own, so that it depends on no batch and no process."""
        kept = rng.uniform(key, features.shape[1], salt=0x4E53) >= self.dropout
        return features * kept / (1 - self.dropout)

    def forward(self, batch):
        return self.objective(self.logits(batch), batch["label"], batch["index"])

    @float32
    def objective(self, logits, label, index):
        if not self.teacher:
            accuracy = (logits.argmax(1) == label).float().mean()
            return {"loss": cross_entropy(logits, label), "accuracy": accuracy}
        (labelled, others), (label, _) = apart(logits, self.order.ratio), apart(label, self.order.ratio)
        _, index = apart(index, self.order.ratio)
        supervised = cross_entropy(labelled, label)
        losses = -(self.said[index] * others.log_softmax(1)).sum(1)
        learned = (losses * self.counts[index]).mean()
        return {
            "loss": supervised + learned,
            "labelled": supervised.detach(),
            "unlabelled": learned.detach(),
            "accuracy": (labelled.argmax(1) == label).float().mean(),
        }

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}


def balanced(said, least):
    """How much each image does in training, (N,) and 1 on average, of the shares (N, classes) that a teacher gave: 0
    where its first class has no more than `least`; each class does as much as every other that is there."""
    sure, first = said.max(1)
    kept = sure > least
    number = torch.where(kept, first, said.shape[1])
    some = number.bincount(minlength=said.shape[1] + 1)[:-1]
    each = some.sum().div((some > 0).sum().clamp(min=1), rounding_mode="floor")
    often = torch.where(some < each, each / some.clamp(min=1), 1.0)
    counts = torch.cat([often, often.new_zeros(1)])[number] * (cluster.ranked(number, sure) < each)
    return counts * (len(counts) / counts.sum().clamp(min=1e-12))
