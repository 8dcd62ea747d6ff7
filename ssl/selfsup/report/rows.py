"""What the report is made of: a row a run, with all that was found of it, and a sample of each data set."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from selfsup import artefacts, config, encoder, evals
from selfsup.core import curves
from selfsup.intervals import Value

FLOOR, CEILING = "random", "supervised"                  # methods that bound those of the same encoder, data and labels
SCRATCH = "from scratch"                                 # what that ceiling is where labels are few, and no bound
SAMPLES = 1000                                           # val images that neighbours are looked for among
SHOWN = ("image", "label", "sound", "frames", "flow", "mask", "boxes", "points", "transform")  # columns


@dataclass
class Row:
    """One run as the report shows it."""

    run: config.Run
    title: str                                           # the run's name without the experiment's
    folders: dict                                        # seed -> encoder folder, of those that exist
    results: dict                                        # protocol -> its result file's content, of those that exist
    cost: dict                                           # seed -> what training it cost
    note: str = ""                                       # what params say of it
    elsewhere: dict = field(default_factory=dict)        # as results, of each data set that is not the run's own
    floor: "Row | None" = None
    ceiling: "Row | None" = None
    features: torch.Tensor | None = field(default=None, repr=False)  # unit rows, of the val sample

    @cached_property
    def info(self):
        """encoder.json of the first seed, or {}."""
        return artefacts.encoder(self.first) if self.first else {}

    @property
    def first(self):
        return next(iter(self.folders.values()), None)

    @property
    def few(self):
        """Whether the run and its judges see a part of the labels only; 1.0 are all."""
        return self.run.labels is not None and not (isinstance(self.run.labels, float) and self.run.labels == 1)

    @property
    def labels(self):
        """How many labels the run and its judges see, in words: 250, val 250; 10 %, val all; all."""
        if not self.few:
            return "all"
        shown = f"{self.run.labels:,}" if isinstance(self.run.labels, int) else f"{100 * self.run.labels:g} %"
        return f"{shown}, val {'as many' if self.run.val_labels == 'same' else 'all'}"

    @property
    def role(self):
        ceiling = SCRATCH if self.few else "ceiling"
        return {FLOOR: "floor", CEILING: ceiling}.get(self.run.method, "")

    @property
    def architecture(self):
        return named(self.run.encoder)

    @property
    def history(self):
        """seed -> rows of history.jsonl."""
        return {seed: artefacts.rows(folder / "history.jsonl") for seed, folder in self.folders.items()}

    @property
    def texts(self):
        """What the first seed's method wrote: {title: {"headings", "rows"}}."""
        file = self.first and self.first / "texts.json"
        return artefacts.texts(file) if file and file.exists() else {}

    @property
    def curve(self):
        """What the curves say, in a sentence, seeds of another verdict by themselves; "" where there are none."""
        told = {}
        for seed, found in ((seed, curves.said(rows)) for seed, rows in self.history.items()):
            if found:
                told.setdefault(found[0], []).append((seed, found[1]))
        many = len(told) > 1
        parts = [(f"seed{'s' * (len(seeds) > 1)} {', '.join(str(seed) for seed, _ in seeds)}: " if many else "")
                 + f"{verdict} ({'; '.join(seeds[0][1])})" for verdict, seeds in told.items()]
        return " · ".join(parts)

    def mean(self, key):
        """A cost, averaged over the seeds; None if it was not recorded."""
        values = [cost[key] for cost in self.cost.values() if cost.get(key) is not None]
        return sum(values) / len(values) if values else None

    def above(self, other):
        """The protocols by which this run is above another: the interval of its accuracy less the other's, over the
        seeds that both have, lies wholly above 0."""
        shared = [p for p in self.results if p in other.results]
        leads = {p: Value.of(self.results[p]) - Value.of(other.results[p]) for p in shared}
        return [p for p, lead in leads.items() if lead.seeds and (lead.interval[1] or 0) > 0]

    def share(self, protocol):
        """This run's accuracy as a percentage of its ceiling's; None without either."""
        own, ceiling = self.results.get(protocol), self.ceiling and self.ceiling.results.get(protocol)
        return 100 * own["accuracy"] / ceiling["accuracy"] if own and ceiling and ceiling["accuracy"] else None

    @property
    def verdict(self):
        """Whether the run is above its floor on some protocol: (text, the protocols where it is). Of a run with few
        labels the bound is training from scratch on the same ones, where that is there."""
        if self.role:
            return self.role, []
        bound, name = (self.ceiling, SCRATCH) if self.few and self.ceiling else (self.floor, "floor")
        if not bound and self.results:
            return f"no {name} with {'these labels' if self.few else 'this encoder'}", []
        if not bound or not set(self.results) & set(bound.results):
            return "", []
        above = self.above(bound)
        return (f"above {name}" if above else f"not above {name}"), above


def named(encoder):
    """The configuration of an encoder in words: split (half convnet (width 8))."""
    details = ", ".join(f"{k} {named(v) if isinstance(v, dict) else v}" for k, v in encoder.items() if k != "name")
    return encoder["name"] + (f" ({details})" if details else "")


def collect(params, root):
    """The rows of the experiment in the order of params.yaml, each with its floor and its ceiling."""
    rows = []
    for name, run in params.runs.items():
        folder, results = root / config.encoders(name), root / config.results(name)
        seeds = {seed: folder / str(seed) for seed in encoder.seeds(folder) if seed in run.seeds}
        cost = artefacts.costs(results / "cost.json")["seeds"] if (results / "cost.json").exists() else {}
        others = {data: judged(params, results / data) for data in params.datasets if data != run.data}
        rows.append(Row(run, name.removeprefix(f"{params.experiment}-"), seeds, judged(params, results), cost,
                        params.notes.get(name, ""), {data: found for data, found in others.items() if found}))
    for row in rows:
        alike = [other for other in rows if (other.run.data, other.run.encoder) == (row.run.data, row.run.encoder)
                 and other.labels == row.labels]
        row.floor = next((other for other in alike if other.run.method == FLOOR), None)
        row.ceiling = next((other for other in alike if other.run.method == CEILING), None)
    return rows


def judged(params, folder):
    """{protocol: its result file's content} in the order of params.yaml, without what was skipped for want of labels."""
    files = {protocol: folder / f"{protocol}.json" for protocol in options(params)}
    found = {protocol: artefacts.result(file) for protocol, file in files.items() if file.exists()}
    return {protocol: content for protocol, content in found.items() if "skipped" not in content}


def options(params):
    """{protocol: its section of params.yaml}."""
    return {protocol: section.model_dump() for protocol, section in dict(params.protocols).items()}


def labelled(card):
    """Whether a data set has labels to judge by."""
    return "label" in card["columns"] and card.get("unlabelled", {}).get("val") != card["counts"]["val"]


def needed(rows, card):
    """The columns of a data set that are shown or that an encoder takes."""
    takes = {encoder.load(row.first).takes for row in rows if row.first and row.run.data == card["name"]}
    return [column for column in card["columns"] if column in {*SHOWN, *takes}]


class Sample:
    """Up to SAMPLES samples of a split, drawn by a fixed seed: `columns`, tensors (n, …), of these `images` uint8
    (n, C, H, W) or None and `labels` (n,). Samples without a label are left out, unless none has one: then all labels are -1.
    """

    def __init__(self, split):
        chosen = np.random.default_rng(0).permutation(len(split))[:SAMPLES]
        place = {int(index): position for position, index in enumerate(chosen)}
        found = {}
        for part in split.in_order():
            names = [name for name, value in part.items() if name not in ("index", "epoch") and torch.is_tensor(value)]
            for row, index in enumerate(part["index"].tolist()):
                if index in place:
                    found[place[index]] = {name: part[name][row].clone() for name in names}
        samples = [{"label": torch.tensor(-1), **found[i]} for i in range(len(found))]
        seen = [sample for sample in samples if sample["label"] >= 0]
        self.labelled = bool(seen)
        self.columns = {name: torch.stack([sample[name] for sample in seen or samples]) for name in samples[0]}
        self.images, self.labels = self.columns.get("image"), self.columns["label"]
        self.classes = split.card.get("classes") or []

    def __len__(self):
        return len(self.labels)

    def in_order(self, batch=512):
        for first in range(0, len(self), batch):
            yield {name: column[first:first + batch] for name, column in self.columns.items()}


def embed(rows, samples):
    """Fill in `features` of the rows that have an encoder, from its first seed."""
    for row in rows:
        if row.first:
            features, _ = evals.embed(encoder.load(row.first), samples[row.run.data])
            row.features = F.normalize(features, dim=1)
