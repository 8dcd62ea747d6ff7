"""Panels: what stands below the main table, most of them a protocol's own."""

import sys
from dataclasses import dataclass, field

from selfsup import evals
from selfsup.report.rows import options


@dataclass
class Panel:
    """A table or figure with a heading of its own. The page shows the figure where there is one, Markdown the table."""

    name: str                                            # of its place in the page
    title: str
    text: str = ""                                       # what is to be seen
    sentences: list = field(default_factory=list)        # what is seen, one for each run
    table: tuple | None = None                           # (headings, [(row, a result, a text or None for each heading)])
    figure: object = None                                # an <svg> of `svg`
    remarks: list = field(default_factory=list)          # how it was made
    short: str = ""                                      # title in the page's navigation
    digits: int = 1                                      # of the table's numbers, after the point

    def __post_init__(self):
        self.short = self.short or self.title


def asked(params, rows):
    """(protocol's module, the rows that have its results, its options) of each protocol with any, as in params.yaml.
    Results on a run's own data, unless the protocol says that it speaks of others, too, by `elsewhere`."""
    for protocol, section in options(params).items():
        module = evals.load(protocol)
        judged = [row for row in rows if protocol in row.results
                  or getattr(module, "elsewhere", False) and any(protocol in found for found in row.elsewhere.values())]
        if judged:
            yield module, judged, section


def everywhere(rows, protocol):
    """(row, data set, result) of each data set, the run's own or another, that a protocol judged an encoder on."""
    for row in rows:
        for data, results in {row.run.data: row.results, **row.elsewhere}.items():
            if protocol in results:
                yield row, data, results[protocol]


def shown(params, rows):
    """The panels of the protocols, and the table of data sets where encoders are judged on several."""
    found = [module.panel(sys.modules["selfsup.report"], judged, section)
             for module, judged, section in asked(params, rows) if hasattr(module, "panel")]
    return [*filter(None, found), *data_sets(params, rows)]


def notes(params, rows):
    """What each protocol says of how its numbers were made."""
    for module, judged, section in asked(params, rows):
        if hasattr(module, "notes"):
            yield from module.notes(sys.modules["selfsup.report"], judged, section)


def columns(params, rows):
    """{protocol: title} of those with a column in the main table."""
    return {protocol: title(protocol) for protocol in options(params)
            if getattr(evals.load(protocol), "column", True) and any(protocol in row.results for row in rows)}


def shared(params, rows):
    """The protocol by which runs are compared with their ceilings: the one with a column that judges most of them, of
    equals the last in params.yaml. None where no run but a ceiling can be compared."""
    count = {protocol: sum(row.ceiling is not row and row.share(protocol) is not None for row in rows)
             for protocol in columns(params, rows)}
    most = max(count.values(), default=0)
    return [protocol for protocol in count if count[protocol] == most][-1] if most else None


def bound(rows):
    """What `shared` is a share of, in words: with few labels supervised training bounds nothing."""
    return "supervised" if any(row.few for row in rows) else "ceiling"


def title(protocol):
    return evals.load(protocol).title


def data_sets(params, rows):
    """The table of encoders × data sets, in a list; [] where each is judged on its own alone."""
    if not any(row.elsewhere for row in rows):
        return []
    found = [{row.run.data: row.results, **row.elsewhere} for row in rows]
    heads = [(data, protocol) for data in params.datasets for protocol in options(params)
             if any(protocol in sets.get(data, {}) for sets in found)]
    table = [(row, [sets.get(data, {}).get(protocol) for data, protocol in heads]) for row, sets in zip(rows, found)]
    return [Panel("data", "On every data set", "The same frozen encoders judged on data that they were not trained on, beside "
                  "their own.", table=([f"{data}, {title(protocol)}" for data, protocol in heads], table))]


def crossed(rows, protocol, cells, heading):
    """The table of a protocol with several results a run, each summarised over seeds, in the order of its columns.

    cells: what a seed's content says as {column: result}; heading: of a column. None without results.
    """
    table = []
    for row in rows:
        if protocol in row.results:
            seeds = {seed: cells(content) for seed, content in row.results[protocol]["seeds"].items()}
            shared = set.intersection(*map(set, seeds.values()))
            table.append((row, {c: evals.summarise({seed: found[c] for seed, found in seeds.items()}) for c in shared}))
    heads = sorted(set().union(*(found for _, found in table)))
    return ([heading(c) for c in heads], [(row, [found.get(c) for c in heads]) for row, found in table]) if table else None


def listed(values):
    return ", ".join(f"{value:g}" for value in values)
