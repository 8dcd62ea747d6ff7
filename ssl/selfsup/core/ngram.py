"""Interpolated Kneser-Ney: what of a text can be guessed by counting, the rival of models that learn to guess it."""

import numpy as np

START = 1  # the token that a text begins with, data/text.py


class KneserNey:
    """The probability of a token after the `order` − 1 before it, of counts in `texts`: token ids (N, L), 0 is padding.

    Kneser & Ney 1995, interpolated as by Chen & Goodman 1999, https://doi.org/10.1006/csla.1999.0128, one discount
    n₁ / (n₁ + 2 n₂) for each order. Contexts of less than the highest order count by how many different
    tokens come before them, not how often; below the single token is 1 / vocabulary. A text's beginning is filled up
    with starts, so that no context reaches into another text.
    """

    def __init__(self, texts, order, vocabulary):
        self.order, self.vocabulary, self.levels = order, vocabulary, []
        before, token = places(texts, order)
        context, lower = np.zeros(len(token), np.int64), None
        for length in range(order):
            contexts, context = np.unique(extended(context, before, length, vocabulary), return_inverse=True)
            grams, first, gram, count = np.unique(context * vocabulary + token, return_index=True, return_inverse=True,
                                                  return_counts=True)
            if lower is not None:  # different grams of this length, each counted once at the gram that it ends with
                lower["count"] = np.bincount(lower.pop("gram")[first], minlength=len(lower["grams"]))
            lower = {"contexts": contexts, "grams": grams, "gram": gram, "count": count}
            self.levels.append(lower)
        del lower["gram"]
        for level in self.levels:
            owner = level["grams"] // vocabulary
            level["total"], level["distinct"] = np.bincount(owner, level["count"]), np.bincount(owner)
            once, twice = (int((level["count"] == times).sum()) for times in (1, 2))
            level["discount"] = once / (once + 2 * twice) if once and twice else 0.5

    def probabilities(self, texts):
        """Of each token of token ids (N, L) but the first of each text, one text after the other: (T,)."""
        before, token = places(texts, self.order)
        p, context, known = np.full(len(token), 1 / self.vocabulary), np.zeros(len(token), np.int64), True
        for length, level in enumerate(self.levels):
            context, seen = found(level["contexts"], extended(context, before, length, self.vocabulary))
            known = known & seen
            gram, there = found(level["grams"], context * self.vocabulary + token)
            count, d = np.where(there, level["count"][gram], 0), level["discount"]
            mixed = (np.maximum(count - d, 0) + d * level["distinct"][context] * p) / level["total"][context]
            p = np.where(known, mixed, p)
        return p

    def bits(self, texts):
        """Mean of −log₂ of the probabilities."""
        return float(-np.log2(self.probabilities(texts)).mean())


def places(texts, order):
    """The tokens before each one that is to be guessed (T, order − 1), the nearest first, and that token (T,)."""
    texts = np.pad(np.asarray(texts, np.int64), ((0, 0), (max(0, order - 2), 0)), constant_values=START)
    rows, columns = np.nonzero(texts[:, max(1, order - 1) :])
    columns = columns + max(1, order - 1)
    return texts[rows[:, None], columns[:, None] - np.arange(1, max(2, order))], texts[rows, columns]


def extended(context, before, length, vocabulary):
    """Keys of contexts that are one token longer, of the numbers of those of length − 1; of length 0 there is one."""
    return context * vocabulary + before[:, length - 1] if length else context


def found(keys, wanted):
    """Where each of `wanted` stands in sorted keys, and whether it does."""
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return at, keys[at] == wanted
