"""DINO: a student predicts, from any crop, what its own moving average says of the large ones."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Proportion, Temperature, Width
from ..core import distributed
from ..core.precision import float32
from ..training.state import Ema, rising
from ..inputs.views import MultiCrop
from .base import Method, attention, denormalise, rows


class DINO(Method):
    """Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", eqs. 1-4, Algorithm 1.
    https://arxiv.org/abs/2104.14294

    hidden, bottleneck, prototypes: of the head, three layers to a vector, and its cosines with the prototypes, the
    weight-normalised last layer. The paper has 65,536 of them for ImageNet; here it is solo-learn's 4,096 for CIFAR.
    Prototypes start as in the authors' code, the head's layers as PyTorch's (theirs: 0.02 N(0, 1), biases 0).
    Only the student sees the small crops (every second is solarised as the second large one is,
    which the paper's are not). centre: momentum of the centre.
    temperature, teacher_temperature: softmax of the student, and of the teacher, the lower, which sharpens. The paper
    raises the latter from 0.04 to 0.07 over its first 30 epochs; a short run stays at the start,
    and on a ConvNet needs about 0.02: at 0.04 the targets became uniform.
    momentum: of the teacher, rises to 1 along a cosine; 0.996 is for hundreds of thousands of steps, a run of some
    hundred needs about 0.99. The paper holds the last layer still in its first epoch; here it moves from the start.
    Features are the mean of the patches, where the paper's are a class token.
    """

    inputs = MultiCrop(8, augment="asym", large_crop=(0.4, 1.0), small_crop=(0.05, 0.4))
    sensitive = ("teacher_temperature", 0.02)  # the paper's ablation has 0 to 0.08; see above for short runs

    def __init__(
        self,
        encoder,
        hidden: Width = 2048,
        bottleneck: Width = 256,
        prototypes: Width = 4096,
        temperature: Temperature = 0.1,
        teacher_temperature: Temperature = 0.04,
        momentum: Proportion = 0.996,
        centre: Proportion = 0.9,
    ):
        super().__init__(encoder)
        widths = [encoder.dim, hidden, hidden, bottleneck]
        layers = [layer for i, o in zip(widths, widths[1:]) for layer in (nn.Linear(i, o), nn.GELU())]
        self.head = nn.Sequential(*layers[:-1])
        self.last = Cosines(bottleneck, prototypes)
        self.teacher = Ema(self.student)
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.momentum, self.centre_momentum = momentum, centre
        self.register_buffer("centre", torch.zeros(prototypes))

    @property
    def student(self):
        return nn.Sequential(self.encoder, self.head, self.last)  # built anew: registered, weights would have two names

    def forward(self, batch):
        large, small = (batch[name].transpose(0, 1) for name in ("image", "small"))  # (N, V, ...) -> (V, N, ...)
        targets = self.teacher(large.flatten(0, 1))
        z = self.head(self.encoder(large.flatten(0, 1)))
        scores = [*self.last(z).chunk(2)]
        if len(small):
            scores += self.student(small.flatten(0, 1)).chunk(len(small))
        return {**self.objective(targets, scores), "embedding": z}

    @float32
    def objective(self, targets, scores):
        """Of the teacher's scores of both large crops (2N, prototypes), and the student's of each crop (N, prototypes)."""
        sharp = ((targets - self.centre) / self.teacher_temperature).softmax(1).chunk(2)
        predictions = [(s / self.temperature).log_softmax(1) for s in scores]
        losses = [
            -(p * prediction).sum(1).mean()
            for number, p in enumerate(sharp)
            for other, prediction in enumerate(predictions)
            if other != number
        ]
        if self.training:
            self.centre.lerp_(distributed.mean(targets.mean(0)).to(self.centre.dtype), 1 - self.centre_momentum)
        # Collapse is an entropy of 0 (all to one prototype) or of log(prototypes) (all to all): the paper's figure 7.
        entropy = torch.special.entr(torch.cat(sharp)).sum(1).mean()
        return {"loss": sum(losses) / len(losses), "entropy": entropy}

    def after_step(self, progress):
        self.teacher.update(self.student, rising(self.momentum, progress))

    @torch.no_grad()
    def pictures(self, batch):
        """views: A column is an image of val: above its two large crops, which student and teacher see, below them its
        small ones, enlarged, which the student alone sees.
        attention: A column is an image of val, which stands on top; below it, a row for each head of the teacher's
        last block, how much each patch is attended to (black least, white most), on average over the patches that
        attend. Heads that have learned show the thing and not the ground."""
        x, small = batch["image"][:8], batch["small"][:8].repeat_interleave(2, 3).repeat_interleave(2, 4)
        sheets = {"views": rows(denormalise(torch.cat([x, small], 1)))}
        attended = attention(self.teacher.module[0], x[:, 0])
        return sheets if attended is None else {**sheets, "attention": attended}


class Cosines(nn.Module):
    """Cosines (N, prototypes) of vectors (N, d) with the prototypes, which start as a linear layer's weights, about 0.58
    long: their length decides how fast AdamW, whose steps do not depend on it, turns them."""

    def __init__(self, d, prototypes):
        super().__init__()
        self.weight = nn.Linear(d, prototypes, bias=False).weight

    @float32
    def forward(self, x):
        return F.linear(F.normalize(x, dim=1), F.normalize(self.weight, dim=1))
