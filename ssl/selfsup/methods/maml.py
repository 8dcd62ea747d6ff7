"""MAML: weights from which a few steps of gradient descent on a few examples lead to a good classifier."""

from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call

from .. import nets
from ..arguments import Count, Positive, Range, Rounds
from ..core.precision import float32
from ..data.order import Episodes
from ..errors import UserError
from ..inputs.views import Taken, taken
from ..training.episodes import adapted, for_each
from .base import Method


class Maml(Method):
    """Finn, Abbeel & Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", Algorithm 2.
    https://arxiv.org/abs/1703.03400

    An episode (see `order`) is a task: encoder and classifier take `steps` at `rate` on the mean cross-entropy of its
    ways · shots examples, and the loss is that of its queries after them, with the gradient through the steps;
    first_order: without their second derivatives. `train.batch`: ways · (shots + queries) for each task of a step.
    Defaults are the paper's for Omniglot, 5 ways. Mind the rate: the authors' code adds up the examples' losses over
    the number of shots, so that its gradient is `ways` times that of the mean, and its 0.4 is 2 here.

    The encoder must have no BatchNorm (`norm: group`): the authors' takes the statistics of whatever is classified
    together, so that queries help to tell one another, and has none to go by for a sample alone. All is computed in
    float32, networks too, since gradients of gradients lose too much in 16 bits.
    """

    inputs = Taken(augment="none")
    sensitive = ("rate", 0.1)  # the paper's for 20 ways

    def __init__(self, encoder, ways: Annotated[int, Range(ge=2, le=2**20)] = 5, shots: Count = 1, queries: Count = 15,
                 rate: Positive = 0.4, steps: Rounds = 1, first_order: bool = False):
        super().__init__(encoder)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.modules()):
            raise UserError("maml adapts an encoder to a few examples, of which BatchNorm has no statistics to go by: "
                            "take one without, as {name: convnet, norm: group}")
        self.initial = nets.build("initial", d_in=encoder.dim, d_out=ways, rate=rate)
        self.order, self.steps, self.first_order = Episodes(ways, shots, queries), steps, first_order

    def forward(self, batch):
        return self.objective(*self.order.apart(taken(batch, self.encoder)))

    @float32
    def objective(self, support, query):
        """support (E, ways, shots, …), query (E, ways, queries, …): of the tasks' samples."""
        net = nn.Sequential(self.encoder, self.initial)
        initial = dict(net.named_parameters())
        ways = torch.arange(support.shape[1], device=support.device)
        examples, told = (ways.repeat_interleave(x.shape[2]) for x in (support, query))

        def task(support, query):
            def inner(weights):
                return F.cross_entropy(functional_call(net, weights, support), examples)

            weights = adapted(inner, initial, self.initial.rate, self.steps, self.first_order)
            logits = functional_call(net, weights, query)
            return F.cross_entropy(logits, told), (logits.argmax(1) == told).float().mean()

        loss, accuracy = zip(*for_each(task, support.flatten(1, 2), query.flatten(1, 2)))
        return {"loss": torch.stack(loss).mean(), "accuracy": torch.stack(accuracy).mean()}

    def parts(self):
        return {"encoder": self.encoder, "initial": self.initial}
