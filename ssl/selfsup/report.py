"""The report: one page that compares an experiment's runs and opens offline, and its table in Markdown.

Everything in it is read from the encoder folders and result files; a run without results yet has blanks. Pictures of
data come from val only, never from test.
"""

import base64
import io
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from selfsup import config, evals
from selfsup import encoder
from selfsup.intervals import Value
from selfsup.errors import UserError

FLOOR, CEILING = "random", "supervised"                  # methods that bound those of the same encoder and data
SAMPLES = 1000                                           # val images that neighbours are looked for among
POINTS = 400                                             # of these, in the 2-D embedding
QUERIES, NEIGHBOURS = 5, 5
INK, MUTED, ACCENT, GOOD, BAD = "#1f2933", "#9aa5b1", "#2563a8", "#2f855a", "#c05621"
PALETTE = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac"]


@dataclass
class Row:
    """One run as the report shows it."""

    run: config.Run
    title: str                                           # the run's name without the experiment's
    folders: dict                                        # seed -> encoder folder, of those that exist
    results: dict                                        # protocol -> its result file's content, of those that exist
    cost: dict                                           # seed -> what training it cost
    note: str = ""                                       # what params say of it
    floor: "Row | None" = None
    ceiling: "Row | None" = None
    features: torch.Tensor | None = field(default=None, repr=False)  # unit rows, of the val sample

    @cached_property
    def info(self):
        """encoder.json of the first seed, or {}."""
        return json.loads((self.first / "encoder.json").read_text()) if self.first else {}

    @property
    def first(self):
        return next(iter(self.folders.values()), None)

    @property
    def role(self):
        return {FLOOR: "floor", CEILING: "ceiling"}.get(self.run.method, "")

    @property
    def architecture(self):
        return named(self.run.encoder)

    @property
    def history(self):
        """seed -> rows of history.jsonl."""
        return {seed: [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
                for seed, folder in self.folders.items()}

    def mean(self, key):
        """A cost, averaged over the seeds; None if it was not recorded."""
        values = [cost[key] for cost in self.cost.values() if cost.get(key) is not None]
        return sum(values) / len(values) if values else None

    def lead(self, protocol):
        """(mean, low, high) of this run's accuracy less its floor's, over the seeds that both have; None without any."""
        difference = Value.of(self.results[protocol]) - Value.of(self.floor.results[protocol])
        return difference.interval if difference.seeds else None

    @property
    def verdict(self):
        """Whether the run is above its floor on some protocol: (text, the protocols where it is)."""
        if self.role:
            return self.role, []
        shared = [p for p in PROTOCOL_TITLES if p in self.results and self.floor and p in self.floor.results]
        if not shared:
            return "", []
        above = [p for p in shared if self.lead(p) and self.lead(p)[1] > 0]
        return ("above floor" if above else "not above floor"), above


def named(encoder):
    """The configuration of an encoder in words: split (half convnet (width 8))."""
    details = ", ".join(f"{k} {named(v) if isinstance(v, dict) else v}" for k, v in encoder.items() if k != "name")
    return encoder["name"] + (f" ({details})" if details else "")


def build(params, root="."):
    """Write data/report/<experiment>/report.html and table.md below `root`; returns the path of the page."""
    root = Path(root)
    rows = collect(params, root)
    data = {name: evals.Data(root / "data/shards" / name, cache=root / "data/cache")
            for name in dict.fromkeys(row.run.data for row in rows)}
    samples = {name: Sample(of.val) for name, of in data.items()}
    embed(rows, samples)
    protocols = [name for name in type(params.protocols).model_fields
                 if name not in APART and any(name in row.results for row in rows)]
    page = render(params, rows, data, samples, protocols)
    out = root / "data/report" / params.experiment
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page, encoding="utf-8")
    (out / "table.md").write_text(markdown(params, rows, data, protocols), encoding="utf-8")
    return out / "report.html"


def collect(params, root):
    """The rows of the experiment in the order of params.yaml, each with its floor and its ceiling."""
    rows = []
    for name, run in params.runs.items():
        folder, results = root / config.encoders(name), root / config.results(name)
        seeds = {seed: folder / str(seed) for seed in encoder.seeds(folder) if seed in run.seeds}
        found = {path.stem: read(path) for path in sorted(results.glob("*.json"))}
        cost = found.pop("cost", {}).get("seeds", {})
        rows.append(Row(run, name.removeprefix(f"{params.experiment}-"), seeds, found, cost,
                        params.notes.get(name, "")))
    for row in rows:
        alike = [other for other in rows if (other.run.data, other.run.encoder) == (row.run.data, row.run.encoder)]
        row.floor = next((other for other in alike if other.role == "floor"), None)
        row.ceiling = next((other for other in alike if other.role == "ceiling"), None)
    return rows


def read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); get it back with git or `dvc repro`") from None


class Sample:
    """Up to SAMPLES images of a split, drawn by a fixed seed: images uint8 (n, C, H, W), labels (n,), as a split."""

    def __init__(self, split):
        chosen = np.random.default_rng(0).permutation(len(split))[:SAMPLES]
        place = {int(index): position for position, index in enumerate(chosen)}
        found = {}
        for part in split.in_order():
            for index, image, label in zip(part["index"].tolist(), part["image"], part["label"].tolist()):
                if index in place:
                    found[place[index]] = image.clone(), label
        self.images = torch.stack([found[i][0] for i in range(len(found))])
        self.labels = torch.tensor([found[i][1] for i in range(len(found))])
        self.classes = split.card["classes"]

    def in_order(self, batch=512):
        for image, label in zip(self.images.split(batch), self.labels.split(batch)):
            yield {"image": image, "label": label}


def embed(rows, samples):
    """Fill in `features` of the rows that have an encoder, from its first seed."""
    for row in rows:
        if row.first:
            features, _ = evals.embed(encoder.load(row.first), samples[row.run.data])
            row.features = F.normalize(features, dim=1)


# The table

PROTOCOL_TITLES = {"knn": "kNN", "linear": "Linear", "finetune": "Fine-tuned", "low_shot": "Few labels",
                   "layerwise": "Best layer", "retrieval": "Retrieval", "zero_shot": "Zero-shot"}
APART = ("low_shot", "layerwise")                        # protocols with a table or figure instead of a column
WAYS = {"finetune": "fine-tuned", "linear": "linear"}    # of learning from few labels
COSTS = {
    "images": ("Images seen", lambda v: f"{v:,.0f}"),
    "seconds": ("Wall time", lambda v: duration(v)),
    "peak_memory_mb": ("Peak memory", lambda v: f"{v:,.0f} MB"),
    "parameters": ("Parameters", lambda v: quantity(v)),
    "flops_per_image": ("FLOPs a sample", lambda v: quantity(v)),
}


def duration(seconds):
    """1 h 02 min, 3 min 05 s, 4.2 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {seconds:02d} s"


def quantity(value):
    """1.0 M, 35.1 M, 2.3 G; the number itself below a thousand."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def markdown(params, rows, data, protocols):
    """The table in Markdown."""
    head = ["Run", "Method", "Encoder", *(f"{PROTOCOL_TITLES[p]} %" for p in protocols), "Verdict",
            *(title for title, _ in COSTS.values())]
    align = ["---", "---", "---", *("---:" for _ in protocols), "---", *("---:" for _ in COSTS)]
    lines = [f"# {params.experiment}", "", *(f"{describe(of.card)}  " for of in data.values()), "",
             "| " + " | ".join(head) + " |", "| " + " | ".join(align) + " |"]
    for row in rows:
        scores = [row.results.get(p) for p in protocols]
        verdict, above = row.verdict
        cells = [row.title, row.run.method, row.architecture,
                 *(f"{s['accuracy']:.1f} [{s['low']:.1f}, {s['high']:.1f}]" if s else "" for s in scores),
                 f"{verdict} ({', '.join(PROTOCOL_TITLES[p] for p in above)})" if above else verdict,
                 *("" if (v := row.mean(k)) is None else show(v) for k, (_, show) in COSTS.items())]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {note}" for note in notes(params, rows, protocols))]
    lines += [f"- {row.title}: {row.note}" for row in rows if row.note]
    for title, found, tell in (("Few labels", few_labels(rows), few_labels_notes), ("Layer by layer", layers(rows), None)):
        if found:
            head, table = found
            lines += ["", f"## {title}", "", "| " + " | ".join(["Run", *head]) + " |",
                      "| " + " | ".join(["---", *("---:" for _ in head)]) + " |"]
            lines += ["| " + " | ".join([row.title, *map(interval, cells)]) + " |" for row, cells in table]
            lines += ["", *(f"- {note}" for note in tell(params, rows))] if tell else []
    return "\n".join(lines) + "\n"


def interval(result):
    """40.0 [36.0, 44.0]; nothing for None."""
    return f"{result['accuracy']:.1f} [{result['low']:.1f}, {result['high']:.1f}]" if result else ""


def few_labels(rows):
    """(headings, [(row, a result or None for each heading)]): each share of the labels, both ways. None without results."""
    def cells(content):
        return {(float(share), way): found for way in WAYS for share, found in content[way].items()}

    return crossed(rows, "low_shot", cells, lambda column: f"{column[0]:g} %, {WAYS[column[1]]}")


def layers(rows):
    """As few_labels, with a column for each layer."""
    def cells(content):
        return {int(layer): found for layer, found in content["layers"].items()}

    return crossed(rows, "layerwise", cells, "Layer {}".format)


def crossed(rows, protocol, cells, heading):
    """The table of a protocol with several results a run, each summarised over seeds, in the order of its columns.

    cells: what a seed's content says as {column: result}; heading: of a column.
    """
    table = []
    for row in rows:
        if protocol in row.results:
            seeds = {seed: cells(content) for seed, content in row.results[protocol]["seeds"].items()}
            columns = set.intersection(*map(set, seeds.values()))
            table.append((row, {c: evals.summarise({seed: found[c] for seed, found in seeds.items()}) for c in columns}))
    columns = sorted(set().union(*(found for _, found in table)))
    return ([heading(c) for c in columns], [(row, [found.get(c) for c in columns]) for row, found in table]) if table else None


def few_labels_notes(params, rows):
    p = params.protocols.low_shot
    yield ("The same labels for every run, as many of each class, those of a smaller share among those of a larger one. "
           "Linear: on frozen features. Fine-tuned: the whole encoder, on crops and flips of "
           f"{p.finetune.images:,} images seen at any share; weight decay and rate are chosen on val.")
    yield (f"Fine-tuning the {FLOOR} encoder is training from scratch on these labels alone: what the others are to be "
           f"compared with. The {CEILING} encoder has seen all labels before.")
    counts = {(row.run.data, share): found["labels"] for row in rows if "low_shot" in row.results
              for seed in row.results["low_shot"]["seeds"].values() for share, found in seed["linear"].items()}
    for data in dict.fromkeys(data for data, _ in counts):
        said = ", ".join(f"{share} % are {n:,}" for (of, share), n in counts.items() if of == data)
        yield f"Labels of {data}: {said}."


def listed(values):
    return ", ".join(f"{value:g}" for value in values)


def describe(card):
    """One line about a data set."""
    counts = card["counts"]
    return (f"Data set {card['name']}: {counts['train']:,} train / {counts['val']:,} val / {counts['test']:,} test "
            f"images of {card['size']} px, {len(card['classes'])} classes, hash {card['hash'][:12]}.")


def notes(params, rows, protocols):
    """How the numbers were made, in sentences."""
    several = any(len(row.run.seeds) > 1 for row in rows)
    p = params.protocols
    yield ("Accuracy on test, which is read once, with its 95 % interval: a bootstrap over test images"
           + ("; for a run of several seeds Student's t over the seeds." if several else "."))
    yield ("Verdict: above the floor if, on at least one protocol, the 95 % interval of the run's lead over "
           f"{FLOOR} initialisation with the same encoder, seed by seed, lies wholly above 0. The ceiling is the same encoder trained on all labels, for "
           "as many images seen.")
    if "knn" in protocols:
        yield (f"kNN: weighted nearest neighbours by cosine; on val chosen were k, of {listed(p.knn.k)}, and the "
               f"temperature, of {listed(p.knn.temperature)}.")
    if "linear" in protocols:
        yield ("Linear: logistic regression on frozen, standardised features, fitted on train; on val chosen was the "
               f"weight decay, of {listed(p.linear.weight_decay)}.")
    if "finetune" in protocols:
        f = p.finetune
        yield (f"Fine-tuned: the whole encoder and a linear classifier, trained on all labels for {f.images:,} images "
               f"seen, {f.optimizer}, crops and flips; on val chosen was the rate, of {listed(f.lr)}. For {FLOOR} "
               "initialisation that is training from scratch.")
    if "retrieval" in protocols:
        yield (f"Retrieval: of a test image's {p.retrieval.k[0]} nearest training images by cosine, how many are of its "
               "class; nothing is fitted or chosen.")
    if any("layerwise" in row.results for row in rows):
        yield "Best layer, in the verdict: as Linear, on the layer chosen on val."
    if any("low_shot" in row.results for row in rows):
        yield "Few labels, in the verdict: the smallest share, linear or fine-tuned, as chosen on val."
    if "zero_shot" in protocols:
        yield "Zero-shot: no label but the class's name in a prompt, chosen on val."
    yield "FLOPs a sample: forward and backward of one training step. Parameters: of the encoder alone."
    if any(row.note for row in rows):
        yield "What is said of a single run, as why it is not above the floor, is its author's judgement, not an experiment."


# The page


def render(params, rows, data, samples, protocols):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    best = {p: max((row.results[p]["accuracy"] for row in rows if p in row.results and not row.role), default=None)
            for p in protocols}
    blocks = {row.title: neighbours(row, samples[row.run.data]) for row in rows if row.features is not None}
    return pages.get_template("report.html").render(
        params=params, rows=rows, protocols=protocols, titles=PROTOCOL_TITLES, costs=COSTS, best=best,
        data={name: (of.card, describe(of.card), columns) for (name, of), columns in zip(data.items(), galleries(samples))},
        notes=list(notes(params, rows, protocols)), dots=dot_plot(rows, protocols), maps=maps(rows, samples),
        few=few_labels(rows), few_notes=list(few_labels_notes(params, rows)), depth=depth_plot(rows),
        collapse=collapse_plot(rows),
        legend=legend(samples),
        curves={row.title: curves(row) for row in rows}, neighbours=blocks,
        queries={name: sheet(sample.images[queries(sample)], 1) for name, sample in samples.items()},
        pictures={row.title: pictures(row) for row in rows}, prompts=prompt_plot(rows), precision_at=NEIGHBOURS,
    )


def png(pixels):
    """uint8 (H, W, 3) or (H, W) as a data URI."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return uri(file.getvalue())


def uri(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def pictures(row):
    """What the method drew: [(title, data URI, width in pixels of the screen)]."""
    from PIL import Image

    found = []
    for path in sorted((row.first / "pictures").glob("*.png")) if row.first else []:
        with Image.open(path) as image:
            zoom = max(1, min(3, round(560 / image.width)))
            found.append((path.stem.replace("_", " "), uri(path.read_bytes()), image.width * zoom))
    return found


def sheet(images, columns, marks=None):
    """Contact sheet (data URI, width) of images uint8 (n, C, H, W), framed green where `marks` (n,) holds."""
    n, _, h, w = images.shape
    frame = 1
    tiles = np.full((n, h + 2 * frame, w + 2 * frame, 3), 255, np.uint8)
    if marks is not None:
        tiles[np.asarray(marks)] = [int(GOOD[i:i + 2], 16) for i in (1, 3, 5)]
    tiles[:, frame:-frame, frame:-frame] = images.permute(0, 2, 3, 1).numpy()
    tiles = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = n // columns
    pixels = tiles.reshape(rows, columns, *tiles.shape[1:]).transpose(0, 2, 1, 3, 4)
    pixels = pixels.reshape(rows * tiles.shape[1], columns * tiles.shape[2], 3)
    return png(pixels), pixels.shape[1] * max(1, 72 // w)


def galleries(samples):
    """The gallery of each data set, none where another data set of the same val images has been shown already."""
    shown = []
    for sample in samples.values():
        again = any(torch.equal(sample.images, other.images) for other in shown)
        yield [] if again else gallery(sample)
        shown.append(sample)


def gallery(sample, classes=10, each=4):
    """[(class name, its first val images as a column)] of the first classes."""
    shown = []
    for label, name in enumerate(sample.classes[:classes]):
        images = sample.images[sample.labels == label][:each]
        if len(images):
            shown.append((name, *sheet(images, 1)))
    return shown


def queries(sample):
    """Positions of the images whose neighbours are shown: one for each of the first classes."""
    first = [(sample.labels == label).nonzero()[:1, 0] for label in sample.labels.unique()]
    return torch.cat(first)[:QUERIES]


def neighbours(row, sample):
    """(sheet of the queries' nearest val images, its width, precision in percent over all val images of the sample)."""
    similarity = row.features @ row.features.T
    similarity.fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(NEIGHBOURS, len(similarity) - 1), dim=1).indices
    right = sample.labels[nearest] == sample.labels[:, None]
    shown = queries(sample)
    picture, width = sheet(sample.images[nearest[shown].flatten()], nearest.shape[1], right[shown].flatten())
    return picture, width, 100 * right.float().mean().item()


def pyplot():
    """Matplotlib in the report's style. Text stays text, and the same figure gives the same bytes."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "selfsup", "font.family": "sans-serif", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
        "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": INK,
        "text.color": INK, "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8, "ytick.labelsize": 8,
        "axes.grid": True, "grid.color": "#e4e7eb", "grid.linewidth": 0.8, "axes.axisbelow": True,
        "legend.edgecolor": "none", "legend.fontsize": 7.5, "figure.facecolor": "none", "axes.facecolor": "none",
    })
    import matplotlib.pyplot as plt

    return plt


def svg(figure):
    """The figure as an <svg> element."""
    from markupsafe import Markup

    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    pyplot().close(figure)
    text = file.getvalue()
    return Markup(text[text.index("<svg"):])


def dot_plot(rows, protocols):
    """Accuracy and interval of each run, one panel a protocol, between the lines of its encoder's floor and ceiling."""
    rows = sorted((row for row in rows if row.results), key=lambda row: (row.run.data, str(row.run.encoder)))
    panels = [p for p in protocols if sum(p in row.results for row in rows) > 1]
    if not panels:
        return None
    figure, axes = pyplot().subplots(1, len(panels), figsize=(5.2 * len(panels), 0.8 + 0.27 * len(rows)), sharey=True,
                                     squeeze=False)
    for axis, protocol in zip(axes[0], panels):
        axis.set_title(f"{PROTOCOL_TITLES[protocol]}: accuracy on test, %")
        axis.grid(axis="y", visible=False)
        for y, row in enumerate(rows):
            if not y or row.run.encoder != rows[y - 1].run.encoder:
                axis.axhline(y - 0.5, color=MUTED, linewidth=0.6)
            for bound, colour in ((row.floor, BAD), (row.ceiling, GOOD)):
                if bound and protocol in bound.results:
                    axis.vlines(bound.results[protocol]["accuracy"], y - 0.5, y + 0.5, colour, (0, (2, 2)), linewidth=1)
            if protocol in row.results:
                result = row.results[protocol]
                colour = {"floor": BAD, "ceiling": GOOD, "": ACCENT}[row.role]
                axis.hlines(y, result["low"], result["high"], colour, linewidth=2)
                axis.plot(result["accuracy"], y, "o", color=colour, markersize=5)
        axis.tick_params(length=0)
        axis.spines["left"].set_visible(False)
    for y, row in enumerate(rows):
        if not y or row.run.encoder != rows[y - 1].run.encoder:
            axes[0][-1].annotate(row.architecture.replace(" (", "\n("), (1.02, y), xycoords=("axes fraction", "data"),
                                 va="center", color=MUTED, fontsize=8)
    axes[0][0].set_yticks(range(len(rows)), [row.title for row in rows])
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
    figure.tight_layout(w_pad=3)
    return svg(figure)


def panels(names):
    """{panel: its curves} of recorded names. `val_x` belongs to `x`, and a name that extends another's, as
    error_mean_colour does error, is what that one is compared with: they share a panel. Loss first, rate last."""
    plain = list(dict.fromkeys(name.removeprefix("val_") for name in names))
    grouped = {}
    for name in sorted(plain, key=lambda name: (name == "lr", name != "loss", plain.index(name))):
        home = next((other for other in plain if name.startswith(f"{other}_")), name)
        grouped.setdefault(home, [home])
        grouped[home] += [name] * (name != home)
    return grouped


CURVE_TITLES = {"lr": "learning rate", "std": "std of unit embeddings × √d", "rank": "effective rank"}


def curves(row):
    """Everything that training recorded, against images seen."""
    history = row.history
    names = list(dict.fromkeys(name for lines in history.values() for line in lines for name in line))
    grouped = panels([name for name in names if name not in ("step", "images")])
    if not grouped:
        return None
    columns = 4
    height = math.ceil(len(grouped) / columns)
    figure, axes = pyplot().subplots(height, columns, figsize=(12, 2.1 * height), squeeze=False)
    for axis in axes.flat[len(grouped):]:
        axis.remove()
    for axis, (title, members) in zip(axes.flat, grouped.items()):
        axis.set_title(CURVE_TITLES.get(title, title.replace("_", " ")))
        for number, name in enumerate(members):
            label = name.removeprefix(title + "_").replace("_", " ")
            labels = (label, f"{label}, val") if len(members) > 1 else ("train", "val")
            for order, lines in enumerate(history.values()):
                colour = [ACCENT, BAD, GOOD, "#805ad5"][number % 4]
                x, y = points(lines, name)
                axis.plot(x, y, color=colour, linewidth=1.2, alpha=1 if not order else 0.45,
                          marker="o" if len(x) == 1 else None, markersize=4, label=None if order else labels[0])
                x, y = points(lines, f"val_{name}")
                axis.plot(x, y, "D", color=colour, markersize=5, markerfacecolor="white", markeredgewidth=1.4,
                          label=labels[1] if len(x) and not order else None)
        if len(axis.get_legend_handles_labels()[1]) > 1:
            axis.legend(handlelength=1.2)
        axis.xaxis.set_major_formatter(lambda value, _: quantity(value))
        axis.margins(x=0.03)
    axes[0][0].set_xlabel("images seen")
    figure.tight_layout(h_pad=1.5)
    return svg(figure)


def collapse_plot(rows):
    """How far the embeddings of the methods that record it spread, over training: at 0 and 1 they have collapsed."""
    rows = [row for row in rows if any("rank" in line for lines in row.history.values() for line in lines)]
    if not rows:
        return None
    figure, axes = pyplot().subplots(1, 2, figsize=(12, 3.2))
    for axis, name in zip(axes, ("std", "rank")):
        axis.set_title(CURVE_TITLES[name])
        for number, row in enumerate(rows):
            for order, lines in enumerate(row.history.values()):
                x, y = points(lines, name)
                axis.plot(x, y, ("-", "--", ":")[number // len(PALETTE) % 3], color=PALETTE[number % len(PALETTE)],
                          linewidth=1.3, alpha=1 if not order else 0.45, label=None if order else row.title)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("images seen")
        axis.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    return svg(figure)


def depth_plot(rows):
    """Accuracy of a linear classifier on each layer, a panel for each encoder and data set. None without results."""
    groups = {}
    for row in rows:
        if "layerwise" in row.results:
            groups.setdefault((row.run.data, row.architecture), []).append(row)
    if not groups:
        return None
    several = len({data for data, _ in groups}) > 1
    figure, axes = pyplot().subplots(1, len(groups), figsize=(6.5 * len(groups), 3.4), sharey=True, squeeze=False)
    for axis, ((data, architecture), members) in zip(axes[0], groups.items()):
        colours = iter(PALETTE * len(members))
        for row, cells in layers(members)[1]:
            low, middle, high = ([cell[key] for cell in cells if cell] for key in ("low", "accuracy", "high"))
            depth = range(1, len(middle) + 1)
            colour = {"floor": BAD, "ceiling": GOOD}.get(row.role) or next(colours)
            axis.plot(depth, middle, "o--" if row.role else "o-", color=colour, markersize=4, linewidth=1.5, label=row.title)
            axis.fill_between(depth, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set_title(f"{data}: {architecture}" if several else architecture)
        axis.set_xlabel("layer, 1 nearest to the image")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(loc="upper left")
    axes[0][0].set_ylabel("accuracy on test, %")
    figure.tight_layout()
    return svg(figure)


def points(lines, name):
    found = [(line["images"], line[name]) for line in lines if name in line]
    return tuple(zip(*found)) if found else ((), ())


def maps(rows, samples):
    """The features of every run in two dimensions, coloured by class: a picture (data URI, width), or None."""
    rows = [row for row in rows if row.features is not None]
    if not rows:
        return None
    from sklearn.manifold import TSNE

    columns = 4
    height = math.ceil(len(rows) / columns)
    plt = pyplot()
    figure, axes = plt.subplots(height, columns, figsize=(12, 3.1 * height), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, row in zip(axes.flat, rows):
        sample, features = samples[row.run.data], row.features[:POINTS].numpy()
        tsne = TSNE(perplexity=min(30, (len(features) - 1) / 3), init="pca", max_iter=400, random_state=0)
        x, y = tsne.fit_transform(features).T
        colours = np.array(PALETTE)[sample.labels[:POINTS].numpy() % len(PALETTE)]
        axis.scatter(x, y, c=colours, s=9, linewidths=0)
        axis.set_title(row.title)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return uri(file.getvalue())


def legend(samples):
    """[(colour, class)] of the 2-D embedding, where each class has a colour of its own."""
    classes = [sample.classes for sample in samples.values()]
    return list(zip(PALETTE, classes[0])) if len(classes) == 1 and len(classes[0]) <= len(PALETTE) else []


def prompt_plot(rows):
    """(figure, sentences): val accuracy under each prompt and test accuracy of the chosen one. None without results."""
    rows = [row for row in rows if "zero_shot" in row.results]
    if not rows:
        return None
    sentences = []
    figure, axes = pyplot().subplots(1, len(rows), figsize=(7.5 * len(rows), 3), squeeze=False)
    for axis, row in zip(axes[0], rows):
        result = next(iter(row.results["zero_shot"]["seeds"].values()))
        shown = sorted(result["prompts"].items(), key=lambda item: item[1])
        sentences.append(
            f"{row.title}, “{result['prompt']}”: {result['accuracy']:.1f} % on test [{result['low']:.1f}, "
            f"{result['high']:.1f}], {'above' if result['low'] > result['chance'] else 'not above'} chance, which is "
            f"{result['chance']:.1f} %. On val the wording moves it from {shown[0][1]:.1f} to {shown[-1][1]:.1f} %.")
        shown.append(("all together", result["ensemble"]["val_accuracy"]))
        for y, (prompt, accuracy) in enumerate(shown):
            axis.plot(accuracy, y, "o", color=GOOD if prompt == result["prompt"] else ACCENT)
            axis.annotate(f"{accuracy:.1f}", (accuracy, y), (7, -3), textcoords="offset points", fontsize=8)
        axis.axvline(result["chance"], color=BAD, linestyle=(0, (2, 2)), linewidth=1)
        axis.annotate("chance", (result["chance"], 0), (4, -3), textcoords="offset points", color=BAD, fontsize=8)
        axis.set_yticks(range(len(shown)), [prompt for prompt, _ in shown])
        axis.set_title(f"{row.title}: accuracy on val by prompt, %")
        axis.set_xlim(left=0)
    figure.tight_layout()
    return svg(figure), sentences
