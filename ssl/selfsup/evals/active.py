"""What to label next: curves of a linear classifier's accuracy against the labels bought, by what asks for them.

Pool-based active learning (Settles 2009, "Active Learning Literature Survey", sections 2.3, 3 and 3.6) on frozen
features.
"""

from types import SimpleNamespace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F

from selfsup.arguments import Count, NotNegative, Range
from selfsup.core import rng
from selfsup.data.order import purchase
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent, students
from selfsup.evals.linear import Standardise, path, predict

title = "What to label next"
column = False                                           # but curves of its own
TIES, MEMBERS = 1, 2                                     # uses of the random numbers
BLOCK = 2**24                                            # distances held at once (64 MB)


def choose(
    encoder,
    data,
    start: Count,
    batch: Count,
    rounds: Count,
    repeats: Count,
    strategies: Annotated[list[Literal["least_confident", "margin", "entropy", "vote_entropy", "kl"]],
                          Range(min_length=1, distinct=True)],
    committee: Annotated[int, Range(ge=2, le=1000)],
    beta: NotNegative,
    weight_decay: Annotated[list[NotNegative], Range(min_length=1)],
):
    """Buys labels of train by each strategy and at random: `start` labels, of each class in turn, the same for all;
    then, `rounds` times, `batch` more, those that the last classifier (or a `committee` of such, each fitted on a
    bootstrap of what was bought) asks for most. All of it `repeats` times, from another start each. With beta also by
    each strategy times the information density to the power beta. The weight decay is chosen each time on as many
    labels of val as were bought. The strategy of `accuracy` is the one that is best there in the end."""
    features, labels = embed(encoder, data.train)
    held, truth = embed(encoder, data.val)
    labels, classes, last = labels.cpu(), len(data.card["classes"]), start + batch * rounds
    there = len(labels.unique())
    if start < there:
        raise UserError(f"active.start: {start} labels cannot hold one of each of {there} classes, and of a class "
                        "without any nobody asks for another")
    if last > len(labels):
        raise UserError(f"active: {start} labels and {rounds} rounds of {batch} are {last}, more than the "
                        f"{len(labels)} of {data.shards}")
    standardise = Standardise(features)                  # of the whole pool, for which no label is needed
    x, held = standardise(features), standardise(held)
    dense = density(x) if beta else torch.ones(len(x), device=x.device)
    ways = ["random", *strategies, *(f"dense_{name}" for name in strategies if beta)]
    found = {way: [] for way in ways}                    # of each repeat [(labels, classifier, accuracy on val)]
    for repeat in range(repeats):
        seed = int(rng.key(data.seed, repeat))
        order, of_val = purchase(labels, seed), purchase(truth.cpu(), seed)
        for way in ways:
            name = way.removeprefix("dense_")
            weight = dense**beta if way != name else torch.ones_like(dense)
            pool = SimpleNamespace(x=x, labels=labels.to(x.device), classes=classes, weight=weight, committee=committee,
                                   held=held[of_val], truth=truth[of_val], decays=weight_decay, seed=seed)
            found[way].append(list(bought(pool, order[:start], name, batch, rounds)))
    end = {way: sum(some[-1][2] for some in curves) / repeats for way, curves in found.items()}
    way = max(end, key=end.get)
    return SimpleNamespace(val_accuracy=percent(end[way]), way=way, found=found, standardise=standardise)


def test(encoder, data, chosen, bootstrap):
    """Yields, with all labels bought and by the `way` that is then best on val: accuracy, low, high (percent, test)
    and val_accuracy; and `curves`, {way: {labels: accuracy, low, high}}; `mean`, {way: the same of the mean over the
    rounds}, and `lead`, the same of the mean's lead over that of random, in points."""
    features, truth = embed(encoder, data.test)
    x = chosen.standardise(features)
    right = {way: {} for way in chosen.found}            # labels -> (N,), the share of repeats in which it is right
    for way, repeats in chosen.found.items():
        for points in zip(*repeats):
            told = [(predict(x, *solution) == truth).float() for _, solution, _ in points]
            right[way][points[0][0]] = torch.stack(told).mean(0)
    curves = {way: {str(n): dict(accuracy(some, bootstrap)) for n, some in points.items()}
              for way, points in right.items()}
    mean = {way: torch.stack(list(points.values())[1:]).mean(0) for way, points in right.items()}
    last = list(curves[chosen.way])[-1]
    yield from curves[chosen.way][last].items()
    yield "val_accuracy", chosen.val_accuracy
    yield "way", chosen.way
    yield "curves", curves
    yield "mean", {way: dict(accuracy(some, bootstrap)) for way, some in mean.items()}
    yield "lead", {way: dict(accuracy(some - mean["random"], bootstrap)) for way, some in mean.items()
                   if way != "random"}


def bought(pool, rows, name, batch, rounds):
    """Yields (labels, classifier, accuracy on val) with the labels of `rows` and after each round of a strategy."""
    rows = rows.to(pool.x.device)
    mixed = rng.permutation(len(pool.x), pool.seed, TIES).to(rows.device)  # of equals each is as likely
    for number in range(rounds + 1):
        x, labels = pool.x[rows], pool.labels[rows]
        held, truth = pool.held[:len(rows)], pool.truth[:len(rows)]
        solutions = path(x.clone(), labels, pool.classes, pool.decays)
        right = {decay: (predict(held, *solutions[decay]) == truth).float().mean().item() for decay in pool.decays}
        decay = max(right, key=right.get)
        yield len(rows), solutions[decay], right[decay]
        if number < rounds:
            rest = mixed[~torch.isin(mixed, rows)]
            members = [solutions[decay]]
            if name in COMMITTEES:
                keys = rng.key(pool.seed, MEMBERS, number, torch.arange(pool.committee))
                members = [fitted(x, labels, pool, decay, key) for key in keys]
            asked = torch.stack([(pool.x[rest] @ weight + bias).softmax(1) for weight, bias in members])
            score = torch.zeros(len(rest), device=rest.device) if name == "random" else SCORES[name](asked)
            rows = torch.cat([rows, rest[(score * pool.weight[rest]).argsort(descending=True, stable=True)[:batch]]])


def fitted(x, labels, pool, decay, key):
    """A classifier on a bootstrap of the labels; from another start alone it would be the same one."""
    rows = rng.randint(key, len(x), len(x)).to(x.device)
    return path(x[rows], labels[rows], pool.classes, [decay])[decay]


def least_confident(p):
    """1 − the probability of the likeliest class: (U,), of a single classifier's probabilities (1, U, classes)."""
    return 1 - p[0].amax(1)


def margin(p):
    """1 − the likeliest class's lead over the next: large where Settles' margin is small, and never negative."""
    first, second = p[0].topk(2, dim=1).values.T
    return 1 - (first - second)


def entropy(p):
    return torch.special.entr(p[0]).sum(1)


def vote_entropy(p):
    """Entropy of the shares of the members' votes (Dagan & Engelson 1995): (U,), of probabilities (members, U,
    classes)."""
    return torch.special.entr(F.one_hot(p.argmax(2), p.shape[2]).float().mean(0)).sum(1)


def kl(p):
    """Mean divergence of the members from what they say together (McCallum & Nigam 1998)."""
    return (torch.special.entr(p.mean(0)).sum(1) - torch.special.entr(p).sum(2).mean(0)).clamp(min=0)


COMMITTEES = ("vote_entropy", "kl")
SCORES = {score.__name__: score for score in (least_confident, margin, entropy, vote_entropy, kl)}


def density(x):
    """Mean similarity of each row of x (U, d) to all of the pool, itself too: (U,), 1 / (1 + Euclidean distance)."""
    blocks = x.split(max(1, BLOCK // len(x)))
    return torch.cat([(1 / (1 + torch.cdist(block, x))).mean(1) for block in blocks])


def notes(report, rows, options):
    yield (f"What to label next: a linear classifier on frozen features with {options['start']} labels and then "
           f"{options['rounds']} batches of {options['batch']}, each asked for by the classifier so far.")


def panel(report, rows, options):
    return report.Panel(
        "active", "What to label next",
        "Accuracy on test against labels bought: at random (dashed), or those that the classifier so far is least sure "
        "of, or a committee of classifiers disagrees on; times how near others lie, where it says dense.",
        sentences=list(leads(rows)), figure=figure(report, rows),
        table=report.crossed(rows, "active", lambda content: content["mean"], lambda way: f"{way}, mean of the curve"),
        remarks=list(remarks(options)))


def leads(rows):
    """How far each strategy's curve lies above that of random, in the mean; paired, since both start alike."""
    for row in rows:
        seeds, told = list(row.results["active"]["seeds"].values()), []
        for way in seeds[0]["lead"]:
            values = [seed["lead"][way] for seed in seeds]
            if len(seeds) > 1:
                middle, half = students([value["accuracy"] for value in values])
                low, high = middle - half, middle + half
            else:
                middle, low, high = (values[0][key] for key in ("accuracy", "low", "high"))
            told.append(f"{way} {middle:+.1f} [{low:.1f}, {high:.1f}]")
        yield f"{row.title}: points above random in the mean of the curve: {', '.join(told)}."


def figure(report, rows):
    """Label curves, a panel a run."""
    drawing, axes = report.pyplot().subplots(1, len(rows), figsize=(5.5 * len(rows), 3.6), squeeze=False)
    for axis, row in zip(axes[0], rows):
        curves = report.crossed([row], "active", lambda content: {
            f"{way} {n}": cell for way, points in content["curves"].items() for n, cell in points.items()}, str)
        seed = next(iter(row.results["active"]["seeds"].values()))
        cells = dict(zip(curves[0], curves[1][0][1]))
        for number, (way, points) in enumerate(seed["curves"].items()):
            n = sorted(map(int, points))
            some = [cells[f"{way} {count}"] for count in n]
            colour = report.INK if way == "random" else report.PALETTE[(number - 1) % len(report.PALETTE)]
            axis.plot(n, [cell["accuracy"] for cell in some], "--" if way == "random" else "-", color=colour,
                      linewidth=1.4, label=way)
            if way == "random":
                axis.fill_between(n, *([cell[key] for cell in some] for key in ("low", "high")), color=colour, alpha=.1,
                                  linewidth=0)
        axis.set_title(row.title)
        axis.set_xlabel("labels bought")
    axes[0][0].set_ylabel("accuracy on test, %")
    axes[0][-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    drawing.tight_layout()
    return report.svg(drawing)


def remarks(options):
    yield (f"The first {options['start']} labels hold each class in turn and are the same for every strategy; then "
           f"{options['rounds']} batches of {options['batch']}, from {options['repeats']} starts of each seed. Shaded: "
           "random's 95 % interval.")
    yield ("Weight decay is chosen each time on as many labels of val as were bought of train: who counts what it "
           "costs counts these, too.")
    yield (f"A committee has {options['committee']} members, each fitted on a bootstrap of the labels. "
           + (f"Dense: times the information density to the power {options['beta']:g}." if options["beta"] else ""))
