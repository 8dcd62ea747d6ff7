"""Figures of what was measured: SVG elements that stand in the page."""

import io
import math
import re
import textwrap

from selfsup.report.table import quantity

INK, MUTED, ACCENT, GOOD, BAD = "#1f2933", "#9aa5b1", "#2563a8", "#2f855a", "#c05621"
PALETTE = ["#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac"]
GRID = "#e4e7eb"
VARIABLES = {INK: "ink", MUTED: "muted", ACCENT: "accent", GOOD: "good", BAD: "bad", GRID: "line", "#ffffff": "paper"}
NARROW = 4.0                                             # inches, of a telephone
CURVE_TITLES = {"lr": "learning rate", "std": "std of unit embeddings × √d", "rank": "effective rank"}


def pyplot():
    """Matplotlib in the report's style. Text stays text, and the same figure gives the same bytes."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "selfsup", "font.family": "sans-serif", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
        "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlecolor": INK,
        "text.color": INK, "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8, "ytick.labelsize": 8,
        "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
        "text.parse_math": False,  # "$" in a name or a prompt is a dollar
        "legend.edgecolor": "none", "legend.fontsize": 7.5, "figure.facecolor": "none", "axes.facecolor": "none",
    })
    import matplotlib.pyplot as plt

    return plt


def svg(figure):
    """The figure as an <svg> element; one that is wider than a telephone twice, as it is and `stacked`, of which the page
    shows the one that fits. Colours are the page's variables (report.css), so that they follow its light or dark."""
    from markupsafe import Markup

    wide = figure.get_figwidth() > NARROW
    found = [f'<div class="wide-plot">{_element(figure)}</div>' if wide else _element(figure)]
    if wide:
        # Ids of its own, as what clips is looked for by id and must not be in the one that is hidden.
        alone = re.sub(r'((?:\bid="|href="#|url\(#))', r"\1narrow-", _element(stacked(figure)))
        found.append(f'<div class="narrow-plot">{alone}</div>')
    pyplot().close(figure)
    return Markup("".join(found))


def _element(figure):
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return text[text.index("<svg"):]


def stacked(figure):
    """The figure with its panels below each other, as wide as a telephone; small ones two and two. Legends that stood
    beside a panel go below it, and words into it."""
    rows, columns = figure.axes[0].get_subplotspec().get_gridspec().get_geometry()
    width, height = figure.get_size_inches() / (columns, rows)
    across = 2 if width <= NARROW * 0.75 and columns > 1 else 1
    lines, grown = math.ceil(len(figure.axes) / across), 0
    for axis in figure.axes:
        legend = axis.get_legend()
        if legend and legend.get_window_extent().x0 >= axis.bbox.x1:
            entries = axis.get_legend_handles_labels()
            axis.legend(*entries, loc="upper left", bbox_to_anchor=(0, -0.45 / height - 0.06))
            grown = max(grown, 0.18 * len(entries[0]))
        for text in axis.texts:
            if getattr(text, "xycoords", " ")[0] == "axes fraction" and text.xyann[0] > 1:
                text.set(x=0.99, ha="right", va=text.get_va() if "\n" in text.get_text() else "bottom")
    figure.set_size_inches(NARROW, lines * (min(height, NARROW) + grown))
    for axis, place in zip(figure.axes, figure.add_gridspec(lines, across)):
        axis.set_subplotspec(place)
        if across == 1 and columns > 1:  # what it shared with the panel to its left
            axis.tick_params(labelleft=True)
    figure.tight_layout(h_pad=1.5)
    for axis in figure.axes:  # titles begin where the axis does: about so many letters are as wide
        letters = 13 * NARROW * axis.get_position().width
        axis.set_title(textwrap.fill(axis.get_title(loc="left"), max(8, int(letters))))
    figure.tight_layout(h_pad=1.5)
    return figure


def dot_plot(rows, protocols):
    """Accuracy and interval of each run, one panel for each of {protocol: title}, between the lines of its encoder's floor
    and ceiling."""
    rows = sorted((row for row in rows if row.results), key=lambda row: (row.run.data, str(row.run.encoder)))
    panels = [p for p in protocols if sum(p in row.results for row in rows) > 1]
    if not panels:
        return None
    figure, axes = pyplot().subplots(1, len(panels), figsize=(5.2 * len(panels), 0.8 + 0.27 * len(rows)), sharey=True,
                                     squeeze=False)
    for axis, protocol in zip(axes[0], panels):
        axis.set_title(f"{protocols[protocol]}: accuracy on test, %")
        axis.grid(axis="y", visible=False)
        for y, row in enumerate(rows):
            if not y or row.run.encoder != rows[y - 1].run.encoder:
                axis.axhline(y - 0.5, color=MUTED, linewidth=0.6)
            for bound, colour in ((row.floor, BAD), (row.ceiling, GOOD)):
                if bound and protocol in bound.results:
                    axis.vlines(bound.results[protocol]["accuracy"], y - 0.5, y + 0.5, colour, (0, (2, 2)), linewidth=1)
            if protocol in row.results:
                result = row.results[protocol]
                colour = {"floor": BAD, "": ACCENT}.get(row.role, GOOD)
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


def points(lines, name):
    found = [(line["images"], line[name]) for line in lines if name in line]
    return tuple(zip(*found)) if found else ((), ())
