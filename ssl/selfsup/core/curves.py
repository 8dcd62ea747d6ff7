"""What the curves of a training say: whether it learns, has collapsed, or has had too little."""

STD, RANK = 0.1, 2.0  # of embeddings, below which they are all the same, or all on one line
STILL = 1.0  # the loss falls by less than this, in per cent of what it was at first: it learns nothing that shows
LATE = 10.0  # more than this, in per cent of the fall, comes in the last quarter: there the rate has gone to zero


def collapsed(row):
    """Whether a recorded row of a history is one of embeddings that have collapsed; of one without a spread, not."""
    return row.get("std", 1.0) < STD or row.get("rank", RANK) < RANK


def said(history):
    """A verdict and the figures that it goes by, of the rows of a history; None of what has fewer than four."""
    rows = [row for row in history if "lr" in row]
    if len(rows) < 4:
        return None
    first, late, last = (mean(rows, *part) for part in ((0, 0.05), (0.7, 0.75), (0.95, 1)))
    fell, figures = first - last, [f"loss {first:.3g} at first, {last:.3g} at last"]
    share = 100 * (late - last) / fell if fell > 0 else 0.0
    if "std" in rows[-1]:
        figures.append(f"spread of the embeddings {rows[-1]['std']:.2f} of 1, effective rank {rows[-1]['rank']:.3g}")
    if collapsed(rows[-1]):
        return "collapsed: one embedding for all", figures
    if fell < 0:
        return "learns against a target that moves: the loss rose, and only what is judged tells", figures
    if 100 * fell < STILL * abs(first):
        return "hardly learns: the loss stays where it was", figures
    if share > LATE:
        return "learns, and has had too little: a larger budget, or a higher rate, would go on", [
            *figures, f"{share:.0f} % of the fall in the last quarter"]
    return "learns", figures


def mean(rows, start, stop):
    """The mean loss over a part of the rows, at least one."""
    first, last = int(start * len(rows)), int(stop * len(rows))
    part = rows[min(first, len(rows) - 1):max(last, first + 1)]
    return sum(row["loss"] for row in part) / len(part)
