"""Sets of points in the report, each from three sides."""

import io

import torch

from selfsup.report.figures import ACCENT, BAD, pyplot
from selfsup.report.panels import Panel
from selfsup.report.pictures import uri

SHOWN = 6
SIDES = {"from the front": (0, 1), "from the side": (2, 1), "from above": (0, 2)}


def panel(name, card, sample):
    """The Panel of a data set with a column of points; None of another one."""
    from markupsafe import Markup

    if "points" not in sample.columns:
        return None
    points = sample.columns["points"][:SHOWN].float()
    points = points if points.dim() == 4 else points[:, None]
    move = sample.columns.get("transform")
    if points.shape[1] == 2 and move is not None:  # the second scan where the first one is
        turn, shift = move[:SHOWN, :, :3], move[:SHOWN, :, 3]
        points = torch.stack([points[:, 0, :, :3], (points[:, 1, :, :3] - shift[:, None]) @ turn], 1)
    plt = pyplot()
    figure, axes = plt.subplots(len(SIDES), len(points), figsize=(2 * len(points), 2 * len(SIDES)), squeeze=False)
    for line, (side, (across, up)) in zip(axes, SIDES.items()):
        for axis, scans in zip(line, points.numpy()):
            for scan, colour in zip(scans, (ACCENT, BAD)):
                axis.scatter(scan[:, across], scan[:, up], s=3, c=colour, linewidths=0)
            axis.set_aspect("equal", "datalim")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(side)
    if sample.labelled and sample.classes:
        for axis, label in zip(axes[0], sample.labels.tolist()):
            axis.set_title(sample.classes[label])
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    two = " Blue and orange: two scans from different places, brought together by the known transform." * (move is not None)
    picture = f'<img class="drawn" src="{uri(file.getvalue())}" width="{110 * SHOWN}" alt="sets of points of {name}">'
    text = f"A column is a sample, a row the side that it is looked at from, a dot one of its points.{two}"
    return Panel(f"points-{name}", f"Points of {name}", text, figure=Markup(picture))
