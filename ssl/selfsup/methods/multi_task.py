"""Multi-task learning: several labels of an image at once, by one network or by several that are kept alike."""

import copy
import math
from typing import Annotated, Literal

import torch
import torch.nn as nn

from .. import nets
from ..arguments import Range, Text, Weight
from ..core.precision import cross_entropy, float32, mse_loss
from ..data.order import Shuffled
from ..errors import UserError, nearest
from ..inputs.views import Taken, taken
from .base import Method


class MultiTask(Method):
    """Caruana 1997, "Multitask Learning", Machine Learning 28. https://doi.org/10.1023/A:1007379606734

    tasks: `class`, the label, or what the data's card names of the column `attributes`: a number of so many values,
    learned by cross-entropy, or a measure of mean 0 and variance 1, by the squared error. Each loss is divided by what
    guessing costs, the logarithm of the number of values or the variance, so that equal weights mean something.
    sharing: hard, as in the paper: a linear layer for each task on one trunk, the encoder. soft: a trunk for each task,
    and pull · Σ ‖θ_a − θ_b‖² over all pairs of them is added to the loss (a norm of that kind: Duong et al. 2015,
    "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a Neural Network Parser"). They start as one;
    with no pull each is that of its task alone, and without bound they stay one. The encoder is that of the first task.

    Views change nothing, since a crop changes the size, and a flip what is left and right.
    """

    inputs = Taken(augment="none", more=("label", "attributes"))
    order = Shuffled(labelled=True)
    means = True

    def __init__(
        self,
        encoder,
        card,
        tasks: Annotated[list[Text], Range(min_length=1, max_length=8, distinct=True)] = ("class",),
        sharing: Literal["hard", "soft"] = "hard",
        pull: Weight = 0.01,
    ):
        super().__init__(encoder)
        known = {"class": len(card["classes"]), **card.get("attributes", {})}
        for task in tasks:
            if task not in known:
                raise UserError(f'multi_task: the data have no task "{task}"{nearest(task, known)} (there are: '
                                f'{", ".join(known)})')  # fmt: skip
        self.values = {task: known[task] for task in tasks}
        self.place = {task: number - 1 for number, task in enumerate(known)}  # in the column; the class is not there
        self.pull, self.sizes = pull, [values or 1 for values in self.values.values()]
        self.heads = nets.build("linear", d_in=encoder.dim, d_out=sum(self.sizes))  # the tasks' side by side
        self.others = nn.ModuleList(copy.deepcopy(encoder) for _ in tasks[1:] if sharing == "soft")

    def forward(self, batch):
        x = taken(batch, self.encoder)
        outputs = [self.heads(trunk(x)).split(self.sizes, 1) for trunk in (self.encoder, *self.others)]
        own = [outputs[number if self.others else 0][number] for number in range(len(self.sizes))]
        return self.objective(own, batch["label"], batch["attributes"])

    @float32
    def objective(self, outputs, label, attributes):
        """outputs: of each task (N, values), or (N, 1) of a measure; label (N,); attributes (N, all there are)."""
        losses, told = {}, {}
        for (task, values), out in zip(self.values.items(), outputs):
            target = label if task == "class" else attributes[:, self.place[task]]
            if values:
                losses[f"loss_{task}"] = cross_entropy(out, target.long()) / math.log(values)
                told[f"accuracy_{task}"] = (out.argmax(1) == target).float().mean()
            else:
                losses[f"loss_{task}"] = mse_loss(out[:, 0], target)
        if self.others:
            told["apart"] = self.apart()
        return {"loss": sum(losses.values()) + self.pull * told.get("apart", 0), **losses, **told}

    @float32
    def apart(self):
        """Σ ‖θ_a − θ_b‖² over the pairs of trunks, which is their number times Σ ‖θ_a − mean‖²."""
        alike = (torch.stack(each) for each in zip(*(net.parameters() for net in (self.encoder, *self.others))))
        return sum(len(each) * (each - each.mean(0)).square().sum() for each in alike)

    def parts(self):
        further = {f"encoder_{number}": trunk for number, trunk in enumerate(self.others, 2)}
        return {"encoder": self.encoder, "heads": self.heads, **further}
