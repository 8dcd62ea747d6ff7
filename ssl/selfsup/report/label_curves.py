"""What labels buy: accuracy against labels and their price, a line a way of learning, and what each saves."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from selfsup import evals
from selfsup.report.figures import INK, MUTED, PALETTE, pyplot, svg
from selfsup.report.panels import Panel
from selfsup.report.price import annotation_cost, saved
from selfsup.report.rows import CEILING, FLOOR, SCRATCH

STROKES = "-", ":"
SHOWN = 0, 20, 40, 60, 80, 90, 95, 98, 99, 99.5, 99.9    # percent, on an axis by the logarithm of the error


@dataclass
class Curve:
    """Runs that differ in `labels` alone; or what a protocol makes of one with several numbers of labels."""

    rows: list
    way: str                                             # the protocol's word for how it judges
    points: dict                                         # labels -> {seed: result}
    scratch: bool = False                                # it is what the others are compared with

    @property
    def title(self):
        """The words that the titles of the runs begin with, and the way."""
        titles = [row.title.split("-") for row in self.rows]
        shared = [words[0] for words in zip(*titles) if len(set(words)) == 1]
        name = "-".join(shared) or self.rows[0].run.method
        return ", ".join(filter(None, (name, self.way, SCRATCH if self.scratch else "")))

    @property
    def accuracies(self):
        return {n: {seed: result["accuracy"] for seed, result in point.items()} for n, point in self.points.items()}


def panels(params, rows, cards):
    """The Panels of the label curves; [] where nothing can be compared with training from scratch."""
    groups = list(filter(None, map(beside_scratch, curves(params, rows, cards))))
    if not groups:
        return []
    cost, every = params.annotation, sorted({n for group in groups for curve in group for n in curve.points})
    table = [f"{n:,} labels" for n in every], [
        (told(curve), [evals.summarise(curve.points[n]) if n in curve.points else None for n in every])
        for group in groups for curve in group]
    text = ("Accuracy on test against labels of train, and above what these cost. A line is a way of learning, of runs "
            "that differ in the number of labels alone; a bar is its 95 % interval.")
    bought = Panel("labels", "What labels buy", text, table=table, figure=figure(groups, cost),
                   remarks=list(prices(cost)))
    every = sorted({n for group in groups for n in group[0].points})
    table = [f"{n:,} labels, {dollars(n, cost)}" for n in every], [
        (told(curve), [savings(curve, group[0], n, cost) for n in every]) for group in groups for curve in group[1:]]
    text = ("What a way of learning saves where it is as accurate as training from scratch is with so many labels. "
            "More than: it is as accurate with the fewest that it was given. Costs more than: it is not with the most. "
            "Blank: it was not given fewer.")
    remark = ("Each curve is made monotone and read between its points, linearly in the logarithm of labels; nothing "
              "is extrapolated. In brackets the 95 % interval, a bootstrap over seeds of both curves: of three seeds "
              "that is about from the one that saves least to the one that saves most. A question mark: of some seeds "
              "the curve does not get there.")
    return [bought, Panel("saved", "Dollars saved at equal accuracy", text, table=table, remarks=[remark])]


def curves(params, rows, cards):
    """The Curves of each data set and encoder, in the order of params.yaml, in lists."""
    groups = {}
    for row in rows:
        for protocol, result in row.results.items():
            by_labels = getattr(evals.load(protocol), "by_labels", None)
            for seed, content in result["seeds"].items() if by_labels else ():
                for way, points in by_labels(content).items():
                    group = groups.setdefault((row.run.data, json.dumps(row.run.encoder)), {})
                    curve = group.setdefault((protocol, way, recipe(params, row.run)), Curve([], way, {}))
                    curve.rows += [row] * (row not in curve.rows)
                    for n, found in points.items():
                        curve.points.setdefault(n or budget(row.run, cards[row.run.data]), {})[seed] = found
    return [list(group.values()) for group in groups.values()]


def recipe(params, run):
    """All that makes a run but the number of its labels; also of the runs that it starts from."""
    own = run.model_dump(exclude={"name", "seeds", "labels", "val_labels"})
    for key in ("init", "from_"):
        if own[key] in params.runs:
            own[key] = recipe(params, params.runs[own[key]])
    return json.dumps(own, sort_keys=True)


def budget(run, card):
    """How many labels a run may see: data.order.revealed."""
    there = card["counts"]["train"] - card.get("unlabelled", {}).get("train", 0)
    if isinstance(run.labels, float):
        return max(len(card["classes"]), round(run.labels * there))
    return run.labels or there


def beside_scratch(group):
    """The curves of a group, that of training from scratch first; None without it or others. It is the one of most
    points, of equals the last: a protocol names last how it trains the whole encoder."""
    own = [curve for curve in group if curve.rows[0].run.method == CEILING and not curve.rows[0].run.init]
    own = own or [curve for curve in group if curve.rows[0].run.method == FLOOR and not curve.rows[0].run.init]
    scratch = max(reversed(own), key=lambda curve: len(curve.points), default=None)
    if scratch is None or len(scratch.points) < 2 or len(group) < 2:
        return None
    scratch.scratch = True
    return [scratch, *(curve for curve in group if curve is not scratch)]


def told(curve):
    """Of a table's line."""
    return SimpleNamespace(title=curve.title, role="floor" if curve.scratch else "")


def savings(curve, scratch, labels, cost):
    """A cell: the dollars that a curve saves of the price of so many labels from scratch, in words."""
    found = labels in scratch.points and saved(curve.accuracies, scratch.accuracies, labels)
    if not found or found.least and found.labels <= 0:  # who starts with as many labels or more: nothing is known
        return None
    if found.labels is None:
        return f"costs more than {dollars(max(curve.points), cost)}"
    low, high = ("?" if bound is None else dollars(bound, cost) for bound in (found.low, found.high))
    bounds = "" if found.high is None or low == high else f" [{low}, {high}]"
    return f"{'more than ' * found.least}{dollars(found.labels, cost)}{bounds}"


def dollars(labels, cost):
    """$1,875.00, −$0.42: the price of so many labels."""
    value = annotation_cost(labels, cost.seconds, cost.wage)
    return f"{'−' * (round(value, 2) < 0)}${abs(value):,.2f}"


def at(cost):
    return f"{cost.seconds:g} s a label and ${cost.wage:g} an hour"


def prices(cost):
    def thousand(seconds):
        return f"${annotation_cost(1000, seconds, cost.wage):,.2f}"

    yield (f"At {at(cost)} a thousand labels cost {thousand(cost.seconds)}, a million "
           f"${annotation_cost(10**6, cost.seconds, cost.wage):,.0f}. By what is labelled, a thousand: "
           + ", ".join(f"{kind} {thousand(seconds)} ({seconds:g} s)" for kind, seconds in cost.kinds.items()) + ".")
    yield ("Labels of val, by which judges choose, are not in the price; how many they may see, the column Labels "
           "says. A method's own classifier is chosen by none.")


def figure(groups, cost):
    """A panel for each data set and encoder, with the price on an axis above."""
    drawing, axes = pyplot().subplots(len(groups), 1, figsize=(12, 5.2 * len(groups)), squeeze=False)
    for axis, group in zip(axes[:, 0], groups):
        scratch = group[0]
        most = max(scratch.points)
        best = evals.summarise(scratch.points[most])["accuracy"]
        axis.axhline(best, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
        axis.annotate(f"from scratch, {most:,} labels", (0.005, best), (0, 3), ("axes fraction", "data"),
                      "offset points", color=MUTED, fontsize=7.5)
        for number, curve in enumerate(group):
            line(axis, curve, INK if curve.scratch else PALETTE[(number - 1) % len(PALETTE)],
                 "--" if curve.scratch else STROKES[(number - 1) // len(PALETTE) % 2], (number - len(group) / 2) / 50)
        ticks = sorted(scratch.points)
        axis.set_xscale("log")
        axis.set_yscale("function", functions=(lambda y: -np.log10(np.maximum(100 - y, 0.05)), lambda z: 100 - 10**-z))
        every = [value for curve in group for point in curve.accuracies.values() for value in point.values()]
        low, high = max(0, min(every) - 5), min(99.95, 30 + 0.7 * max(every))
        axis.set_ylim(low, high)
        axis.set_yticks([value for value in SHOWN if low <= value <= high])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axis.minorticks_off()
        one = annotation_cost(1, cost.seconds, cost.wage)
        above = axis.secondary_xaxis("top", functions=(lambda n: n * one, lambda price: price / one))
        above.set_xticks([n * one for n in ticks], [dollars(n, cost) for n in ticks])
        above.minorticks_off()
        above.set_xlabel(f"price of the labels, at {at(cost)}")
        axis.set_xlabel("labels of train" if len(groups) < 2 else
                        f"labels of {scratch.rows[0].run.data}, {scratch.rows[0].architecture}")
        axis.set_ylabel("accuracy on test, %, by the logarithm of the error")
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    drawing.tight_layout(h_pad=2)
    return svg(drawing)


def line(axis, curve, colour, stroke, aside):
    """A curve, and its intervals a little `aside`, as a share of the labels, so that those of several can be seen."""
    labels = sorted(curve.points)
    low, middle, high = zip(*((point["low"], point["accuracy"], point["high"])
                              for point in (evals.summarise(curve.points[n]) for n in labels)))
    axis.plot(labels, middle, "o", linestyle=stroke, color=colour, markersize=4, linewidth=1.6, label=curve.title)
    axis.vlines([n * (1 + aside) for n in labels], low, high, colour, linewidth=1, alpha=0.6)
