"""The page."""

from pathlib import Path

from selfsup import evals
from selfsup.report import panels
from selfsup.report.facts import facts
from selfsup.report.figures import collapse_plot, curves, dot_plot
from selfsup.report.pictures import (CLUSTERS, NEIGHBOURS, galleries, legend, maps, neighbours, pictures, queries, sheet)
from selfsup.report.sounds import heard
from selfsup.report.table import COSTS, describe

TEMPLATES = Path(__file__).parent


def render(params, rows, cards, samples, told, shown, notes, root, out):
    """The page as HTML, which is to lie in the folder `out`. cards, samples: of each data set by name; told: texts of some;
    shown: the panels; notes: sentences."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    columns = panels.columns(params, rows)
    titles = {protocol: panels.title(protocol) for row in rows for protocol in row.results}
    best = {p: max((row.results[p]["accuracy"] for row in rows if p in row.results and not row.role), default=None)
            for p in columns}
    pictured = {name: sample for name, sample in samples.items() if sample.images is not None}
    found = {row.title: neighbours(row, samples[row.run.data]) for row in rows
             if row.features is not None and row.run.data in pictured}
    return pages.get_template("report.html").render(
        params=params, rows=rows, columns=columns, shared=panels.shared(params, rows), titles=titles,
        few=any(row.few for row in rows), bound=panels.bound(rows),
        costs=COSTS, best=best,
        data={name: (card, describe(card), gallery, sounds) for (name, card), gallery, sounds
              in zip(cards.items(), galleries(samples), heard(samples, cards))},
        told=told, notes=notes, dots=dot_plot(rows, columns), panels=shown, collapse=collapse_plot(rows),
        maps=maps(rows, samples), legend=legend(samples), clusters=CLUSTERS,
        unlabelled=[name for name, sample in samples.items() if not sample.labelled],
        curves={row.title: curves(row) for row in rows}, pictures={row.title: pictures(row) for row in rows},
        texts={row.title: row.texts for row in rows},
        facts={row.title: facts(params, row, root, out) for row in rows},
        queries={name: sheet(sample.images[queries(sample)], 1) for name, sample in pictured.items()},
        neighbours={row.title: beside(row, found) for row in rows if row.title in found},
        beside=[protocol for protocol in titles if getattr(evals.load(protocol), "beside_neighbours", False)],
        precision_at=NEIGHBOURS)


def beside(row, found):
    """[(title, Row, sheet, width, precision)] of a row's neighbours and of those that they are compared with."""
    others = [(other, title) for other, title in ((row.floor, "random initialisation"), (row.ceiling, "supervised"))
              if other and other is not row and other.title in found]
    return [(title, shown, *found[shown.title]) for shown, title in [(row, row.title), *others]]
