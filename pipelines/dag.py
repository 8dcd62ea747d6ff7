"""dag.py: draw the chosen experiment's stages, a row a run, and which are out of date -> data/dag.svg (`make dag`)."""

import argparse
from collections import defaultdict
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

import yaml  # noqa: E402

from selfsup import config, errors  # noqa: E402
from selfsup.core import files  # noqa: E402

FRESH, STALE, LINE = "#dcebf7", "#f6c7b6", "#9aa5b1"
WIDE, HIGH = 1.75, 0.42  # inches between columns, and between rows


def read():
    """The stages as DVC has them: kinds in the order of dvc.yaml, {stage: the stages it waits for}, those out of date. What
    is waited for by way of another stage is left out."""
    import networkx
    from dvc.repo import Repo

    kinds = list(yaml.safe_load(Path("dvc.yaml").read_text())["stages"])
    with Repo() as repo:
        whole = networkx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
        direct = networkx.transitive_reduction(whole)
        graph = {stage: set(direct.successors(stage)) for stage in whole}
        stale = set(repo.status())
    return kinds, graph, stale


def place(kinds, graph):
    """{stage: (column, row)}: a column a kind, a row a run; a data set and the report stand amid what is theirs."""
    columns = [kind for kind in kinds if any(stage.partition("@")[0] == kind for stage in graph)]
    keys = {stage: stage.partition("@")[2].partition("--")[0] for stage in graph}
    runs = list(dict.fromkeys(keys[stage] for stage in graph if stage.startswith("pretrain@")))
    rows = {stage: runs.index(keys[stage]) for stage in graph if keys[stage] in runs}
    users = defaultdict(set)
    for stage, needs in graph.items():
        for need in needs:
            users[need].add(stage)
    for stage in graph:
        near = [rows[of] for of in (*users[stage], *graph[stage]) if of in rows]
        rows.setdefault(stage, sum(near) / len(near) if near else 0)
    taken = set()  # a run judged on several data sets, data sets amid the same runs
    found = {}
    for stage in sorted(graph, key=lambda stage: (rows[stage], stage)):
        column, row = columns.index(stage.partition("@")[0]), rows[stage]
        while (column, round(row, 2)) in taken:
            row += 0.5
        taken.add((column, round(row, 2)))
        found[stage] = column, row
    return columns, found


def draw(experiment, kinds, graph, stale, path):
    from selfsup.report import pyplot

    columns, places = place(kinds, graph)
    tall = max(row for _, row in places.values()) + 1
    figure, axis = pyplot().subplots(figsize=(WIDE * (len(columns) + 0.6), HIGH * (tall + 2)))
    last = {}
    for x, y in sorted(place for stage, place in places.items() if not stage.startswith("report")):
        last[y] = x
    for stage, needs in graph.items():
        for need in needs:
            (x, y), (u, v) = places[need], places[stage]
            if columns[u] != "report" or x == last[y]:  # to the report one line a row
                axis.plot([x, u], [y, v], color=LINE, linewidth=0.8, zorder=1)
    for stage, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": STALE if stage in stale else FRESH, "edgecolor": LINE, "linewidth": 0.6}
        title = stage.partition("@")[2].removeprefix(f"{experiment}-")
        axis.text(x, y, title, ha="center", va="center", fontsize=8, bbox=box, zorder=2)
    for x, kind in enumerate(columns):
        axis.text(x, -1, kind, ha="center", va="center", fontsize=9, fontweight="bold")
    axis.set(xlim=(-0.6, len(columns) - 0.4), ylim=(tall, -1.6))
    axis.axis("off")
    path.parent.mkdir(exist_ok=True)
    with files.replacing(path) as file:
        figure.savefig(file, format="svg", bbox_inches="tight")


@errors.main
def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    kinds, graph, stale = read()
    out = Path("data/dag.svg")
    draw(config.load().experiment, kinds, graph, stale, out)
    print(f"{len(graph)} stages, {len(stale & graph.keys())} of them out of date (red): {out.resolve()}")


if __name__ == "__main__":
    main()
