"""Linear classifier on frozen features: multinomial logistic regression with weight decay, solved to convergence."""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn.functional as F

from selfsup.arguments import NotNegative, Range
from selfsup.evals import accuracy, balanced, embed, percent

title = "Linear"
BLOCK = 2**24                                            # numbers of a block of rows, of logits or in double (64, 128 MB)


def choose(encoder, data, weight_decay: Annotated[list[NotNegative], Range(min_length=1)]):
    """Fits on train for each weight decay of the list and chooses on val. No refit on train and val together."""
    probe = Probe(embed(encoder, data.train), embed(encoder, data.val), len(data.card["classes"]), weight_decay)
    return SimpleNamespace(val_accuracy=percent(probe.val), probe=probe)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test), val_accuracy and weight_decay."""
    features, truth = embed(encoder, data.test)
    correct = chosen.probe(features) == truth
    yield from accuracy(correct, bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "weight_decay", chosen.probe.decay
    yield from balanced(correct, truth, bootstrap)


class Probe:
    """The classifier of features (n, d) fitted on train, with the weight decay `decay` of best accuracy `val` on val.

    train, val: (features, labels), and where samples do not count alike their weights (n,), of mean 1. Train's features
    are overwritten: of ImageNet's there is room for one copy. Of equally good decays the first in the order of the list
    is taken.
    """

    def __init__(self, train, val, classes, decays):
        features, labels, *weights = train
        self.standardise = Standardise(features)
        features.sub_(self.standardise.mean).mul_(self.standardise.scale)
        grid = path(features, labels, classes, decays, *weights)
        features, truth, *weights = self.standardise(val[0]), *val[1:]
        right = {decay: (predict(features, *grid[decay]) == truth).float() for decay in decays}
        shares = {decay: (some * weights[0] if weights else some).mean().item() for decay, some in right.items()}
        self.decay = max(shares, key=shares.get)
        self.solution, self.val = grid[self.decay], shares[self.decay]

    def __call__(self, features):
        return predict(self.standardise(features), *self.solution)


class Standardise:
    """Zero mean and unit variance by the statistics of `features` (N, d); a constant feature becomes 0."""

    def __init__(self, features):
        mean = sum(block.double().sum(0) for block in blocks(features)) / len(features)
        std = (sum((block.double() - mean).square().sum(0) for block in blocks(features)) / len(features)).sqrt()
        self.mean = mean
        dead = std <= 1e-6 * self.mean.abs()             # constant up to float32 rounding
        self.mean = self.mean.float()
        self.scale = torch.where(dead, 0, 1 / torch.where(dead, 1, std)).float()

    def __call__(self, features):
        return (features - self.mean) * self.scale


def blocks(rows, width=None):
    """The rows (N, d) in blocks that hold, of `width` numbers for each row (d unless given), BLOCK at once."""
    return rows.split(max(1, BLOCK // (width or rows.shape[1])))


def predict(features, weight, bias):
    """Most probable class (n,) of features (n, d) for weight (d, classes) and bias (classes,)."""
    return (features @ weight + bias).argmax(1)


def path(features, labels, classes, decays, weights=None):
    """{decay: (weight (d, classes), bias (classes,))} minimising mean cross-entropy + decay / 2 · ‖weight‖², where each
    sample's term is multiplied by its own of the `weights` (N,), 1 unless given.

    Features are overwritten. In scikit-learn's terms C = 1 / (N · decay); the bias is free there too. Solved from the strongest decay to the
    weakest, each started at the last solution, by L-BFGS on all of `features` (N, d). The variables are
    changed to those in which Böhning's bound on the Hessian (1992), (XᵀX / N) / 2 + decay, is the identity: a
    rotation onto the principal axes (which leaves ‖weight‖ as it is) and a scale for each axis. Without it, weak
    decays on correlated features need hundreds of steps more.
    """
    spread, axes = torch.linalg.eigh((features.T @ features).double() / len(features))
    spread, axes = spread.clamp(min=0).float(), axes.float()
    for block in blocks(features):
        block.copy_(block @ axes)
    weight, bias = features.new_zeros(features.shape[1], classes), features.new_zeros(classes)
    each = features.new_ones(len(features)) if weights is None else weights.to(features)
    solutions = {}
    for decay in sorted(decays, reverse=True):
        scale = (spread / 2 + decay).rsqrt()[:, None]
        weight, bias = solve(features, labels, each, decay, scale, weight, bias)
        solutions[decay] = axes @ weight, bias
    return solutions


def solve(features, labels, each, decay, scale, weight, bias, steps=1000, tolerance=1e-5):
    """The minimum over weight / scale, from (weight, bias): no gradient entry above the tolerance, or the loss at rest.

    SciPy's L-BFGS, since making any of torch's optimisers first imports its compiler, which takes longer than the fit.
    """
    from scipy.optimize import minimize

    def unpack(flat):
        flat = torch.from_numpy(flat).to(features)
        return flat[:-len(bias)].view_as(weight) * scale, flat[-len(bias):]

    def value_and_gradient(flat):
        weight, bias = unpack(flat)
        fit, of_weight, of_bias = 0, 0, 0
        for some, own, right in zip(blocks(features, len(bias)), blocks(each, len(bias)), blocks(labels, len(bias))):
            logits = some @ weight + bias
            # Summed in double: near the minimum the line search compares losses that agree in float32.
            fit = fit + (own * F.cross_entropy(logits, right, reduction="none")).double().sum()
            error = logits.softmax(1)
            error[torch.arange(len(right), device=right.device), right] -= 1
            error = own[:, None] * error / len(labels)
            of_weight, of_bias = of_weight + some.T @ error, of_bias + error.sum(0)
        loss = fit / len(labels) + decay / 2 * weight.double().square().sum()
        gradient = torch.cat([((of_weight + decay * weight) * scale).flatten(), of_bias])
        return loss.item(), gradient.double().cpu().numpy()

    start = torch.cat([(weight / scale).flatten(), bias]).double().cpu().numpy()
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B",
                     options={"maxiter": steps, "maxcor": 20, "gtol": tolerance, "ftol": 1e-9})
    return unpack(found.x)


def notes(report, rows, options):
    yield ("Linear: logistic regression on frozen, standardised features, fitted on train; on val chosen was the "
           f"weight decay, of {report.listed(options['weight_decay'])}.")
