"""Verdicts on the lectures' claims: what an experiment that checks one expects of its results, and whether that holds.

An experiment's file in conf/experiment states in `claims` what the lectures say and what should then be seen of its
runs (config.Claim). From results and their intervals follows a verdict; nothing here knows any claim in particular.

A measure is named by its result file and the path in it, "accuracy" being understood: `linear`, `low_shot.linear.1`,
`layerwise.layers.5`, `cost.parameters`; or by what training recorded last, or first: `history.std`,
`history.first.nmi`. That is kept among the results (`keep`), so that a clone without encoders comes to the same
verdicts.

Of an expected difference the smallest that matters, its margin, is named before the run. An interval that lies wholly
within it shows that there is no difference of that size: two one-sided tests (Schuirmann 1987; Lakens 2017,
doi:10.1177/1948550617697177), here at 2.5 % each, since the interval is the one that all verdicts are read from.
"""

import json
from dataclasses import dataclass

import numpy as np

from selfsup import artefacts, config, sentences
from selfsup.core import files
from selfsup.intervals import Value
from selfsup.errors import UserError

HOLDS, FAILS, UNDECIDED, MISSING = "holds here", "does not hold here", "undecided at this budget", "not run yet"
NO_DIFFERENCE = "no difference of that size"
POINT = 1.0  # of accuracy, which results give in per cent
RESAMPLES = 2000  # of runs, for the interval of a difference of rank correlations


def measure(root, run, by):
    """The Value of a run's measure; None where its results are not there. UserError for a path that leads nowhere."""
    file, *path = by.split(".")
    results = _history(root, run) if file == "history" else root / config.results(run) / f"{file}.json"
    if not results.exists():
        return None
    content = artefacts.result(results)
    if "skipped" in content:  # the data has no labels
        return None
    if file == "history" and content["seconds"] != _seconds(root, run):  # kept of another training than the results'
        return None
    seeds, half = {}, {}
    for seed, content in content["seeds"].items():
        try:
            for key in path:
                content = content[key]
        except (KeyError, TypeError):
            raise UserError(f"claims: {results} has no {'.'.join(path)}") from None
        if isinstance(content, dict):
            half[seed] = (content["high"] - content["low"]) / 2
            content = content["accuracy"]
        seeds[seed] = float(content)
    return Value(seeds, {seed: half.get(seed, 0.0) for seed in seeds})


def keep(root, run, seeds):
    """Of a run whose histories are there for all seeds, keep each name that training recorded with its last value, and
    under "first" with its first. Where a history is missing, what was kept before stays, and counts as long as the
    run's cost.json is that of the same trainings."""
    histories = {str(seed): root / config.encoders(run) / str(seed) / "history.jsonl" for seed in seeds}
    if not all(file.exists() and file.stat().st_size for file in histories.values()):  # a floor's is empty
        return
    kept = {}
    for seed, file in histories.items():
        rows = artefacts.rows(file)
        first = {name: value for row in reversed(rows) for name, value in row.items()}
        kept[seed] = {name: value for row in rows for name, value in row.items()} | {"first": first}
    out = _history(root, run)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, json.dumps({"run": run, "seconds": _seconds(root, run), "seeds": kept}, indent=2) + "\n")


def _seconds(root, run):
    """{seed: seconds of training}, which no two trainings have alike."""
    file = root / config.results(run) / "cost.json"
    return {seed: cost["seconds"] for seed, cost in artefacts.costs(file)["seeds"].items()} if file.exists() else {}


def _history(root, run):
    # Not in the run's own folder, whose files are its judgements and are tracked as such.
    return root / config.results(run).parent / "histories" / f"{run}.json"


@dataclass
class Finding:
    """One expectation and what was found: a sentence, a verdict, and where it is undecided what would decide it."""

    says: str
    verdict: str
    decides: str = ""


def check(root, expected, runs):
    """The Finding of one config.Expectation. runs: those that the claim is about."""
    if expected.ranked_apart:
        return _ranked_apart(root, *expected.ranked_apart, runs, margin(expected))
    by, than_by = expected.by, expected.than_by or expected.by

    def side(which, by):
        parts = [measure(root, name, by) for name in config.named(which)]
        if None in parts or not parts:
            return None
        return parts[0] - parts[1] if getattr(which, "less", None) else Value.mean(parts)

    def told(which):
        names = [name.partition("-")[2] for name in config.named(which)]
        if len(names) == 1:
            return names[0]
        return f"the lead of {names[0]} over {names[1]}" if which.less else f"the mean of {', '.join(names)}"

    higher, other = side(expected.higher, by), side(expected.than, than_by)
    if higher is None or (expected.than and other is None):
        return Finding(sentences.nothing(told(expected.higher), by), MISSING)
    if expected.than:
        found, least = higher - other, margin(expected)
        says = sentences.difference(told(expected.higher), told(expected.than), found, by, than_by, least)
        return _finding(says, found, above=0, margin=least)
    says = sentences.bounded(told(expected.higher), higher, by, expected.above, expected.below)
    return _finding(says, higher, expected.above, expected.below)


def _finding(says, value, above=None, below=None, margin=None):
    verdict = decide(*value.interval[1:], above, below, margin)
    bound = below if above is None else above
    return Finding(says, verdict, sentences.decides(value, bound, margin) if verdict == UNDECIDED else "")


def margin(expected):
    """The smallest difference that matters to a config.Expectation: the one that it names, else a point of accuracy,
    also for a difference of differences. None where nothing is compared (`above`, `below`), and where one point is no
    unit (what training recorded, costs, rank correlations) and none is named: none is then too small to matter."""
    measures = (expected.by, expected.than_by or expected.by)
    return POINT if expected.margin is None and expected.than and all(map(sentences.accuracy, measures)) else expected.margin


def decide(low, high, above=None, below=None, margin=None):
    """The verdict on a quantity with the 95 % interval [low, high], which is expected above or below a number.

    With a margin, of a difference that is expected above 0: "no difference of that size" if the whole interval is
    nearer to 0 than the margin, whether 0 is in it or not: what is shown to be too small to matter speaks neither for
    the claim nor for its opposite. An interval that touches the margin does not lie within, as the margin itself would
    matter; nor does one that touches 0 lie above it. Without an interval nothing is decided."""
    if low is None:
        return UNDECIDED
    if margin is not None and -margin < low and high < margin:
        return NO_DIFFERENCE
    if above is not None:
        return HOLDS if low > above else FAILS if high < above else UNDECIDED
    return HOLDS if high < below else FAILS if low > below else UNDECIDED


def _ranked_apart(root, first, second, runs, margin):
    """Spearman's correlation over the runs, between seeds of one measure less between seeds of two, and its interval by
    a bootstrap over runs. Noise lowers both alike, so above 0 the measures themselves rank the runs apart; two measures
    of one thing give 0, which no number of runs can show: undecided, unless a margin says how near is near enough."""
    from scipy.stats import rankdata

    names = [sentences.measured(by) for by in (first, second)]
    pairs = [pair for run in runs if None not in (pair := (measure(root, run, first), measure(root, run, second)))]
    seeds = sorted(set.intersection(*(set(value.seeds) for pair in pairs for value in pair))) if pairs else []
    if len(pairs) < 4 or len(seeds) < 2:
        says = f"{names[0]} and {names[1]}: {len(pairs)} runs and {len(seeds)} seeds, at least 4 and 2 are needed"
        return Finding(says, MISSING)
    table = np.array([[value.seeds[seed] for value in pair for seed in seeds] for pair in pairs])  # (runs, 2 · seeds)
    other = np.tile(1 - np.eye(len(seeds), dtype=bool), (2, 2)).astype(bool)  # another seed's
    same = np.kron(np.eye(2, dtype=bool), np.ones((len(seeds), len(seeds)), bool))  # the same measure's

    def correlations(rows):
        found = np.corrcoef(rankdata(rows, axis=0).T)
        return found[other & same].mean(), found[other & ~same].mean()

    within, between = correlations(table)
    rng = np.random.default_rng(0)
    drawn = (table[rng.integers(len(table), size=len(table))] for _ in range(RESAMPLES))
    apart = [np.subtract(*correlations(rows)) for rows in drawn if np.ptp(rows, axis=0).all()]
    low, high = np.quantile(apart, [0.025, 0.975])
    least = f", and less than {margin:g} would not matter" if margin else ""
    says = (f"Rank correlation over {len(pairs)} runs is {within:.2f} between seeds of {names[0]} or of {names[1]}, and "
            f"{between:.2f} between seeds of the two: {within - between:.2f} lower (95 % interval {low:.2f} to {high:.2f}); "
            f"expected was lower{least}")
    verdict = decide(low, high, above=0, margin=margin)
    more = sentences.decides_ranks(low, high, len(pairs), margin) if verdict == UNDECIDED else ""
    return Finding(says, verdict, more)


def verdict(findings):
    """Of a claim, which asserts all that it expects, of whatever kind: the first of these that one finding has.

    - not run yet: nothing is said before all is there
    - does not hold: one refuted refutes the claim
    - no difference of that size: an expected difference is too small to matter, so that the claim does not hold as it
      is said, whatever the undecided ones among the others will be; but nothing speaks for its opposite
    - undecided
    - holds: all do"""
    found = {finding.verdict for finding in findings}
    return next((one for one in (MISSING, FAILS, NO_DIFFERENCE, UNDECIDED) if one in found), HOLDS)
