"""A batch in parts, one after the other, for one that the device's memory does not hold at once (`train.accumulate`).

Of a loss that is a mean over images, gradients are added up. Of one over a batch's embeddings they are not: images of
other parts are compared, too. There the batch is embedded twice: Gao et al. 2021, "Scaling Deep Contrastive Learning
Batch Size under Memory Limited Setup" (GradCache), section 3.2. https://arxiv.org/abs/2101.06983
Either way the gradient is the whole batch's, to rounding; but BatchNorm's statistics are those of a part.
"""

import contextlib

import torch
import torch.nn as nn

from ..core import distributed, rng
from ..errors import UserError
from .measure import MEASURED


class Accumulation:
    """Gradients of a batch, and what its method says of it, with no more than one part's graph in memory at a time.

    method: one whose loss is a mean over images (`means`), or that has `project` and `objective`. forward: the method
    or its wrapper of several processes, which `project` goes without. autocast: () -> a context in which networks run.
    """

    def __init__(self, method, forward, parts, autocast=contextlib.nullcontext):
        self.method, self.forward, self.parts, self.autocast = method, forward, parts, autocast

    def backward(self, batch, *key):
        """Adds to .grad the gradient of the batch's loss; returns what the method says of the whole of it, detached.

        key: ints, which with a part's number seed torch's generators, so that a network with noise of its own, as
        dropout's, draws the same in both passes.
        """
        parts = self.cut(batch)
        if self.method.means:
            said = []
            for number, part in enumerate(parts):
                torch.manual_seed(rng.key(*key, number))
                out = self.forward(part)
                (out["loss"] / len(parts)).backward()
                said.append({name: value.detach() for name, value in out.items()})
            return together(said, parts)
        with untracked(self.method):
            embeddings = [column.requires_grad_() for column in self.embed(parts, *key)]
        out = self.objective(embeddings)
        out["loss"].backward()
        gradients = zip(*(column.grad.chunk(len(parts)) for column in embeddings))
        for number, (part, gradient) in enumerate(zip(parts, gradients, strict=True)):
            torch.manual_seed(rng.key(*key, number))
            with self.autocast():
                again = self.method.project(part)
            torch.autograd.backward(again, gradient)
        return {name: value.detach() for name, value in out.items()}

    @torch.no_grad()
    def evaluate(self, batch):
        """What the method says of the whole batch, without gradients."""
        parts = self.cut(batch)
        if self.method.means:
            return together([self.method(part) for part in parts], parts)
        return self.objective(self.embed(parts))

    def cut(self, batch):
        """The parts, of whole groups of the method's order; of one size in training, of val the last may be smaller."""
        group = getattr(self.method.order, "group", 1)
        size = -(-len(batch["key"]) // group // self.parts) * group
        columns = {name: column.split(size) for name, column in batch.items()}
        return [dict(zip(columns, part)) for part in zip(*columns.values(), strict=True)]

    @torch.no_grad()
    def embed(self, parts, *key):
        """The embeddings of all parts, one tensor for each that `project` gives."""
        embedded = []
        for number, part in enumerate(parts):
            if key:
                torch.manual_seed(rng.key(*key, number))
            with self.autocast():  # one for each part: what it keeps of weights, it keeps without their gradient
                embedded.append(self.method.project(part))
        return [torch.cat(column) for column in zip(*embedded)]

    def objective(self, embeddings):
        with self.autocast():
            return self.method.objective(*embeddings)


def together(said, parts):
    """What a method would say of all parts at once, from what it said of each: scalars' means, and all embeddings."""
    sizes = [len(part["key"]) for part in parts]

    def mean(values):
        return sum(value * size for value, size in zip(values, sizes)) / sum(sizes)

    columns = {name: [out[name] for out in said] for name in said[0]}
    return {name: torch.cat(values) if name == MEASURED else mean(values) for name, values in columns.items()}


def alone(method, part):
    """What a part of a batch is computed for its gradient, by itself; for `measure.flops`."""
    Accumulation(method, method, 1).backward(part, 0)


@contextlib.contextmanager
def untracked(net):
    """BatchNorm keeps no running statistics inside: a part that comes twice would count twice."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def check(run, method):
    """UserError where `run.train.accumulate` is not for `method`, its batch or these processes."""
    parts, world, where = run.train.accumulate, distributed.world(), f"runs.{run.name}.train.accumulate"
    if not parts:
        return
    over_batch = hasattr(method, "project")
    if not method.means and not over_batch:
        raise UserError(
            f"{where}: {run.method} cannot be trained by parts of a batch, since its loss is no mean over images, nor is "
            "it given as one of a batch's embeddings; leave it out"
        )
    if over_batch and world > 1:
        raise UserError(
            f"{where}: {run.method} compares the images of a batch and is trained by parts in one process only, not "
            f"in {world}; leave it out"
        )
    group = getattr(method.order, "group", 1)
    if run.train.batch % (parts * world * group) or run.train.batch < 2 * parts * world:  # BatchNorm needs two images
        of, over = f" of whole groups of {group}" * (group > 1), f" on each of {world} processes" * (world > 1)
        raise UserError(f"{where}: a batch of {run.train.batch} cannot be cut into {parts} parts of one size and at "
                        f"least 2 images{of}{over}")
