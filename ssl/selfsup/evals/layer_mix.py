"""A linear classifier on a mix of an encoder's layers, learned for each task: which layers a task wants.

Peters et al. 2018, eq. 1, https://arxiv.org/abs/1802.05365: γ Σ s_j h_j with s = softmax(w), w and γ beside the
classifier's own weights.
"""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F

from selfsup.arguments import Count, NotNegative, Positive, Range, Text
from selfsup.evals import accuracy, percent, summarise
from selfsup.evals.linear import Standardise

title = "Layer mix"
column = False                                           # but a table and a figure of its own


def columns(options):
    """The columns that it reads besides the encoder's and the label."""
    return options["tasks"]


def choose(encoder, data, tasks: Annotated[list[Text], Range(min_length=1, distinct=True)],
           weight_decay: Annotated[list[NotNegative], Range(min_length=1)], steps: Count, lr: Positive):
    """Fits for each task, a column of numbers that count from 0, and each weight decay; of these one a task is chosen
    on val. steps, lr: of Adam on all of train at once. What is read of a layer is its mean over the tokens, each of
    its numbers standardised, so that a layer's share is not its size; it starts as everybody's."""
    train, known = features(encoder, data.train, tasks)
    standards = [Standardise(layer) for layer in train]
    train = torch.stack([standard(layer) for standard, layer in zip(standards, train)])
    val, truth = features(encoder, data.val, tasks)
    val = torch.stack([standard(layer) for standard, layer in zip(standards, val)])
    chosen = {}
    for task in tasks:
        found = []
        for decay in weight_decay:
            model = fit(train, known[task], int(known[task].max()) + 1, decay, steps, lr)
            found.append((float((model(val).argmax(1) == truth[task]).float().mean()), decay, model))
        chosen[task] = max(found, key=lambda each: each[0])  # the first of equals
    return SimpleNamespace(val_accuracy=percent(chosen[tasks[0]][0]), chosen=chosen, standards=standards)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) and val_accuracy of the first task, and in `tasks` of each, besides
    its `layers`, the share of each from 0, the embedding, up, `scale`, γ, and weight_decay."""
    layers, truth = features(encoder, data.test, list(chosen.chosen))
    layers = torch.stack([standard(layer) for standard, layer in zip(chosen.standards, layers)])
    tasks = {}
    for task, (val, decay, model) in chosen.chosen.items():
        right = model(layers).argmax(1) == truth[task]
        mixed = model.mix.weight.detach().softmax(0).tolist()
        shares = {str(layer): round(share, 4) for layer, share in enumerate(mixed)}
        tasks[task] = {**dict(accuracy(right, bootstrap)), "val_accuracy": percent(val), "layers": shares,
                       "scale": round(float(model.mix.scale.detach()), 4), "weight_decay": decay}
    first = next(iter(tasks.values()))
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, first[name]
    yield "tasks", tasks


@torch.no_grad()
def features(encoder, split, tasks):
    """The mean over the places of each layer's map, [(N, d), …], and {task: numbers (N,)}."""
    device, layers, numbers = next(encoder.parameters()).device, [], {task: [] for task in tasks}
    for part in split.in_order(512):
        maps = encoder.layers(encoder.prepare(part[encoder.takes].to(device)))
        layers.append([each.float().mean((2, 3)) for each in maps])
        for task in tasks:
            numbers[task].append(part[task].to(device))
    return [torch.cat(each) for each in zip(*layers)], {task: torch.cat(each) for task, each in numbers.items()}


class Mix(nn.Module):
    """γ Σ s_j h_j of layers (L, …) -> (…); it starts as their mean."""

    def __init__(self, layers):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.zeros(layers)), nn.Parameter(torch.ones(()))

    def forward(self, layers):
        return self.scale * torch.tensordot(self.weight.softmax(0), layers, 1)


class Mixed(nn.Module):
    """Logits (N, classes) of layers (L, N, d)."""

    def __init__(self, layers, width, classes):
        super().__init__()
        self.mix, self.classify = Mix(layers), nn.Linear(width, classes)
        nn.init.zeros_(self.classify.weight)

    def forward(self, layers):
        # Classified before they are mixed, which is the same and nearly twice as fast: there are few classes.
        return self.mix(F.linear(layers, self.classify.weight)) + self.classify.bias


def fit(layers, labels, classes, decay, steps, lr):
    """A Mixed that minimises the mean cross-entropy + decay / 2 · ‖weight of the classifier‖² + 0.0005 · ‖w‖², the
    authors' decay of the layers' weights (bilm-tf: 0.001 in L2)."""
    model = Mixed(len(layers), layers.shape[2], classes).to(layers.device)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        own = decay / 2 * model.classify.weight.square().sum() + 5e-4 * model.mix.weight.square().sum()
        (F.cross_entropy(model(layers), labels) + own).backward()
        optimizer.step()
    return model


def notes(report, rows, options):
    yield ("Layer mix: a linear classifier on a weighted sum of the layers, whose weights are learned with it, for "
           f"each of the tasks {', '.join(options['tasks'])}; on val chosen was the weight decay, of "
           f"{report.listed(options['weight_decay'])}.")


def panel(report, rows, options):
    depth = max(len(shares(row, options["tasks"][0])) for row in rows)
    heads = [f"{task}: {what}" for task in options["tasks"]
             for what in ("accuracy", *(f"layer {layer}" for layer in range(depth)))]
    cells = []
    for row in rows:
        seeds, found = row.results["layer_mix"]["seeds"], []
        for task in options["tasks"]:
            own = shares(row, task)
            found += [summarise({seed: content["tasks"][task] for seed, content in seeds.items()}), *own,
                      *[None] * (depth - len(own))]
        cells.append((row, found))
    return report.Panel(
        "layer-mix", "Which layers a task wants", "The share of each layer in the mix that a task learns, in per cent, "
        "layer 0 the tokens' own embedding; a line for each task.", table=(heads, cells),
        figure=figure(report, rows, options["tasks"]))


def shares(row, task):
    """The layers' weights in per cent, summarised over the seeds, of which each is its own interval."""
    seeds = {seed: content["tasks"][task]["layers"] for seed, content in row.results["layer_mix"]["seeds"].items()}
    layers = next(iter(seeds.values()))
    return [summarise({seed: dict.fromkeys(("accuracy", "low", "high"), 100 * share[layer])
                       for seed, share in seeds.items()}) for layer in layers]


def figure(report, rows, tasks):
    drawing, axes = report.pyplot().subplots(1, len(rows), figsize=(4.6 * len(rows), 3.2), sharey=True, squeeze=False)
    for axis, row in zip(axes[0], rows):
        for colour, task in zip(report.PALETTE, tasks):
            found = shares(row, task)
            place = range(len(found))
            axis.plot(place, [each["accuracy"] for each in found], "o-", color=colour, label=task)
            low, high = ([each[end] for each in found] for end in ("low", "high"))
            axis.fill_between(place, low, high, color=colour, alpha=0.15)
        axis.set_title(row.title)
        axis.set_xlabel("layer, 0 the embedding")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(bottom=0)
    axes[0][0].set_ylabel("share in the mix, %")
    axes[0][0].legend()
    drawing.tight_layout()
    return report.svg(drawing)
