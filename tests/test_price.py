"""What labels cost, what a way of learning saves of them, and the figure of both."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup import claims, config, report
from selfsup.report import label_curves
from selfsup.report.price import annotation_cost, monotone, needed, saved

ROOT = Path(__file__).parents[1]
N = st.integers(1, 10**6)
CURVE = st.dictionaries(N, st.floats(0, 100), min_size=1, max_size=6)


def curve(*points, spread=0.0, seeds=3, shift=1):
    """{labels: {seed: accuracy}} of (labels, accuracy): seeds lie `spread` apart."""
    return {n // shift: {str(seed): value + spread * (seed - 1) for seed in range(seeds)} for n, value in points}


POINTS = (40, 50), (200, 70), (1000, 90), (6000, 95)


def test_the_lectures_number():
    assert annotation_cost(10**6, 10, 15) == pytest.approx(41_666.67, abs=0.01)
    assert f"${annotation_cost(10**6, 10, 15):,.0f}" == "$41,667"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_monotone_is_isotonic_regression(values):
    """The largest over starts of the smallest over ends of the means of what lies between (Robertson et al. 1988)."""
    n = len(values)
    slow = [max(min(np.mean(values[a:b + 1]) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]
    assert np.allclose(monotone(values), slow, atol=1e-9)


def test_labels_are_read_linearly_in_their_logarithm():
    some = dict(POINTS)
    assert needed(some, 70) == 200 and needed(some, 50) == 40
    assert needed(some, 80) == pytest.approx((200 * 1000) ** 0.5)
    assert needed(some, 20) == 40                        # with the fewest that were tried: perhaps with fewer
    assert needed(some, 95.1) is None                    # nothing is extrapolated
    assert needed({10: 60, 20: 50, 80: 71}, 55) == 10    # a fall is no reason to buy more: 55 at both
    assert needed({10: 60, 20: 50, 80: 71}, 63) == pytest.approx(20 * 4**0.5)


@given(CURVE, st.floats(0, 100), st.floats(0, 100))
def test_more_accuracy_takes_no_fewer_labels(some, one, other):
    fewer, more = (needed(some, accuracy) for accuracy in sorted((one, other)))
    assert more is None or fewer <= more * (1 + 1e-9)
    assert all(value is None or min(some) <= value <= max(some) * (1 + 1e-9) for value in (fewer, more))


@settings(max_examples=20)
@given(CURVE, CURVE, st.randoms(use_true_random=False), st.integers(1, 3))
def test_the_order_of_points_and_seeds_is_nothing(own, other, random, seeds):
    def mixed(some):
        points = [(n, list(seeds.items())) for n, seeds in some.items()]
        random.shuffle(points)
        for _, each in points:
            random.shuffle(each)
        return {n: dict(each) for n, each in points}

    own, other = (curve(*some.items(), spread=3.0, seeds=seeds) for some in (own, other))
    n = max(other)
    assert saved(own, other, n) == saved(mixed(own), mixed(other), n)


@settings(max_examples=20)
@given(CURVE, st.integers(1, 3))
def test_identical_curves_save_nothing(some, seeds):
    """Where the curve is flat, too: fewer labels are enough for both."""
    some = curve(*some.items(), spread=2.0, seeds=seeds)
    for n in some:
        found = saved(some, some, n)
        assert (found.labels, found.least) == (0, False)
        assert (found.low, found.high) == ((0, 0) if seeds > 1 else (None, None))


def test_half_the_labels_save_half():
    own = curve(*POINTS, shift=2, spread=1.0)
    for n in (200, 1000, 6000):
        found = saved(own, curve(*POINTS, spread=1.0), n)
        assert found.labels == pytest.approx(n / 2) and not found.least
        assert found.low == pytest.approx(n / 2) and found.high == pytest.approx(n / 2)  # seed by seed


def test_what_is_not_reached_is_none_and_what_is_there_from_the_start_is_a_bound():
    scratch = curve(*POINTS)
    assert saved(curve((40, 60), (200, 89)), scratch, 1000).labels is None
    found = saved(curve((40, 71), (200, 80)), scratch, 200)
    assert (found.labels, found.least) == (160, True)
    assert saved(curve((40, 71), seeds=1), curve(*POINTS, seeds=1), 200).low is None
    assert saved({40: {"0": 71}}, {40: {"1": 71}}, 40) is None  # no seed in common


def test_the_interval_is_that_of_seeds_drawn_anew():
    """By hand: seeds of the own curve need 100, 200 and 400 labels, of the other one 400; two of three alike are
    frequent enough for the bounds to be those of a seed alone."""
    scratch = {100: dict.fromkeys("012", 0.0), 400: dict.fromkeys("012", 2.0)}
    own = {100: {"0": 2.0, "1": 1.0, "2": 0.0}, 400: {"0": 4.0, "1": 3.0, "2": 2.0}}
    found = saved(own, scratch, 400)
    assert found.labels == pytest.approx(200) and (found.low, found.high) == pytest.approx((0, 300))
    low = saved({n: {**seeds, "2": 0.0} for n, seeds in own.items()}, scratch, 400)
    assert low.low is None and low.high == pytest.approx(300)  # of some draws it never gets there


@pytest.fixture(scope="module")
def price(tmp_path_factory):
    """The experiment's params, with results of most runs made up: (params, root, rows, cards)."""
    root = tmp_path_factory.mktemp("price")
    (root / "conf").symlink_to(ROOT / "conf")
    params = claims.compose(root, "price")
    scratch = {10: 30, 40: 50, 250: 80, 1000: 90, None: 96}

    own = {"ece": 1.0, "sure": {}, "right": {}, "overconfidence": {"accuracy": 1, "low": 0, "high": 2}}

    def write(name, protocol, value, **more):
        result = {"accuracy": value, "low": value - 2, "high": value + 2}
        seeds = {str(seed): {**result, "accuracy": value + seed - 1, **more} for seed in range(3)}
        out = root / config.results(name)
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{protocol}.json").write_text(json.dumps({**result, "seeds": seeds}))

    for name, run in params.runs.items():
        if run.method == "supervised":
            write(name, "classify", scratch[run.labels], **own)
        elif run.method in ("mean_teacher", "simclr_v2_distil"):
            write(name, "classify", scratch[run.labels] + 6, **own)
    ways = {f"{n} labels" if n else "100": {"labels": n or 6000, "accuracy": value, "low": value - 1, "high": value + 1}
            for n, value in scratch.items()}
    write("price-simclr", "low_shot", 40, linear=ways, finetune=ways)
    counts = {"train": 6000, "val": 1000, "test": 2000}
    card = {"name": "scenes", "classes": [str(i) for i in range(10)], "counts": counts}
    return params, root, report.collect(params, root), {"scenes": card}


def test_runs_that_differ_in_labels_alone_are_one_curve(price):
    params, _, rows, cards = price
    (group,) = label_curves.curves(params, rows, cards)
    found = {curve.title: sorted(curve.points) for curve in group}
    every = [10, 40, 250, 1000, 6000]
    # A run of simclr_v2 starts from one that has as many labels as it has.
    assert found == {"supervised": every, "mean_teacher": [40, 250, 1000], "simclr, linear": every,
                     "simclr, fine-tuned": every, "simclr_v2": [40, 250]}
    assert set(group[0].points[6000]) == {"0", "1", "2"}


def test_the_panels_of_price(price):
    params, _, rows, cards = price
    bought, dollars = label_curves.panels(params, rows, cards)
    heads, table = bought.table
    assert heads == ["10 labels", "40 labels", "250 labels", "1,000 labels", "6,000 labels"]
    lines = {row.title: cells for row, cells in table}
    assert list(lines)[0] == "supervised, from scratch"
    assert [cell and cell["accuracy"] for cell in lines["mean_teacher"]] == [None, 56, 86, 96, None]
    assert "$250.00" in bought.figure and "$10.42" in bought.figure  # the axis above
    assert "a million $41,667" in bought.remarks[0] and "pixels $325.00 (78 s)" in bought.remarks[0]
    heads, table = dollars.table
    assert heads[-1] == "6,000 labels, $250.00"
    lines = {row.title: cells for row, cells in table}
    assert "supervised, from scratch" not in lines
    assert all(cell.startswith("$0.00 [") for cell in lines["simclr, linear"])  # all its seeds are the others' mean
    assert lines["simclr_v2"][:2] == [None, None]        # it was not tried with fewer, so nothing is known
    assert lines["simclr_v2"][4] == "costs more than $10.42"
    fewer = 250 - 40 * (250 / 40) ** (24 / 30)           # 80 lies 24 of 30 points between 56 and 86
    assert lines["mean_teacher"][2] == f"${annotation_cost(fewer, 10, 15):,.2f}"


def test_a_share_of_labels_is_a_number_of_them():
    card = {"classes": ["a"] * 10, "counts": {"train": 6100}, "unlabelled": {"train": 100}}
    counted = [label_curves.budget(SimpleNamespace(labels=n), card) for n in (None, 40, 0.1, 1.0, 1e-6)]
    assert counted == [6000, 40, 600, 6000, 10]


def test_without_training_from_scratch_nothing_is_compared(price):
    params, _, rows, cards = price
    without = [row for row in rows if row.run.method != "supervised"]
    assert label_curves.panels(params, without, cards) == []
    assert label_curves.panels(params, [row for row in rows if row.run.method == "supervised"], cards) == []
