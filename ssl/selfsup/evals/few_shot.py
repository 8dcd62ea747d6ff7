"""New classes from a few examples: episodes of N ways and K shots (Vinyals et al. 2016).

https://arxiv.org/abs/1606.04080

The classes of val and test are new: training never saw them, or what is told would be how well they are remembered.
"""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call

from selfsup.arguments import Count, Positive, Range
from selfsup.core import rng
from selfsup.data.order import Episodes
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent
from selfsup.training import optim
from selfsup.training.episodes import adapted, for_each, nearest_mean

title = "Few-shot"
new_classes = True
perhaps = ("initial",)                                   # a part of the encoder folder, of maml
EPOCHS, BATCH, MOMENTUM, DECAY = 100, 4, 0.9, 0.001      # of an episode's classifier (Chen et al. 2019, their code)
CHUNK = 32                                               # episodes of which the samples are prepared at a time


def choose(
    encoder,
    data,
    ways: Annotated[int, Range(ge=2, le=2**20)],
    shots: Annotated[list[Count], Range(min_length=1, distinct=True)],
    queries: Count,
    episodes: Count,
    lr: Annotated[list[Positive], Range(min_length=1)],
    scale: Annotated[list[Positive], Range(min_length=1)],
    steps: Annotated[list[Count], Range(min_length=1)],
    initial=None,
):
    """Each way of learning an episode's classes, at each number of shots, its settings chosen by episodes of val's
    classes.

    prototypical: the nearest class mean (Snell et al. 2017). baseline: a new linear layer on frozen features, at one
    of the rates `lr`; baseline++: a cosine classifier, at one of these rates with one value of `scale` (Chen et al.
    2019, https://arxiv.org/abs/1904.04232). adapted, where the encoder comes with a classifier to start from,
    `initial`: both take one of the numbers of `steps` of gradient descent (Finn et al. 2017), at the rate that they
    were trained for. Episodes are those of the run's seed, the same for all encoders. val_accuracy is that of the way
    that is best on val at the first number of shots.
    """
    if initial is not None and initial.out_features != ways:
        raise UserError(f"few_shot.ways is {ways}, and the run was trained to tell {initial.out_features} classes "
                        "apart (args.ways)")
    grids = {"prototypical": [{}], "baseline": [{"lr": rate} for rate in lr],
             "baseline++": [{"lr": rate, "scale": by} for rate in lr for by in scale]}
    grids |= {"adapted": [{"steps": count} for count in sorted(steps)]} if initial is not None else {}
    asked = SimpleNamespace(ways=ways, shots=shots, queries=queries, episodes=episodes, initial=initial)
    found = {way: {} for way in grids}                   # shots -> (share of right answers on val, setting)
    for count, told in answers(encoder, data, "val", asked, {count: grids for count in shots}):
        for way, right in told.items():
            shares = [some.mean().item() for some in right]
            best = max(range(len(shares)), key=shares.__getitem__)
            found[way][count] = shares[best], grids[way][best]
    way = max(found, key=lambda way: found[way][shots[0]][0])
    return SimpleNamespace(val_accuracy=percent(found[way][shots[0]][0]), way=way, found=found, asked=asked)


def test(encoder, data, chosen, bootstrap):
    """Yields, at the first number of shots and by the `way` that is best there on val: accuracy, low, high (percent,
    test; a bootstrap over episodes) and val_accuracy; and for each way, by its name, {shots: accuracy, low, high,
    val_accuracy, setting}."""
    grids = {count: {way: [found[count][1]] for way, found in chosen.found.items()} for count in chosen.asked.shots}
    results = {way: {} for way in chosen.found}
    for count, told in answers(encoder, data, "test", chosen.asked, grids):
        for way, (right,) in told.items():
            val, setting = chosen.found[way][count]
            results[way][str(count)] = {**dict(accuracy(right, bootstrap)), "val_accuracy": percent(val), **setting}
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, results[chosen.way][str(chosen.asked.shots[0])][name]
    yield "way", chosen.way
    yield from results.items()


def answers(encoder, data, name, asked, grids):
    """Yields (shots, {way: [share of an episode's queries that is told rightly (E,), of each setting]}) of a split.

    grids: {shots: {way: settings}}."""
    split, initial = getattr(data, name), asked.initial
    features, labels = embed(encoder, split)
    column = None if initial is None else torch.cat([part[encoder.takes] for part in split.in_order()])
    # As many samples of a class whatever the shots are, so that the fewest shots are the first of the most.
    deal = Episodes(asked.ways, max(asked.shots), asked.queries)
    known = SimpleNamespace(folder=data.shards, name=name, numbers=lambda _: labels.cpu())
    index, _ = deal.over(known, data.seed)(torch.arange(asked.episodes))
    here, told = deal.apart(index.flatten())
    for count in asked.shots:
        support, query = features[here[:, :, :count]], features[told]
        found = {}
        for way, settings in grids[count].items():
            if way == "adapted":
                steps = [setting["steps"] for setting in settings]
                predicted = tell_adapted(encoder, initial, column, here[:, :, :count], told, steps)
            elif way == "prototypical":
                predicted = [nearest_mean(support, query).argmax(2)]
            else:
                predicted = [tell_linear(support, query, **setting) for setting in settings]
            truth = torch.arange(asked.ways, device=features.device).repeat_interleave(asked.queries)
            found[way] = [(some == truth).float().mean(1) for some in predicted]
        yield count, found


def tell_linear(support, query, lr, scale=None):
    """Classes (E, ways · queries) of query (E, ways, queries, d) by a linear layer, of each episode its own, trained on
    support (E, ways, shots, d); with a scale one of cosines.

    By the authors' budget, optimiser and start. In theirs a cosine's vectors keep a length that is learned: here the
    logits are scale · cosine, as in the paper. All episodes go through the same order of places, which are theirs at
    random.
    """
    episodes, ways, shots, width = support.shape
    x, label = support.flatten(1, 2), torch.arange(ways, device=support.device).repeat_interleave(shots)
    key = rng.key(0, torch.arange(episodes, device=support.device))
    weight, bias = ((2 * draw - 1) / width**0.5 for draw in (
        rng.uniform(key, ways, width, salt=0), rng.uniform(key, 1, ways, salt=1)))

    def logits(x):
        if scale is None:
            return x @ weight.transpose(1, 2) + bias
        return scale * F.normalize(x, dim=2) @ F.normalize(weight, dim=2).transpose(1, 2)

    trained = [weight.requires_grad_()] + ([bias.requires_grad_()] if scale is None else [])
    optimizer = optim.eager(torch.optim.SGD)(trained, lr=lr, momentum=MOMENTUM, dampening=MOMENTUM, weight_decay=DECAY)
    with torch.enable_grad():
        for epoch in range(EPOCHS):
            for rows in rng.permutation(len(label), 0, epoch).to(x.device).split(BATCH):
                wanted = label[rows].expand(episodes, -1).flatten()
                loss = F.cross_entropy(logits(x[:, rows]).flatten(0, 1), wanted, reduction="sum") / len(rows)
                loss.backward()                          # each episode's gradient is that of its own mean
                optimizer.step()
                optimizer.zero_grad()
    with torch.no_grad():
        return logits(query.flatten(1, 2)).argmax(2)


@torch.no_grad()
def tell_adapted(encoder, initial, column, here, told, steps):
    """[classes (E, ways · queries)] after each of the ascending numbers of steps. column: what the encoder takes, of
    all samples; here (E, ways, shots), told (E, ways, queries): positions in it."""
    net = nn.Sequential(encoder, initial)
    start = {name: value.detach() for name, value in net.named_parameters()}
    device = next(iter(start.values())).device
    label = torch.arange(here.shape[1], device=device).repeat_interleave(here.shape[2])

    def task(support, query):
        weights, done, found = start, 0, []
        for count in steps:
            weights = adapted(lambda w: F.cross_entropy(functional_call(net, w, support), label), weights, initial.rate,
                              count - done)
            found.append(functional_call(net, weights, query).argmax(1))
            done = count
        return torch.stack(found)

    def taken(rows):
        return encoder.prepare(column[rows.flatten()].to(device)).unflatten(0, (len(rows), -1))

    parts = [each for a, b in zip(here.split(CHUNK), told.split(CHUNK)) for each in for_each(task, taken(a), taken(b))]
    return torch.stack(parts).unbind(1)


def notes(report, rows, options):
    yield (f"Few-shot: {options['ways']} classes that training never saw are told apart by {options['shots'][0]} "
           f"examples each, in {options['episodes']:,} episodes of {options['queries']} queries a class; by the way "
           f"that is best on the classes of val. Chance is {100 / options['ways']:g} %. {report.CEILING.capitalize()} "
           "has learned the base classes alone: here it is no ceiling, but the baseline.")


def panel(report, rows, options):
    def cells(content):
        return {(count, way): content[way][str(count)] for way in WAYS if way in content for count in options["shots"]}

    table = report.crossed(rows, "few_shot", cells, lambda column: f"{column[0]}-shot, {column[1]}")
    return report.Panel(
        "few_shot", "New classes from a few examples",
        "Accuracy on classes that training never saw, by each way of learning an episode's classes: prototypical, the "
        "nearest class mean; baseline, a new linear layer on frozen features; baseline++, one of cosines; adapted, the "
        "network's own weights after a few steps, of what was trained for that.",
        table=table, remarks=list(remarks(rows, options)))


WAYS = ("prototypical", "baseline", "baseline++", "adapted")


def remarks(rows, options):
    yield (f"{options['episodes']:,} episodes a seed, the same for every run, of {options['ways']} classes with "
           f"{options['queries']} queries each. For one seed the intervals are over episodes, for several over seeds.")
    for count in options["shots"]:
        found = [seed[way][str(count)] for row in rows for seed in row.results["few_shot"]["seeds"].values()
                 for way in WAYS if way in seed]
        half = [(cell["high"] - cell["low"]) / 2 for cell in found]
        yield f"Over a seed's episodes the interval at {count}-shot is ± {min(half):.1f} to {max(half):.1f} points."
    yield (f"An episode's linear layers are trained as by Chen et al. 2019, {EPOCHS} epochs of batches of {BATCH}; "
           "their rate, the scale of cosines and the number of steps are chosen on the classes of val.")
