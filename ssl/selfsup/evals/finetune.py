"""Fine-tuning: the whole encoder and a linear classifier on it, trained on all labels."""

import copy
from types import SimpleNamespace

import torch
import torch.nn as nn
import torch.nn.functional as F

from selfsup.training import optim
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent
from selfsup.inputs.views import View

SEED = 0                                                 # of order and crops: the same for every encoder
INPUTS = View("crop_flip", columns=("image", "label"))


def run(encoder, data, bootstrap=1000, **tuning):
    """Trains a copy on train for each learning rate and chooses on val; see `tune` for the options.

    Fine-tuning an encoder at random initialisation is training from scratch: the supervised baseline of this budget.
    Yields accuracy, low, high (percent, test), val_accuracy and lr.
    """
    net, val, rate = tune(encoder, data.train, data.val, **tuning)
    logits, truth = embed(net, data.test)
    yield from accuracy(logits.argmax(1) == truth, bootstrap)
    yield "val_accuracy", percent(val)
    yield "lr", rate


def tune(encoder, train, val, lr, **budget):
    """(classifier, its accuracy on val, its learning rate), the best on val of those trained with each of the list lr.

    The first of equals, in the order of the list. A rate at which training diverges is passed over.
    """
    best = None, -1, None
    for rate in lr:
        net = fit(encoder, train, rate, **budget)
        if net is not None:
            logits, truth = embed(net, val)
            best = max(best, (net, (logits.argmax(1) == truth).float().mean().item(), rate), key=lambda found: found[1])
    if best[0] is None:
        raise UserError(f"fine-tuning diverges at every learning rate of {lr}; lower them in params.yaml")
    return best


def fit(encoder, train, rate, images, batch, optimizer, weight_decay, warmup, clip):
    """A Classifier on a copy of the encoder after `images` augmented images of train, or None where it diverges."""
    device = next(encoder.parameters()).device
    settings = SimpleNamespace(optimizer=optimizer, lr=rate, weight_decay=weight_decay, warmup=warmup)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)                          # for a network with dropout
        net = Classifier(encoder, len(train.card["classes"])).to(device, memory_format=torch.channels_last).train()
        descent, steps = optim.build(net, settings), images // batch
        for step, part in enumerate(train.batches(SEED, batch, images)):
            part = {name: part[name].to(device) for name in ("image", "label", "index", "epoch")}
            part = INPUTS(part, SEED, encoder.mean, encoder.std)
            loss = F.cross_entropy(net(part["image"]), part["label"])
            optim.set_learning_rate(descent, optim.learning_rate(step, steps, settings))
            descent.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            descent.step()
    return net.eval() if all(value.isfinite().all() for value in net.state_dict().values()) else None


class Classifier(nn.Module):
    """Logits (N, classes) from a linear layer on a copy of the encoder, all of whose parameters are trained.

    The layer starts at zero, and features are normalised on the way to it, by BatchNorm without parameters as in MAE's
    linear probe (He et al. 2022, A.1): methods leave features of very different scale, and share one learning rate here.
    """

    def __init__(self, encoder, classes):
        super().__init__()
        self.encoder, self.takes, self.prepare = copy.deepcopy(encoder).requires_grad_(), encoder.takes, encoder.prepare
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False)
        self.linear = nn.Linear(encoder.dim, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(self.norm(self.encoder(x)))

    def param_groups(self):
        return [{"params": self.parameters()}]
