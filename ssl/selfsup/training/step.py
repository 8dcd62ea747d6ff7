"""One step of training, for the trainer and for judges that train."""

import torch

from ..core import distributed, rng
from ..core.precision import wide
from . import optim
from .measure import sound


def placed(net, device):
    """The net on the device, in place, the weights of images in the order of memory that is fast there. To say so to
    `to` alone would fail at those of volumes."""
    net = net.to(device)
    for value in (*net.parameters(), *net.buffers()):
        if value.dim() == 4:
            value.data = value.data.to(memory_format=torch.channels_last)
    return net


class Step:
    """A batch, forward, backward, clip, update. Nothing is read back from the device.

    net: whose parameters are trained; forward: what is called, `net` itself, its wrapper of several processes, or an
    objective: batch -> {"loss": scalar, …}. train: `lr`, `warmup` and `clip`, as config.Train has them; steps: of the
    whole training; after: called after the update with the share of the steps that is done, a scalar in (0, 1] on the
    net's device; accumulation: an Accumulation, which takes the place of `forward` where a batch is cut into parts;
    prepare: what is done to a batch first, so that it is a part of what capture.py records.
    """

    def __init__(self, net, forward, optimizer, train, seed, steps, after=lambda progress: None, accumulation=None,
                 prepare=lambda batch: batch):
        self.net, self.forward, self.optimizer, self.accumulation = net, forward, optimizer, accumulation
        self.train, self.seed, self.steps, self.after, self.prepare = train, seed, steps, after, prepare
        device = next(net.parameters()).device
        self.progress = torch.zeros((), dtype=wide(device), device=device)

    def __call__(self, number, batch):
        """Step `number`, from 0; returns what `forward` did. torch's generators are seeded by (seed, number, rank)."""
        self.begin(number)
        return self.work(batch)

    def begin(self, number):
        """What the host knows of a step: the rest is the same for all of them."""
        self.key = self.seed, number, distributed.rank()
        torch.manual_seed(rng.key(*self.key))
        optim.set_learning_rate(self.optimizer, optim.learning_rate(number, self.steps, self.train))
        self.progress.fill_((number + 1) / self.steps)

    def work(self, batch):
        """What the device does in a step, in the same memory each time."""
        batch = self.prepare(batch)
        if self.accumulation:
            out = self.accumulation.backward(batch, *self.key)
        else:
            out = self.forward(batch)
            out["loss"].backward()
        if self.train.clip:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after(self.progress)
        return out


def fit(net, objective, batches, steps, train, seed=0):
    """Train `net`, in one process, by the pretraining's own optimiser, schedule and step.

    net: says its `param_groups()`, as a Method does. objective: batch -> {"loss": scalar, …}. batches: `steps` of them,
    on the net's device. train: `optimizer`, `lr`, `weight_decay`, `warmup`, `clip`, as config.Train has them.
    Returns whether all weights are finite in the end; where they are not, training diverged. Seeds torch's generators.
    """
    net.train()
    step = Step(net, objective, optim.build(net, train), train, seed, steps)
    for number, batch in enumerate(batches):
        step(number, batch)
    return sound(net)
