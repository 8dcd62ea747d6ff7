"""The main table, in words and in Markdown."""

import html
import re

import selfsup.data
from selfsup import evals
from selfsup.data import tars
from selfsup.report import panels
from selfsup.report.rows import CEILING, FLOOR, labelled

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


def markdown(params, rows, cards, shown, notes):
    """The main table, `notes` and the tables of the panels `shown`, in Markdown."""
    columns, shared = panels.columns(params, rows), panels.shared(params, rows)
    share = [f"{panels.title(shared)}, % of {panels.bound(rows)}"] if shared else []
    few = ["Labels"] if any(row.few for row in rows) else []
    head = ["Run", "Method", "Encoder", *few, *(f"{title} %" for title in columns.values()), *share, "Verdict",
            *(title for title, _ in COSTS.values())]
    align = ["---", "---", "---", *("---" for _ in few), *("---:" for _ in (*columns, *share)), "---", *("---:" for _ in COSTS)]
    lines = [f"# {params.experiment}", "", *(f"{literal(describe(card))}  " for card in cards.values()), "",
             _line(head), _line(align)]
    for row in rows:
        verdict, above = row.verdict
        cells = [row.title, row.run.method, row.architecture, *(row.labels for _ in few),
                 *(interval(row.results.get(p)) for p in columns),
                 *("" if (v := row.share(shared)) is None else f"{v:.1f}" for _ in share),
                 f"{verdict} ({', '.join(map(panels.title, above))})" if above else verdict,
                 *("" if (v := row.mean(k)) is None else show(v) for k, (_, show) in COSTS.items())]
        lines.append(_line(cells))
    lines += ["", *(f"- {literal(note)}" for note in notes)]
    lines += [f"- {literal(row.title)}: {literal(row.note)}" for row in rows if row.note]
    for panel in shown:
        if panel.table:
            head, table = panel.table
            lines += ["", f"## {literal(panel.title)}", "", _line(["Run", *head]), _line(["---", *("---:" for _ in head)])]
            lines += [_line([row.title, *(interval(cell, panel.digits) for cell in cells)]) for row, cells in table]
            lines += ["", *(f"- {literal(note)}" for note in panel.remarks)] if panel.remarks else []
    return "\n".join(lines) + "\n"


def _line(cells):
    return "| " + " | ".join(map(literal, cells)) + " |"


def literal(text):
    """A text so that Markdown shows it as it is, on one line: names, captions and notes are data, as they are in HTML."""
    text = re.sub(r"([\\`*|]|\](?=[(\[:]))", r"\\\1", " ".join(str(text).splitlines()))
    return html.escape(text, quote=False)


def interval(result, digits=1):
    """40.0 [36.0, 44.0]; nothing for None, and a text as it is."""
    if not result or isinstance(result, str):
        return result or ""
    mean, low, high = (f"{result[key]:.{digits}f}" for key in ("accuracy", "low", "high"))
    return f"{mean} [{low}, {high}]"


def describe(card):
    """One line about a data set."""
    counts = card["counts"]
    classes, missing = f"{len(card['classes'])} classes", sum(card.get("unlabelled", {}).values())
    if missing:
        classes += f" ({missing:,} without a label)"
    if not labelled(card):
        classes = "no labels"
    samples = f"images of {card['size']} px" if card["size"] else "texts" if "text" in card["columns"] else "samples"
    return (f"Data set {card['name']}: {counts['train']:,} train / {counts['val']:,} val / {counts['test']:,} test "
            f"{samples}, {classes}, hash {card['hash'][:12]}.")


def notes(params, rows, cards):
    """How the numbers were made, in sentences."""
    several = any(len(row.run.seeds) > 1 for row in rows)
    if not all(map(evals.lacking, cards.values())):
        yield ("Accuracy on test, which is read once, with its 95 % interval: a bootstrap over test images"
               + ("; for a run of several seeds Student's t over the seeds." if several else "."))
        yield ("Verdict: above the floor if, on at least one protocol, the 95 % interval of the run's lead over "
               f"{FLOOR} initialisation with the same encoder, seed by seed, lies wholly above 0. The ceiling is the same "
               "encoder trained on all labels, for as many images seen.")
    if any(row.verdict[0].startswith("no ") for row in rows):
        yield (f"No floor with this encoder, or with these labels: what {FLOOR} initialisation of the same encoder, data and labels "
               f"is worth was not measured, so nothing can be said of a lead over it; a run of `method: {FLOOR}` with them has it "
               "measured.")
    yield from two_seeds(params, rows)
    if any(row.few for row in rows):
        yield ("Labels: how many of train a run and its judges see, as balanced as the classes; the same for every run "
               "of a seed. Choices are made by all labels of val, or by as many as of train, since who has few labels "
               f"has none to choose by (Oliver et al. 2018). Such a run is compared with {FLOOR} and {CEILING} of the "
               f"same labels alone. There {CEILING} is training from scratch on them, which is no ceiling: above it is "
               "who learns from the rest.")
    if shared := panels.shared(params, rows):
        yield (f"{panels.title(shared)}, % of {panels.bound(rows)}: the run's accuracy over that of {CEILING} with the same encoder "
               "on the same data, so that runs on data of other quality can be compared too.")
    for name, card in cards.items():
        if lacking := evals.lacking(card):
            yield f"Data set {name}: {lacking}: what is trained on it has curves and pictures, no accuracy and no verdict."
        if new := card.get("new_classes"):
            yield f"Data set {name}: train has no class of {' and '.join(new)}, so what learns classes from train is not asked."
        if not card["counts"]["val"]:
            yield f"Pictures of {name} are of its training split."
        yield from selfsup.data.twins(card)
    yield from panels.notes(params, rows)
    yield "FLOPs a sample: forward and backward of one training step. Parameters: of the encoder alone."
    if any(row.note for row in rows):
        yield ("What is said of a single run, as why it is not above the floor or what others have published, is its author's "
               "word, not an experiment.")


def two_seeds(params, rows):
    """Why intervals over two seeds are wide, and what they are by test samples alone; nothing where there are none."""
    found = []
    for row in rows:
        for protocol in panels.columns(params, rows):
            seeds = list(row.results.get(protocol, {}).get("seeds", {}).values())
            if len(seeds) == 2:
                low, high = (sum(seed[end] for seed in seeds) / 2 for end in ("low", "high"))
                found.append(f"{row.title} {panels.title(protocol)} [{low:.1f}, {high:.1f}]")
    if found:
        from scipy.special import stdtrit  # imported here: it takes a second

        two, three, five = (stdtrit(seeds - 1, 0.975) for seeds in (2, 3, 5))
        yield (f"Two seeds leave an interval wide, whatever was found: Student's t takes their standard error times {two:.1f}, "
               f"that of three seeds times {three:.1f}, of five times {five:.1f}. A third one (`seeds: [0, 1, 2]`) narrows it most. "
               f"By test samples alone, without what another seed would change, it is {', '.join(found)}.")


def overlaps(rows, root):
    """How many test images stand in the shards that an encoder was trained on, in sentences; nothing where none does, or
    where it is unknown."""
    for judged, trained in sorted({(data, row.run.data) for row in rows for data in (row.run.data, *row.elsewhere)}):
        if judged == trained and "twins" in tars.card_of(root / "data/shards" / judged):
            continue  # told by `notes`
        found = selfsup.data.shared(root / "data/shards" / judged, "test", root / "data/shards" / trained, "train")
        if found:
            yield (f"Test images of {judged} that stand in the training split of {trained}, value by value: {found:,}. Encoders "
                   f"trained on {trained} have seen them.")
