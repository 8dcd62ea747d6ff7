"""Accuracy against depth, of encoders on any data set: a figure with a line each, and the same as a table."""

from types import SimpleNamespace

from selfsup import evals
from selfsup.report.figures import BAD, GOOD, PALETTE, pyplot, svg
from selfsup.report.panels import Panel, everywhere

ROLES = {"floor": BAD, "ceiling": GOOD}
STROKES = "-", ":"


def by_depth(rows, protocol, lines, axis, **said):
    """The Panel of a protocol with a result for each of several depths. lines: what a seed's content says as {a line's
    name: {depth: result}}; axis: what depth means; said: the Panel's name, title, text and remarks."""
    found = {}                                           # data set -> [(row, line, {depth: result over the seeds})]
    for row, data, result in everywhere(rows, protocol):
        seeds = {seed: lines(content) for seed, content in result["seeds"].items()}
        for line, depths in next(iter(seeds.values())).items():
            over = {int(n): evals.summarise({seed: some[line][n] for seed, some in seeds.items()}) for n in depths}
            found.setdefault(data, []).append((row, line, over))
    return Panel(table=table(found), figure=figure(found, axis), **said)


def table(found):
    """A line each for run, data set and line; a column for each depth."""
    heads = sorted({n for members in found.values() for _, _, over in members for n in over})
    return list(map(str, heads)), [
        (SimpleNamespace(title=", ".join(filter(None, (f"{row.title} on {data}", line))), role=row.role),
         [over.get(n) for n in heads]) for data, members in found.items() for row, line, over in members]


def figure(found, axis):
    """A panel for each data set; a run has one colour, its lines differ in their stroke."""
    size = max(6, 4.6 * len(found)), 3.4
    drawing, axes = pyplot().subplots(1, len(found), figsize=size, sharey=True, squeeze=False)
    titles = dict.fromkeys(row.title for members in found.values() for row, _, _ in members)
    colours = dict(zip(titles, PALETTE * len(titles)))
    for place, (data, members) in zip(axes[0], found.items()):
        strokes = dict(zip(dict.fromkeys(line for _, line, _ in members), STROKES))
        for row, line, over in members:
            depths = sorted(over)
            low, middle, high = ([over[n][key] for n in depths] for key in ("low", "accuracy", "high"))
            colour = ROLES.get(row.role, colours[row.title]) if row.run.data == data else colours[row.title]
            place.plot(depths, middle, "o" + strokes[line], color=colour, markersize=4, linewidth=1.5,
                       label=", ".join(filter(None, (row.title, line))))
            place.fill_between(depths, low, high, color=colour, alpha=0.12, linewidth=0)
        place.set_title(data)
        place.set_xlabel(axis)
        place.xaxis.get_major_locator().set_params(integer=True)
        place.legend(loc="best")
    axes[0][0].set_ylabel("accuracy on test, %")
    drawing.tight_layout()
    return svg(drawing)
