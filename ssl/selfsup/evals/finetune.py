"""Fine-tuning: the whole encoder and a linear classifier on it, trained on all labels."""

import copy
from types import SimpleNamespace
from typing import Annotated, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F

from selfsup.arguments import Batch, Count, NotNegative, Positive, Range, Share
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent
from selfsup.inputs.views import trained_on
from selfsup.training import step

title = "Fine-tuned"
SEED = 0                                                 # of order and crops: the same for every encoder


def choose(
    encoder,
    data,
    images: Count,
    batch: Batch,
    optimizer: Literal["adamw", "sgd"],
    lr: Annotated[list[Positive], Range(min_length=1)],
    weight_decay: NotNegative,
    warmup: Share,
    clip: NotNegative,
):
    """Trains a copy on train for each learning rate and chooses on val: arguments.Budget says what the options are.

    Fine-tuning an encoder at random initialisation is training from scratch: the supervised baseline of this budget.
    """
    budget = dict(images=images, batch=batch, optimizer=optimizer, weight_decay=weight_decay, warmup=warmup, clip=clip)
    net, val, rate = tune(encoder, data.train, data.val, lr, **budget)
    return SimpleNamespace(val_accuracy=percent(val), net=net, lr=rate)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test), val_accuracy and lr."""
    logits, truth = embed(chosen.net, data.test)
    yield from accuracy(logits.argmax(1) == truth, bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "lr", chosen.lr


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
    settings = SimpleNamespace(optimizer=optimizer, lr=rate, weight_decay=weight_decay, warmup=warmup, clip=clip)
    parts = ({name: part[name].to(device) for name in (encoder.takes, "label", "index", "epoch")}
             for part in train.batches(SEED, batch, images))
    batches = (trained_on(part, encoder, SEED) for part in parts)

    def objective(part):
        return {"loss": F.cross_entropy(net(part[encoder.takes]), part["label"])}

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)                          # for a network with dropout
        net = step.placed(Classifier(encoder, len(train.card["classes"])), device)
        converged = step.fit(net, objective, batches, images // batch, settings, SEED)
    return net.eval() if converged else None


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


def notes(report, rows, options):
    yield (f"Fine-tuned: the whole encoder and a linear classifier, trained on all labels for {options['images']:,} images "
           f"seen, {options['optimizer']}, crops and flips; on val chosen was the rate, of {report.listed(options['lr'])}. "
           f"For {report.FLOOR} initialisation that is training from scratch.")
