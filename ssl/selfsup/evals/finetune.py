"""Fine-tuning: the whole encoder and a linear classifier on it, trained on all labels; or all of it but its first
layers."""

import copy
from types import SimpleNamespace
from typing import Annotated, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F

from selfsup.arguments import Batch, Count, NotNegative, Positive, Range, Share, Whole
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent
from selfsup.inputs.views import trained_on
from selfsup.training import step

title = "Fine-tuned"
elsewhere = True                                         # where to cut is asked of data that are not the run's own
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
    freeze: Annotated[list[Whole], Range(min_length=1, distinct=True)] | None = None,
):
    """Trains a copy on train for each learning rate and chooses on val: arguments.Budget says what the options are.

    freeze: how many of the first layers stay as they are, each number of the list; none unless given. Fine-tuning an
    encoder at random initialisation is training from scratch: the supervised baseline of this budget.
    """
    budget = dict(images=images, batch=batch, optimizer=optimizer, weight_decay=weight_decay, warmup=warmup, clip=clip)
    cuts = {n: tune(encoder, data.train, data.val, lr, freeze=n, **budget) for n in freeze or [0]}
    best = max(cuts, key=lambda n: cuts[n][1])           # the first of equals
    return SimpleNamespace(val_accuracy=percent(cuts[best][1]), cuts=cuts, best=best, asked=freeze)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test), val_accuracy and lr of the cut that is best on val; where cuts were
    asked for, `freeze`, that one, and `cuts`, {layers frozen: accuracy, low, high, val_accuracy, lr}."""
    outputs, truth = embed(Together(*(net for net, _, _ in chosen.cuts.values())), data.test)
    results = {str(n): {**dict(accuracy(logits.argmax(1) == truth, bootstrap)), "val_accuracy": percent(val),
                        "lr": rate}
               for (n, (_, val, rate)), logits in zip(chosen.cuts.items(), outputs.chunk(len(chosen.cuts), 1))}
    yield from results[str(chosen.best)].items()
    if chosen.asked:
        yield "freeze", chosen.best
        yield "cuts", results


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


def fit(encoder, train, rate, images, batch, optimizer, weight_decay, warmup, clip, freeze=0,
        augment="crop_flip"):
    """A Classifier on a copy of the encoder after `images` augmented images of train, or None where it diverges."""
    device = next(encoder.parameters()).device
    settings = SimpleNamespace(optimizer=optimizer, lr=rate, weight_decay=weight_decay, warmup=warmup, clip=clip)
    parts = ({name: part[name].to(device) for name in (encoder.takes, "label", "index", "epoch")}
             for part in train.batches(SEED, batch, images))
    batches = (trained_on(part, encoder, SEED, augment) for part in parts)
    kept = layers(encoder, train)[:freeze] if freeze else []
    if freeze > len(kept):
        raise UserError(f"protocols.finetune.freeze: {freeze}, and the encoder has {len(kept)} layers")

    def objective(part):
        return {"loss": F.cross_entropy(net(part[encoder.takes]), part["label"])}

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(SEED)                          # for a network with dropout
        net = step.placed(Classifier(encoder, len(train.card["classes"]), sum(kept, [])), device)
        converged = step.fit(net, objective, batches, images // batch, settings, SEED)
    return net.eval() if converged else None


def layers(encoder, split):
    """Of each layer, from the image on, the names of its modules that have parameters of their own: those of which its
    map depends, and no map before it does. split: of a sample, by which that is found."""
    net = copy.deepcopy(encoder).eval().requires_grad_()
    sample = next(iter(split.in_order(1)))[net.takes].to(next(net.parameters()).device)
    owners = {id(p): name for name, module in net.named_modules() for p in module.parameters(recurse=False)}
    parameters, found = list(net.parameters()), []
    for each in net.layers(net.prepare(sample)):
        gradients = torch.autograd.grad(each.sum(), parameters, retain_graph=True, allow_unused=True)
        reached = dict.fromkeys(owners[id(p)] for p, gradient in zip(parameters, gradients) if gradient is not None)
        found.append([name for name in reached if name not in sum(found, [])])
    return found


class Classifier(nn.Module):
    """Logits (N, classes) from a linear layer on a copy of the encoder, all of whose parameters are trained but for
    those of the modules called `kept`, which stay as they are in all, BatchNorm's statistics too.

    The layer starts at zero, and features are normalised on the way to it, by BatchNorm without parameters as in MAE's
    linear probe (He et al. 2022, A.1): methods leave features of very different scale, and share one learning rate
    here.
    """

    def __init__(self, encoder, classes, kept=()):
        super().__init__()
        self.encoder, self.takes, self.prepare = copy.deepcopy(encoder).requires_grad_(), encoder.takes, encoder.prepare
        self.kept = [self.encoder.get_submodule(name) for name in kept]
        for module in self.kept:
            for p in module.parameters(recurse=False):
                p.requires_grad_(False)
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False)
        self.linear = nn.Linear(encoder.dim, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def train(self, mode=True):
        super().train(mode)
        for module in self.kept:
            module.training = False
        return self

    def forward(self, x):
        return self.linear(self.norm(self.encoder(x)))

    def param_groups(self):
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]


class Together(nn.Module):
    """What several modules make of an image, side by side. Normalisation is that of the first, as it is of its
    copies."""

    def __init__(self, *members):
        super().__init__()
        self.members, self.takes, self.prepare = nn.ModuleList(members), members[0].takes, members[0].prepare
        self.train(members[0].training)                  # which `embed` restores

    def forward(self, x):
        return torch.cat([member(x) for member in self.members], 1)


def notes(report, rows, options):
    yield (f"Fine-tuned: the whole encoder and a linear classifier, trained on all labels for {options['images']:,} images "
           f"seen, {options['optimizer']}, crops and flips; on val chosen was the rate, of {report.listed(options['lr'])}. "
           f"For {report.FLOOR} initialisation that is training from scratch.")
    if options["freeze"]:
        yield (f"Of the encoder's layers the first {report.listed(options['freeze'])} stayed as they were, BatchNorm's "
               "statistics too; in tables stands what is best on val.")


def panel(report, rows, options):
    if options["freeze"]:
        return report.by_depth(
            rows, "finetune", lambda content: {"": content["cuts"]}, "layers frozen", name="cut", title="Where to cut",
            text="How many of the first layers stay as they are; the others are trained on, with a linear classifier.")
