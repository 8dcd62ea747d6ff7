"""Mean Teacher: predictions should be those of the network's own moving average, which looks with other noise."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .. import nets
from ..arguments import Count, Proportion, Weight
from ..core.precision import float32
from ..data.order import Labelled, apart
from ..inputs.views import Views
from ..training.state import Ema, ramp_up
from .base import Method


class MeanTeacher(Method):
    """Tarvainen & Valpola 2017, "Mean teachers are better role models: Weight-averaged consistency targets improve
    semi-supervised deep learning results". https://arxiv.org/abs/1703.01780

    Cross-entropy of the labelled rows, and times a weight that rises the squared difference of the student's
    probabilities for one view from the teacher's for the other, a mean over classes and over the unlabelled rows. The
    teacher is the average of the student's weights, takes no gradient and is what is kept and judged. Its BatchNorm's
    statistics are its own, of its own views, as in the authors' code. Noise is that of the views: our networks have no
    dropout, nor a second layer of logits for the consistency alone, as the authors' ResNet has.
    ratio: unlabelled rows beside each labelled one; the authors have 97 beside 31. momentum: of the average, which is
    the true mean of all weights so far for as long as that is the shorter one.
    weight: 100 times the share of samples with a label where the labelled rows' sum is divided by the whole batch: as
    means of either kind 100. rising: the share of the budget in which it is reached, 40,000 of 150,000 steps.
    """

    inputs = Views(2, augment="crop_flip", columns=("image", "label"))
    means = True
    sensitive = ("weight", 10.0)  # the authors' README: from the number of classes to its square

    def __init__(self, encoder, card, ratio: Count = 3, momentum: Proportion = 0.999, weight: Weight = 100.0,
                 rising: Proportion = 0.27):
        super().__init__(encoder)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        self.teacher = Ema(self.student)
        self.order = Labelled(ratio)
        self.ratio, self.momentum, self.weight, self.rising = ratio, momentum, weight, rising
        self.register_buffer("risen", ramp_up(0, rising).float())
        self.register_buffer("steps", torch.zeros(()))

    @property
    def student(self):
        return nn.Sequential(self.encoder, self.classifier)  # built anew: registered, its weights would have two names

    def forward(self, batch):
        first, second = batch["image"].unbind(1)
        return self.objective(self.student(first), self.teacher(second), batch["label"])

    @float32
    def objective(self, student, teacher, label):
        (few, many), (_, target), (label, _) = (apart(rows, self.ratio) for rows in (student, teacher, label))
        labelled, consistency = F.cross_entropy(few, label), (many.softmax(1) - target.softmax(1)).square().mean()
        accuracy = (few.argmax(1) == label).float().mean()
        return {"loss": labelled + self.weight * self.risen * consistency, "labelled": labelled,
                "consistency": consistency, "accuracy": accuracy}

    def after_step(self, progress):
        self.steps += 1
        self.teacher.update(self.student, (1 - 1 / (self.steps + 1)).clamp(max=self.momentum))
        self.risen.fill_(ramp_up(progress, self.rising))

    def parts(self):
        encoder, classifier = self.teacher.module
        return {"encoder": encoder, "classifier": classifier}
