"""The report: one page that compares an experiment's runs and opens offline, its table in Markdown, and its metrics file.

Everything in it is read from the encoder folders and result files; a run without results yet has blanks. Pictures of
data come from val (of a data set without one from train), never from test. What is said of a protocol, and its own table or figure, stand in the
protocol's file in `evals`, which is given this package: nothing here knows any protocol in particular.
"""

from pathlib import Path

import selfsup.data
from selfsup.core import files
from selfsup.data import tars
from selfsup.report import clouds, films, label_curves, uneven
from selfsup.report.depths import by_depth
from selfsup.report.figures import ACCENT, BAD, GOOD, INK, MUTED, PALETTE, pyplot, svg
from selfsup.report.numbers import metrics
from selfsup.report.page import TEMPLATES, render
from selfsup.report.panels import Panel, crossed, everywhere, listed, shown
from selfsup.report.rows import CEILING, FLOOR, Row, Sample, collect, embed, named, needed
from selfsup.report.table import duration, interval, literal, markdown, notes, overlaps, quantity
from selfsup.report.texts import told

__all__ = ["ACCENT", "BAD", "GOOD", "INK", "MUTED", "PALETTE", "pyplot", "svg", "TEMPLATES", "Panel", "by_depth",
           "crossed", "everywhere", "listed", "CEILING", "FLOOR", "Row", "named", "duration", "interval", "literal", "metrics",
           "quantity", "build"]


def build(params, root="."):
    """Write data/report/<experiment>/report.html and table.md and data/results/<experiment>.yaml below `root`; returns the
    path of the page."""
    root = Path(root)
    rows = collect(params, root)
    cards = {name: tars.card_of(root / "data/shards" / name) for name in dict.fromkeys(row.run.data for row in rows)}
    samples = {name: Sample(selfsup.data.open(root / "data/shards" / name, "val" if card["counts"]["val"] else "train",
                                              cache=root / "data/cache", columns=needed(rows, card)))
               for name, card in cards.items()}
    embed(rows, samples)
    found = uneven.panel(params, rows) + shown(params, rows) + label_curves.panels(params, rows, cards)
    found += [panel for name, sample in samples.items() for kind in (films, clouds)
              if (panel := kind.panel(name, cards[name], sample))]
    said = [*notes(params, rows, cards), *uneven.notes(cards), *overlaps(rows, root)]
    out = root / "data/report" / params.experiment
    out.mkdir(parents=True, exist_ok=True)
    files.write(out / "report.html", render(params, rows, cards, samples, told(samples, root), found, said, root, out))
    files.write(out / "table.md", markdown(params, rows, cards, found, said))
    numbers = root / "data/results" / f"{params.experiment}.yaml"
    numbers.parent.mkdir(parents=True, exist_ok=True)
    files.write(numbers, metrics(params, rows))
    return out / "report.html"
