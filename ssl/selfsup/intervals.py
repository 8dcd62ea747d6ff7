"""Differences between runs, seed by seed: two runs of one seed see the same order of data and, with the same encoder, start
from the same weights."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Value:
    """A measure of a run or the difference of two: one number a seed, and half the interval that a seed's number has itself
    (a bootstrap over test images; 0 where there is none)."""

    seeds: dict
    half: dict

    @classmethod
    def of(cls, result):
        """The accuracy in a protocol's result file."""
        seeds = result["seeds"]
        return cls({seed: one["accuracy"] for seed, one in seeds.items()},
                   {seed: (one["high"] - one["low"]) / 2 for seed, one in seeds.items()})

    def __sub__(self, other):
        shared = [seed for seed in self.seeds if seed in other.seeds]
        return Value({s: self.seeds[s] - other.seeds[s] for s in shared},
                     {s: math.hypot(self.half[s], other.half[s]) for s in shared})

    @classmethod
    def mean(cls, values):
        """Of several runs, seed by seed."""
        shared = [seed for seed in values[0].seeds if all(seed in value.seeds for value in values)]
        return cls({s: sum(value.seeds[s] for value in values) / len(values) for s in shared},
                   {s: math.hypot(*(value.half[s] for value in values)) / len(values) for s in shared})

    @property
    def interval(self):
        """(mean, low, high), 95 %: Student's t over seeds that are paired; of one seed its own interval, or (mean, None, None)."""
        numbers = np.array(list(self.seeds.values()))
        mean = float(numbers.mean())
        if len(numbers) > 1:
            from scipy.special import stdtrit  # imported here: it takes a second

            half = float(stdtrit(len(numbers) - 1, 0.975) * numbers.std(ddof=1) / math.sqrt(len(numbers)))
            return mean, mean - half, mean + half
        (half,) = self.half.values()
        return (mean, mean - half, mean + half) if half else (mean, None, None)
