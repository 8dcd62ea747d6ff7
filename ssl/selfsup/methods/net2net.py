"""Net2Net: a larger network starts as the function that a smaller one has learned, and learns on from there."""

from typing import Annotated

import torch

from .. import nets
from ..arguments import Range
from ..core import distributed
from ..core.precision import cross_entropy
from ..data.order import Shuffled
from ..errors import UserError
from ..inputs.views import Taken, taken
from ..training.accumulate import untracked
from .base import Method


class Net2Net(Method):
    """Chen, Goodfellow & Shlens 2016, "Net2Net: Accelerating Learning via Knowledge Transfer", section 2, Algorithm 1.
    https://arxiv.org/abs/1511.05641

    The parent is the run that `from` names, with its classifier; the child's encoder is the same `convnet`, wider
    (`width`), deeper (`convs`) or both. What is wider computes the same in either mode, since copies of a channel have
    its statistics. What is deeper, a convolution that changes nothing, does so in evaluation, and in training on the
    batch that its BatchNorm was set by, the first; it needs an activation that changes nothing the second time, as
    ReLU. Then it is trained as `supervised` is, in the paper at a tenth of the parent's rate.

    noise: of all copies but a channel's first, as a share of the standard deviation of their layer's weights. Without
    any (or dropout) copies have equal gradients and stay copies. The paper says "a small amount" and gives no number.
    """

    inputs = Taken(augment="crop_flip", more=("label",))
    order = Shuffled(labelled=True)
    means = True

    def __init__(self, encoder, card, teacher, noise: Annotated[float, Range(ge=0, le=1)] = 0.05):
        super().__init__(encoder)
        parent, classifier = teacher.net, teacher.classifier(len(card["classes"]))
        check(parent, encoder, classifier)
        self.classifier = nets.build("linear", d_in=encoder.dim, d_out=len(card["classes"]))
        copies, self.new = grow(parent, encoder, noise)
        with torch.no_grad():
            self.classifier.weight.copy_(shared(classifier.weight, copies))
            self.classifier.bias.copy_(classifier.bias)

    def forward(self, batch):
        logits = self.classifier(self.encoder(taken(batch, self.encoder)))
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": cross_entropy(logits, batch["label"]), "accuracy": accuracy}

    def before_epoch(self, run):
        if run.epoch == 0:
            norms = [norm for norm in map(self.encoder.get_submodule, self.new) if hasattr(norm, "running_var")]
            settle(self.encoder, norms, taken(run.first(), self.encoder))

    def parts(self):
        return {"encoder": self.encoder, "classifier": self.classifier}


def check(parent, child, classifier):
    """UserError where the child's function cannot be the parent's."""
    def same(net):
        return {**net.config, "width": 0, "convs": 0}

    if parent.config["name"] != "convnet" or same(parent) != same(child):
        raise UserError(f"net2net: the encoder should be its parent's convnet, wider or deeper: {child.config} is not so "
                        f"of {parent.config}")
    if child.config.get("norm") == "group":
        raise UserError("net2net: GroupNorm takes statistics over a group of channels, which copies would change; take "
                        "a parent with BatchNorm")
    if child.dim < parent.dim or len(child.blocks[0]) < len(parent.blocks[0]):
        raise UserError(f"net2net: the encoder {child.config} is smaller than its parent, {parent.config}")
    if classifier.config["name"] != "linear":
        raise UserError(f"net2net: the parent's classifier is {classifier.config['name']}, not linear")


@torch.no_grad()
def grow(parent, child, noise):
    """Give the child the parent's function. Returns which of the parent's features each of the child's is a copy of
    (dim,), and the names of BatchNorm layers that no batch has set yet, in their order."""
    copies, new = torch.arange(parent.channels), []
    for number, (small, large) in enumerate(zip(parent.blocks, child.blocks)):
        for place in range(0, len(large), 3):             # convolution, BatchNorm, ReLU
            if place < len(small):
                copies = wider(small[place:place + 2], large[place:place + 2], copies, noise)
            else:
                deeper(*large[place:place + 2])
                new.append(f"blocks.{number}.{place + 1}")
    return copies, new


def wider(small, large, before, noise):
    """Algorithm 1 of one layer, a convolution and its BatchNorm. before: which channel of the parent each one that
    comes in is a copy of; returns that of those that go out: all of the parent's, then any of them at random."""
    (conv, norm), (own, own_norm) = small, large
    count, more = conv.out_channels, own.out_channels - conv.out_channels
    copies = torch.cat([torch.arange(count), torch.randint(count, (more,))])
    weight = shared(conv.weight[copies], before)
    weight[count:] += noise * conv.weight.std() * torch.randn_like(weight[count:])
    own.weight.copy_(weight)
    for name, value in norm.state_dict().items():
        own_norm.state_dict()[name].copy_(value[copies] if value.dim() else value)
    return copies


def shared(weight, copies):
    """The weights (out, in, …) of inputs that are `copies` (n,) of those there were, each its part of what one had."""
    parts = copies.bincount()[copies].view(1, -1, *[1] * (weight.dim() - 2))
    return weight[:, copies] / parts


def deeper(conv, norm):
    """A layer that changes nothing, in evaluation."""
    torch.nn.init.dirac_(conv.weight)
    norm.reset_parameters()
    norm.weight.copy_((norm.running_var + norm.eps).sqrt())


@torch.no_grad()
def settle(net, norms, x):
    """Set BatchNorm layers, one after the other, by what reaches them of a batch of all processes in training mode:
    that is then what leaves them."""
    def be_identity(norm, given):
        (reached,) = given
        mean = distributed.mean(reached.mean((0, 2, 3)))
        var = distributed.mean((reached - mean[:, None, None]).square().mean((0, 2, 3)))
        for own, value in ((norm.running_mean, mean), (norm.running_var, var), (norm.bias, mean),
                           (norm.weight, (var + norm.eps).sqrt())):
            own.copy_(value)

    hooks = [norm.register_forward_pre_hook(be_identity) for norm in norms]
    try:
        with untracked(net):
            net.train()(x)
    finally:
        for hook in hooks:
            hook.remove()
