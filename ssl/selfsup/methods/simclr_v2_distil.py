"""SimCLR v2, the last of three runs: without labels a student learns what the fine-tuned network says."""

import torch

from .. import nets
from ..arguments import Temperature
from ..core.precision import float32
from ..inputs.views import View
from .base import Method


class SimCLRv2Distil(Method):
    """Chen et al. 2020, section 2, eq. 2. https://arxiv.org/abs/2006.10029

    `from` names the teacher, a run of `simclr_v2_finetune` or any other that has a classifier; it sees the same view as
    the student. The student starts at random, or where `init` says; it may be of another size. temperature: τ of both,
    with the factor τ² of the authors' code, so that the gradient's scale does not depend on it. Labels are not
    used; eq. 3 would add them.
    """

    inputs = View(augment="crop_flip")
    means = True
    sensitive = ("temperature", 2.0)

    def __init__(self, encoder, card, teacher, temperature: Temperature = 1.0):
        super().__init__(encoder)
        self.teacher, self.temperature = teacher, temperature
        classes = len(card["classes"])
        teacher.classifier(classes)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=classes)

    def forward(self, batch):
        logits = self.classifier(self.encoder(batch["image"]))
        with torch.no_grad():
            given = self.teacher.part("classifier")(self.teacher(batch["image"]))
        return self.objective(logits, given)

    @float32
    def objective(self, logits, given):
        says = (logits / self.temperature).log_softmax(1)
        loss = -((given / self.temperature).softmax(1) * says).sum(1).mean() * self.temperature**2
        return {"loss": loss, "agreement": (logits.argmax(1) == given.argmax(1)).float().mean()}

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}
