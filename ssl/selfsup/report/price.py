"""What labels cost, and how many of them a way of learning saves.

A label curve is what accuracy so many labels give: {labels: accuracy}; of several seeds {labels: {seed: accuracy}}.
Nothing is extrapolated: beyond what was measured a curve says nothing."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


def annotation_cost(labels, seconds, wage):
    """Dollars for so many labels of `seconds` each, at a wage in dollars an hour."""
    return labels * seconds / 3600 * wage


def monotone(values):
    """The sequence nearest to `values` by squares that nowhere falls, by pooling what does (Ayer et al. 1955)."""
    pools = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (last, n), (before, m) = pools.pop(), pools.pop()
            pools.append(((last * n + before * m) / (n + m), n + m))
    return [value for value, n in pools for _ in range(n)]


def needed(curve, accuracy):
    """The fewest labels at which a curve comes to an accuracy: of the curve made monotone, linear between its points in
    the logarithm of labels. Its first point where it is there from the start, so that fewer may do; None where it does
    not get there."""
    labels = sorted(curve)
    reached = monotone([curve[n] for n in labels])
    at = next((i for i, value in enumerate(reached) if value >= accuracy), None)
    if not at:
        return None if at is None else labels[0]
    before, after = reached[at - 1], reached[at]
    return labels[at - 1] * (labels[at] / labels[at - 1]) ** ((accuracy - before) / (after - before))


@dataclass
class Saved:
    """Labels saved, and their 95 % interval. labels: None where the accuracy is not reached. least: it is reached with
    the fewest labels that were tried, so that more may be saved. low, high: None of one seed, and low also where too
    many resamples do not get there for there to be a bound."""

    labels: float | None
    low: float | None
    high: float | None
    least: bool


def saved(own, other, labels):
    """What `own` saves of the labels that `other` needs for the accuracy that it has with so many: Saved.

    Both are curves of several seeds, of which those count that all points have; None where there is no such seed. The
    interval is a bootstrap over seeds, of both curves alike: a seed's labels are the same for both."""
    seeds = sorted(set.intersection(*(set(point) for curve in (own, other) for point in curve.values())))

    def means(curve, some):
        return {n: float(np.mean([point[seed] for seed in some])) for n, point in curve.items()}

    def compared(some):
        """(labels saved, -inf where it does not get there; whether it is there from the start)."""
        mine, theirs = means(own, some), means(other, some)
        accuracy = monotone([theirs[n] for n in sorted(theirs)])[sorted(theirs).index(labels)]
        fewest = needed(mine, accuracy)
        lead = -np.inf if fewest is None else needed(theirs, accuracy) - fewest
        return lead, monotone([mine[n] for n in sorted(mine)])[0] > accuracy

    if not seeds:
        return None
    found, least = compared(seeds)
    low = high = None
    if len(seeds) > 1:
        drawn = np.sort(np.random.default_rng(0).integers(len(seeds), size=(RESAMPLES, len(seeds))), 1)
        each, where = np.unique(drawn, axis=0, return_inverse=True)  # three seeds can be drawn in ten ways
        values = np.array([compared([seeds[i] for i in row])[0] for row in each])[where.ravel()]
        low, high = (float(bound) if np.isfinite(bound) else None
                     for bound in np.quantile(values, [0.025, 0.975], method="inverted_cdf"))
    return Saved(float(found) if np.isfinite(found) else None, low, high, least)
