"""Co-training: two networks see two sides of a sample, and each labels for both what it is surest of."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Count
from ..core import cluster, rng
from ..core.distributed import gather_rows
from ..core.precision import cross_entropy, float32
from ..data.order import Labelled, apart
from ..errors import UserError
from ..inputs.augment import Augment
from ..inputs.views import View
from .base import Method


@dataclass(frozen=True)
class Sides:
    """One view of the image, its label, and the caption where that is the other side."""

    views: Literal["lab", "caption"] = "lab"
    augment: str | dict | list | Augment = "crop_flip"

    @property
    def columns(self):
        return ("image", "label", *["caption"] * (self.views == "caption"))

    def __call__(self, batch, seed, mean, std):
        return View(self.augment)(batch, seed, mean, std)


class CoTraining(Method):
    """Blum & Mitchell 1998, "Combining Labeled and Unlabeled Data with Co-Training", table 1.
    https://doi.org/10.1145/279943.279962

    views: the two sides. lab: lightness and colour, by the halves of the encoder `split`; caption: the image, by the
    encoder, and its caption, by a small transformer. Rounds are epochs: from the second on, of `pool` images without a
    label (u in the paper) each side labels, of each class, the `each` that it is surest of, from then on for both;
    where the sides differ on an image the surer one is right. The paper has two classes, one positive to three
    negatives, and classifiers that are fitted anew; here the networks go on. ratio: other images beside each labelled
    one; of these count those that have been given a label, in a mean over all.
    Both sides together say the product of what each says; of lab this is one linear layer, `classifier`. Of captions it
    is the image's own, since what is judged sees no captions.
    """

    inputs = Sides()
    held_out = False  # only training images are given labels

    def __init__(
        self,
        encoder,
        card,
        views: Literal["lab", "caption"] = "lab",
        ratio: Count = 1,
        pool: Count = 75,
        each: Count = 1,
    ):
        super().__init__(encoder)
        classes = len(card["classes"])
        self.order, self.pool, self.each, self.captions = Labelled(ratio), pool, each, views == "caption"
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=classes)
        if self.captions:
            self.text = nets.build("text_transformer", vocabulary=card["vocabulary"])
            self.text_classifier = nets.build("linear", d_in=self.text.dim, d_out=classes)
        elif hasattr(encoder, "lightness"):
            self.widths = encoder.lightness.dim, encoder.colour.dim
        else:
            raise UserError("co_training by `views: lab` needs the encoder split, with a half for lightness")
        self.register_buffer("label", torch.full((card["counts"]["train"],), -1))  # given or said, as far as known

    @float32
    def halves(self, features):
        """Logits (n, classes) by lightness and by colour, of the features of both; their sum is the classifier's."""
        weights, bias = self.classifier.weight.split(self.widths, 1), self.classifier.bias / 2
        return [F.linear(*side, bias) for side in zip(features.split(self.widths, 1), weights)]

    @torch.no_grad()
    def before_epoch(self, run):
        if run.epoch == 0:
            return
        features = run.embed().to(self.label.device)
        sides = self.halves(features) if not self.captions else [
            self.classifier(features), self.text_classifier(run.embed(self.text).to(features.device))]
        open_ = (self.label < 0).nonzero()[:, 0]
        pool = open_[rng.uniform(rng.key(run.seed, run.epoch, open_)).argsort(stable=True)[:self.pool]]
        if len(pool):
            self.label[pool] = chosen([side[pool].float().softmax(1) for side in sides], self.each)
        run.log(known=float((self.label >= 0).sum()))

    def logits(self, batch):
        """By both sides, each (n, classes)."""
        features = self.encoder(batch["image"])
        if not self.captions:
            return self.halves(features)
        return self.classifier(features), self.text_classifier(self.text(batch["caption"]))

    def forward(self, batch):
        (label, _), (index, others) = (apart(batch[name], self.order.ratio) for name in ("label", "index"))
        if self.training:
            self.label[gather_rows(index)] = gather_rows(label)
        return self.objective(*self.logits(batch), label, self.label[others])

    @float32
    def objective(self, first, second, label, said):
        """Of both sides' logits of all rows; label (n,), said (n · ratio,): -1 where nobody has said anything yet."""
        known, losses = (said >= 0).float(), []
        for logits in (first, second):
            labelled, others = apart(logits, self.order.ratio)
            learned = cross_entropy(others, said.clamp(min=0), reduction="none") * known
            losses.append(cross_entropy(labelled, label) + learned.mean())
        labelled, _ = apart(first + second, self.order.ratio)
        return {
            "loss": sum(losses),
            "accuracy": (labelled.argmax(1) == label).float().mean(),
            "agreement": (first.argmax(1) == second.argmax(1)).float().mean(),
            "share_known": known.mean(),
        }

    def parts(self):
        own = {"encoder": self.encoder, "classifier": self.classifier}
        return own | ({"text": self.text, "text_classifier": self.text_classifier} if self.captions else {})


def chosen(sides, each):
    """What two sides that give samples these shares (n, classes) label them: (n,), -1 for those that neither chooses.
    Each chooses, of each class, the `each` samples that it is surest of; of both the surer one is heard."""
    found = []
    for shares in sides:
        sure, said = shares.max(1)
        found.append((torch.where(cluster.ranked(said, sure) < each, sure, -1.0), said))
    (one, by_one), (two, by_two) = found
    return torch.where(one.maximum(two) < 0, -1, torch.where(one >= two, by_one, by_two))
