"""Kneser-Ney against its definition, word by word, in dictionaries."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from selfsup.core.ngram import KneserNey

V = 9


def texts(n, seed, length=12):
    """Texts that repeat themselves: 1 is the start, 2 the end, 0 padding."""
    random = np.random.default_rng(seed)
    out = np.zeros((n, length), np.int64)
    for row in out:
        words, size = [1], random.integers(3, length - 1)
        while len(words) < size:
            words.append(4 + (words[-1] + random.integers(0, 2)) % 5)
        row[: size + 1] = [*words, 2]
    return out


def reference(train, order):
    """p(word, history) by the recursion, of counts by n-gram in dictionaries."""
    padded = [[1] * (order - 2) + [int(w) for w in row if w] for row in train]
    grams = {n: Counter() for n in range(1, order + 1)}
    for row in padded:
        for t in range(max(1, order - 1), len(row)):
            for n in grams:
                grams[n][tuple(row[t - n + 1 : t + 1])] += 1
    counts = {order: grams[order]}
    for n in range(1, order):
        counts[n] = Counter(gram[1:] for gram in grams[n + 1])
    total, distinct, discount = defaultdict(int), defaultdict(int), {}
    for n, some in counts.items():
        once, twice = (sum(c == times for c in some.values()) for times in (1, 2))
        discount[n] = once / (once + 2 * twice) if once and twice else 0.5
        for gram, count in some.items():
            total[gram[:-1], n] += count
            distinct[gram[:-1], n] += 1

    def p(word, history, n):
        if n == 0:
            return 1 / V
        history = history[len(history) - n + 1 :]
        if not total[history, n]:
            return p(word, history, n - 1)
        first = max(counts[n][(*history, word)] - discount[n], 0)
        return (first + discount[n] * distinct[history, n] * p(word, history, n - 1)) / total[history, n]

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_probabilities_are_those_of_the_recursion_and_sum_to_one(order):
    train, held = texts(40, 0), texts(5, 1)
    model, p = KneserNey(train, order, V), reference(train, order)
    expected, sums = [], []
    for row in held:
        row = [1] * max(0, order - 2) + [int(w) for w in row if w]
        for t in range(max(1, order - 1), len(row)):
            history = tuple(row[t - order + 1 : t])
            expected.append(p(row[t], history, order))
            sums.append(sum(p(word, history, order) for word in range(V)))
    np.testing.assert_allclose(model.probabilities(held), expected, rtol=1e-12)
    np.testing.assert_allclose(sums, 1)
    assert model.bits(held) == pytest.approx(-np.log2(expected).mean())


def test_more_context_helps_and_what_was_never_seen_has_a_probability():
    train, held = texts(300, 0), texts(50, 1)
    bits = [KneserNey(train, order, V).bits(held) for order in (1, 2)]
    assert bits[1] < bits[0] < np.log2(V)
    strange = np.array([[1, 3, 8, 3, 2]])
    assert (KneserNey(train, 3, V).probabilities(strange) > 0).all()


def test_a_words_continuations_count_and_not_its_occurrences():
    """San Francisco: a word that is frequent after one other only is unlikely after a third."""
    train = np.array([[1, 4, 5, 2]] * 50 + [[1, a, 6, 2] for a in (4, 7, 8)] + [[1, 7, 8, 2]])
    after_7 = KneserNey(train, 2, V)
    ask = lambda word: after_7.probabilities(np.array([[1, 8, word, 2]]))[1]  # noqa: E731
    assert ask(6) > ask(5)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_are_those_of_nltk(order):
    """Which has one discount for all orders, and none at the single token, where it knows no word that it has not seen."""
    lm = pytest.importorskip("nltk.lm")
    train, held = texts(40, 0), texts(5, 1)
    padded = [[[1] * (order - 2) + [int(word) for word in row if word] for row in some] for some in (train, held)]
    places = [[(row, t) for row in some for t in range(max(1, order - 1), len(row))] for some in padded]
    theirs = lm.KneserNeyInterpolated(order, discount=0.3)
    theirs.fit([[tuple(map(str, row[t - n:t + 1])) for row, t in places[0] for n in range(order)]],
               [str(word) for row in padded[0] for word in row])
    expected = [theirs.score(str(row[t]), [str(word) for word in row[t - order + 1:t]]) for row, t in places[1]]
    ours = KneserNey(train, order, V)
    for number, level in enumerate(ours.levels):
        level["discount"] = 0.3 if number else 0.0
    np.testing.assert_allclose(ours.probabilities(held), expected, rtol=1e-12)
