"""The page of the lectures' claims: a panel for each that an experiment checks, with verdict, figure, budget, cost."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from selfsup import artefacts, config, report, sentences, verdicts
from selfsup.core import files
from selfsup.errors import UserError


@dataclass
class Panel:
    """A claim as the page shows it."""

    name: str
    experiment: str
    claim: config.Claim
    findings: list
    verdict: str
    figure: str | None
    budget: str
    seconds: float
    trainings: int

    @property
    def command(self):
        return f"make experiment E={self.experiment} && make parallel"


def panels(root="."):
    """A Panel for each claim, by name."""
    root, found = Path(root), []
    for file in sorted((root / "conf/experiment").glob("*.yaml")):
        if "claims" in yaml.safe_load(file.read_text()):
            params = compose(root, file.stem)
            found += [panel(root, params, name) for name in params.claims]
    return sorted(found, key=lambda panel: panel.name)


def compose(root, experiment):
    """The params of an experiment that is not the one in params.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        config.compose.write(path, root / "conf", f"experiment={experiment}")
        return config.load(path)


def panel(root, params, name):
    claim = params.claims[name]
    titles = {run: run.removeprefix(f"{params.experiment}-") for run in claim.runs or params.runs}
    for run in titles:
        verdicts.keep(root, run, params.runs[run].seeds)
    findings = [verdicts.check(root, expected, list(titles)) for expected in claim.expect]
    costs = [content for run in titles if (file := root / config.results(run) / "cost.json").exists()
             for content in artefacts.costs(file)["seeds"].values()]
    return Panel(name, params.experiment, claim, findings, verdicts.verdict(findings), figure(root, claim, titles),
                 budget(params, titles),
                 sum(cost["seconds"] for cost in costs), len(costs))


def budget(params, runs):
    """What "here" is: images that a training saw, of which data sets, by which encoders."""
    runs = [params.runs[name] for name in runs]
    seen, data, encoders = (" or ".join(dict.fromkeys(map(what, runs))) for what in (
        lambda run: f"{run.train.images:,}", lambda run: run.data, lambda run: report.named(run.encoder)))
    return f"{seen} images of {data} seen by each {encoders}"


def figure(root, claim, titles):
    """The claim's `figure` for all runs that have its measures: an <svg>, or None."""
    shown = []
    for item in claim.figure:
        by = item if isinstance(item, list) else [item]
        values = {title: found for run, title in titles.items()
                  if None not in (found := [_try(root, run, one) for one in by])}
        if values:
            shown.append((by, values))
    if not shown:
        return None
    plot = report.pyplot()
    height = max(3.4 if len(by) == 2 else 0.9 + 0.26 * len(values) for by, values in shown)
    drawing, axes = plot.subplots(1, len(shown), figsize=(4.6 * len(shown), height), squeeze=False)
    for axis, (by, values) in zip(axes[0], shown):
        (_scatter if len(by) == 2 else _rows)(axis, by, values)
        axis.tick_params(length=0)
    drawing.tight_layout(w_pad=2.5)
    return report.svg(drawing)


def _rows(axis, by, values):
    """One measure, a run a row: the mean over seeds, its interval, and the seeds."""
    for y, (found,) in enumerate(values.values()):
        mean, low, high = found.interval
        if low is not None:
            axis.hlines(y, low, high, report.ACCENT, linewidth=2)
        axis.plot(list(found.seeds.values()), [y] * len(found.seeds), "|", color=report.MUTED, markersize=7)
        axis.plot(mean, y, "o", color=report.ACCENT, markersize=5)
    axis.set_yticks(range(len(values)), list(values))
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.set_title(sentences.label(by[0]))
    axis.grid(axis="y", visible=False)


def _scatter(axis, by, values):
    """One measure against another, a run a point: means over seeds."""
    for title, pair in values.items():
        x, y = (found.interval[0] for found in pair)
        axis.plot(x, y, "o", color=report.ACCENT, markersize=5)
        axis.annotate(title, (x, y), (4, 3), textcoords="offset points", fontsize=7, color=report.MUTED)
    axis.set_xlabel(sentences.label(by[0]))
    axis.set_ylabel(sentences.label(by[1]))
    axis.margins(x=0.15)


def _try(root, run, by):
    """A run that does not have a measure, as a floor has no history, is left out of a figure."""
    try:
        return verdicts.measure(root, run, by)
    except UserError:
        return None


def build(root="."):
    """Write data/report/claims.html and claims.md below `root`; returns the path of the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = panels(root)
    pages = Environment(loader=FileSystemLoader([Path(__file__).parent, report.TEMPLATES]), autoescape=True,
                        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    out = Path(root) / "data/report"
    out.mkdir(parents=True, exist_ok=True)
    page = pages.get_template("claims.html").render(panels=found, margins=margins(found), duration=report.duration)
    files.write(out / "claims.html", page)
    files.write(out / "claims.md", markdown(found))
    return out / "claims.html"


def margins(found):
    """What the page says once of all margins, and of which it was too late to name them before the run."""
    late = ", ".join(one.name for one in found if one.claim.margin_after_results)
    says = ("An expected difference has a margin, the smallest difference that matters: one point of accuracy unless "
            "the claim names another. Where the whole interval lies within it, on either side of 0, there is no "
            "difference of that size, and a claim that expects one does not hold as it is said; nor does its opposite.")
    return f"{says} The margin was named after these results were seen: {late}." if late else says


def markdown(found):
    lines = ["# The lectures' claims", "", margins(found), "",
             "| Claim | The lectures say | Verdict | Trained for |", "| --- | --- | --- | ---: |"]
    for one in found:
        cost = f"{report.duration(one.seconds)}, {one.trainings} trainings" if one.trainings else ""
        lines.append(f"| [{one.name}](#{one.name}) | {report.literal(one.claim.says)} | {one.verdict} | {cost} |")
    for one in found:
        lines += ["", f"## {one.name}", "", f"{report.literal(one.claim.says)} **{one.verdict.capitalize()}.**", "", *(
            f"- {report.literal(finding.says)}: {finding.verdict}. {finding.decides}".rstrip()
            for finding in one.findings), "",
            f"{report.literal(one.budget)}. `{one.command}`"]
    return "\n".join(lines) + "\n"
