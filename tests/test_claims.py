"""Verdicts on the lectures' claims, computed from result files as the pipeline writes them."""

import json
import shutil

import numpy as np
import pytest
import yaml

from selfsup import claims, config, intervals, sentences, verdicts
from selfsup.errors import UserError
from tests import quick


@pytest.fixture
def results(tmp_path):
    """results(run, protocol, {seed: accuracy}): the files of a run."""

    def write(run, protocol, seeds, half=2.0):
        folder = tmp_path / config.results(run)
        folder.mkdir(parents=True, exist_ok=True)
        content = {str(s): {"accuracy": a, "low": a - half, "high": a + half} for s, a in enumerate(seeds)}
        (folder / f"{protocol}.json").write_text(json.dumps({"seeds": content}))
        return tmp_path

    return write


def recorded(root, run, *seeds):
    """The histories of a run, rows by seed, and what is kept of them."""
    for seed, rows in enumerate(seeds):
        folder = root / config.encoders(run) / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdicts.keep(root, run, range(len(seeds)))


def test_a_history_cut_off_is_one_sentence(tmp_path):
    recorded(tmp_path, "e-a", [{"loss": 1.0}])
    file = tmp_path / config.encoders("e-a") / "0/history.jsonl"
    file.write_text(file.read_text()[:-4])
    with pytest.raises(UserError, match="history.jsonl is damaged .*dvc checkout"):
        verdicts.keep(tmp_path, "e-a", [0])


def found(root, **expected):
    names = ["e-a", "e-b", "e-c", "e-d"]
    return verdicts.check(root, config.Expectation(**expected), names)


@pytest.mark.parametrize("a, b, verdict", [
    ([50, 51, 52], [40, 41, 42], "holds here"),
    ([40, 41, 42], [50, 51, 52], "does not hold here"),
    ([50, 40, 45], [44, 46, 43], "undecided at this budget"),
    # Each seed of a is better than its own b by much the same, though the seeds differ by more: they are paired.
    ([30, 50, 70], [28, 47.5, 68], "holds here"),
    ([50], [44], "holds here"),  # one seed: ±2 both, ±2.8 of the difference
    ([50], [48], "undecided at this budget"),
])  # fmt: skip
def test_one_run_higher_than_another(results, a, b, verdict):
    root = results("e-a", "linear", a)
    results("e-b", "linear", b)
    finding = found(root, higher="e-a", than="e-b")
    assert finding.verdict == verdict
    assert finding.says.startswith("Accuracy by Linear: a is ") and f" {'above' if a > b else 'below'} b (95 % interval " in finding.says
    assert finding.says.endswith("; expected was above, and less than 1 point would not matter")
    assert bool(finding.decides) == (verdict == "undecided at this budget")


@pytest.mark.parametrize("low, high, margin, verdict", [
    (-0.9, 0.9, 1, "no difference of that size"),
    (0.2, 0.8, 1, "no difference of that size"),  # above 0, and too little to matter
    (-0.8, -0.2, 1, "no difference of that size"),
    (0, 0, 1, "no difference of that size"),
    (-0.9, 1, 1, "undecided at this budget"),  # it touches the margin
    (-1, 0.9, 1, "undecided at this budget"),
    (0.2, 1, 1, "holds here"),
    (-1, -0.2, 1, "does not hold here"),
    (1.5, 2, 1, "holds here"),
    (-1.5, 0.5, 2, "no difference of that size"),
    (-0.01, 0.01, None, "undecided at this budget"),
    (None, None, 1, "undecided at this budget"),  # one number
])  # fmt: skip
def test_an_interval_within_the_margin(low, high, margin, verdict):
    assert verdicts.decide(low, high, above=0, margin=margin) == verdict


def test_which_difference_is_too_small_by_hand(results):
    """Differences of 0.1, 0.3 and 0.2, as of 0.2 ± 4.3027 · 0.1 / √3: [-0.05, 0.45]."""
    results("e-a", "linear", [50.1, 61.3, 70.2])
    root = results("e-b", "linear", [50, 61, 70])
    assert found(root, higher="e-a", than="e-b").verdict == "no difference of that size"
    assert found(root, higher="e-a", than="e-b", margin=0.5).verdict == "no difference of that size"
    assert found(root, higher="e-a", than="e-b", margin=0.4).verdict == "undecided at this budget"
    assert found(root, higher="e-b", than="e-a", margin=0.5).verdict == "no difference of that size"
    pair = {"less": ["e-a", "e-b"]}  # 0.1, 0.3 and 0.2 against none: a difference of differences is in points, too
    assert found(root, higher=pair, than={"less": ["e-b", "e-b"]}).verdict == "no difference of that size"
    assert found(root, higher="e-a", above=0).verdict == "holds here"  # nothing compared, no margin


def test_what_is_no_accuracy_has_the_margin_that_it_names_or_none(tmp_path):
    for run, shares in (("e-a", (0.61, 0.63, 0.62)), ("e-b", (0.60, 0.61, 0.61))):
        recorded(tmp_path, run, *([{"val_accuracy": share}] for share in shares))
    pair = dict(higher="e-a", than="e-b", by="history.val_accuracy")  # 0.0133 [-0.001, 0.028]
    assert found(tmp_path, **pair).verdict == "undecided at this budget"  # a share: 1 would be everything
    assert found(tmp_path, **pair, margin=0.05).verdict == "no difference of that size"
    assert verdicts.margin(config.Expectation(higher="e-a", than="e-a", by="linear", than_by="cost.seconds")) is None


def test_interval_of_paired_seeds_by_hand(results):
    root = results("e-a", "knn", [30, 50, 70])
    results("e-b", "knn", [28, 47, 66])
    mean, low, high = (verdicts.measure(root, "e-a", "knn") - verdicts.measure(root, "e-b", "knn")).interval
    # Differences 2, 3, 4: mean 3, deviation 1, t(2, 97.5 %) = 4.3027.
    assert (mean, low, high) == pytest.approx((3, 3 - 4.3027 / 3**0.5, 3 + 4.3027 / 3**0.5), abs=1e-3)


def test_only_shared_seeds_are_compared(results):
    root = results("e-a", "knn", [10, 20, 90])
    results("e-b", "knn", [5])
    mean, low, high = (verdicts.measure(root, "e-a", "knn") - verdicts.measure(root, "e-b", "knn")).interval
    assert (mean, high - low) == pytest.approx((5, 2 * 8**0.5))


def test_what_training_recorded_last_and_first(tmp_path):
    recorded(tmp_path, "e-a", *([{"nmi": 0.2}, {"loss": 1.0}, {"nmi": last}, {"loss": 0.5}] for last in (0.6, 0.7, 0.65)))
    assert verdicts.measure(tmp_path, "e-a", "history.nmi").seeds == {"0": 0.6, "1": 0.7, "2": 0.65}
    finding = found(tmp_path, higher="e-a", than="e-a", by="history.nmi", than_by="history.first.nmi")
    assert finding.verdict == "holds here" and finding.says.startswith("Nmi after training: a is 0.45 above nmi when training began of a (95 % interval ")
    assert found(tmp_path, higher="e-a", by="history.nmi", below=0.9).verdict == "holds here"
    assert found(tmp_path, higher="e-a", by="history.nmi", above=0.9).verdict == "does not hold here"
    with pytest.raises(UserError, match="e-a.json has no std"):
        found(tmp_path, higher="e-a", by="history.std", above=0)


def test_what_training_recorded_outlives_the_encoders(tmp_path):
    recorded(tmp_path, "e-a", [{"std": 1.0}, {"std": 0.5}], [{"std": 1.0}, {"std": 0.25}])
    kept = (tmp_path / "data/results/e/histories/e-a.json").read_bytes()
    (tmp_path / config.encoders("e-a") / "1/history.jsonl").unlink()
    verdicts.keep(tmp_path, "e-a", [0, 1])  # one of two is no result
    shutil.rmtree(tmp_path / config.encoders("e-a"))
    verdicts.keep(tmp_path, "e-a", [0, 1])
    assert (tmp_path / "data/results/e/histories/e-a.json").read_bytes() == kept
    assert verdicts.measure(tmp_path, "e-a", "history.std").seeds == {"0": 0.5, "1": 0.25}
    recorded(tmp_path, "e-a", [{"std": 0.75}], [{"std": 0.75}])  # trained again
    assert verdicts.measure(tmp_path, "e-a", "history.std").seeds == {"0": 0.75, "1": 0.75}


def test_what_another_training_recorded_does_not_count(tmp_path):
    cost = tmp_path / config.results("e-a") / "cost.json"
    cost.parent.mkdir(parents=True)
    cost.write_text(json.dumps({"seeds": {"0": {"seconds": 12.34}}}))
    recorded(tmp_path, "e-a", [{"std": 0.5}])
    assert verdicts.measure(tmp_path, "e-a", "history.std").seeds == {"0": 0.5}
    cost.write_text(json.dumps({"seeds": {"0": {"seconds": 12.35}}}))
    assert verdicts.measure(tmp_path, "e-a", "history.std") is None


def test_a_floor_has_no_history(tmp_path):
    recorded(tmp_path, "e-a", [])
    assert verdicts.measure(tmp_path, "e-a", "history.std") is None


def test_a_single_number_without_an_interval_decides_nothing(tmp_path):
    recorded(tmp_path, "e-a", [{"std": 0.01}])
    finding = found(tmp_path, higher="e-a", by="history.std", below=0.1)
    assert finding.verdict == "undecided at this budget" and "a is 0.01 (1 seed, without an interval)" in finding.says
    assert "three or more" in finding.decides


def test_a_lead_that_grows(results):
    """The lead of a over b is larger with few labels (knn here) than with all (linear)."""
    for run, knn, linear in (("e-a", [30, 31, 32], [60, 61, 62]), ("e-b", [20, 21, 22], [58, 59, 60])):
        results(run, "knn", knn)
        root = results(run, "linear", linear)
    pair = {"less": ["e-a", "e-b"]}
    assert found(root, higher=pair, than=pair, by="knn", than_by="linear").verdict == "holds here"
    assert found(root, higher=pair, than=pair, by="linear", than_by="knn").verdict == "does not hold here"


@pytest.mark.parametrize("numbers, bound, margin, says", [
    # Of three seeds that deviate by 1 Student's t gives 2.48; it is below 1.5 from 5 seeds on: 1.24 (of 4 it is 1.59).
    ([0.5, 1.5, 2.5], 0, 1.0, "5 seeds in place of 3 would decide it, if mean and spread stay as they are: that it is above."),
    ([-0.5, -1.5, -2.5], 0, None, "5 seeds in place of 3 would decide it, if mean and spread stay as they are: that it is below."),
    # 0.1 from 0 and 1.9 from the margin.
    ([-0.9, 0.1, 1.1], 0, 2.0, "4 seeds in place of 3 would decide it, if mean and spread stay as they are: that there is no "
                               "difference of that size."),
    ([-1.0, 0.02, 1.0], 0, None, "No number of seeds up to 100 would decide it, if mean and spread stay as they are: it takes another "
                                 "budget."),
    ([9.5, 10.5, 11.5], 12, None, "5 seeds in place of 3 would decide it, if mean and spread stay as they are: that it is below."),
])  # fmt: skip
def test_what_would_decide(numbers, bound, margin, says):
    value = intervals.Value({str(i): number for i, number in enumerate(numbers)}, dict.fromkeys(map(str, range(3)), 2.0))
    assert sentences.decides(value, bound, margin) == says


def test_as_many_seeds_decide_as_are_said_to():
    """Seeds of the same mean and deviation, so many of them and one less, held against the verdict itself."""
    def of(n):
        spread = np.resize([1.0, -1.0], n)
        spread -= spread.mean()
        spread = 1.2 + spread / spread.std(ddof=1)
        return intervals.Value({str(i): number for i, number in enumerate(spread)}, {str(i): 0.0 for i in range(n)})

    enough = int(sentences.decides(of(3)).split()[0])
    verdict = {n: verdicts.decide(*of(n).interval[1:], above=0) for n in (enough - 1, enough)}
    assert verdict == {enough - 1: verdicts.UNDECIDED, enough: verdicts.HOLDS}


@pytest.mark.parametrize("by, told", [
    ("linear", "accuracy by Linear"), ("low_shot.finetune.1", "Few labels (finetune, 1)"), ("cost.images_per_second", "images per second"),
    ("history.first.nmi", "nmi when training began"), ("night/linear", "accuracy by Linear on night"), ("classify.ece", "Own classifier (ece)"),
])  # fmt: skip
def test_measures_in_words(by, told):
    assert sentences.measured(by) == told


def test_amounts_have_their_units():
    assert sentences.amount(2.46, "linear") == "2.5 points" and sentences.amount(1.0, "linear") == "1 point"
    assert sentences.amount(2_321_920.0, "cost.parameters") == "2,321,920" and sentences.amount(0.456, "history.std") == "0.456"
    assert sentences.amount(0.3, "bits.model.bits") == "0.3", "bits are no points"


def test_mean_over_runs(results):
    for run, accuracy in (("e-a", [10, 20]), ("e-b", [30, 42]), ("e-c", [15, 26])):
        root = results(run, "linear", accuracy)
    several = {"mean": ["e-a", "e-b"]}
    value = intervals.Value.mean([verdicts.measure(root, run, "linear") for run in ("e-a", "e-b")])
    assert value.seeds == {"0": 20, "1": 31} and value.half["0"] == pytest.approx(2**0.5)
    finding = found(root, higher=several, than="e-c")  # 5 in either seed
    assert finding.verdict == "holds here" and finding.says.startswith(
        "Accuracy by Linear: the mean of a, b is 5 points above c (95 % interval 5.0 to 5.0, 2 seeds)")


def ranked_apart(results, linear, spread=0.5, margin=None):
    """The finding for twelve runs whose kNN accuracy is 10, 11, …, 21, and their linear one as given, three seeds."""
    noise = np.random.default_rng(1).normal(0, spread, (2, 12, 3))
    for i in range(12):
        results(f"e-{i}", "knn", 10 + i + noise[0, i])
        root = results(f"e-{i}", "linear", linear[i] + noise[1, i])
    expected = config.Expectation(ranked_apart=["knn", "linear"], margin=margin)
    return verdicts.check(root, expected, [f"e-{i}" for i in range(12)])


def test_two_measures_that_rank_runs_apart_by_more_than_seeds_do(results):
    turned = [10 + (5 * i) % 12 for i in range(12)]  # 5 and 12 share no factor: another order
    finding = ranked_apart(results, turned)
    assert finding.verdict == "holds here" and "over 12 runs is 1.00 between" in finding.says


def test_noise_of_seeds_alone_does_not_rank_runs_apart(results):
    """The two measures' correlation is well below 1 here, but no lower than that of two seeds."""
    accuracy = [40 + 2 * i for i in range(12)]
    assert ranked_apart(results, accuracy, spread=4).verdict == "undecided at this budget"
    assert ranked_apart(results, accuracy, spread=4, margin=0.9).verdict == "no difference of that size"


def test_rank_correlations_by_loops(results):
    from scipy.stats import spearmanr

    a, b = np.random.default_rng(0).normal(40, 9, (2, 6, 3)).round(2)
    for i in range(6):
        results(f"e-{i}", "knn", a[i])
        root = results(f"e-{i}", "linear", b[i])
    pairs = [(s, t) for s in range(3) for t in range(3) if s != t]
    within = np.mean([spearmanr(x[:, s], x[:, t]).statistic for x in (a, b) for s, t in pairs])
    between = np.mean([spearmanr(a[:, s], b[:, t]).statistic for s, t in pairs])
    says = verdicts.check(root, config.Expectation(ranked_apart=["knn", "linear"]), [f"e-{i}" for i in range(6)]).says
    assert f"{within:.2f} between seeds of accuracy by kNN or of accuracy by Linear, and {between:.2f} between" in says
    assert f"of the two: {within - between:.2f} lower (95 % interval " in says


def test_without_results_nothing_is_claimed(results, tmp_path):
    assert found(tmp_path, higher="e-a", than="e-b").verdict == "not run yet"
    results("e-a", "linear", [50])
    assert found(tmp_path, higher="e-a", than="e-b").verdict == "not run yet"
    assert found(tmp_path, ranked_apart=["knn", "linear"]).verdict == "not run yet"


def test_a_claim_stands_or_falls_with_all_it_expects():
    def of(*found):
        return verdicts.verdict([verdicts.Finding("", one) for one in found])

    assert of(verdicts.HOLDS, verdicts.HOLDS) == verdicts.HOLDS
    assert of(verdicts.HOLDS, verdicts.UNDECIDED) == verdicts.UNDECIDED
    assert of(verdicts.UNDECIDED, verdicts.FAILS, verdicts.HOLDS) == verdicts.FAILS
    assert of(verdicts.FAILS, verdicts.MISSING) == verdicts.MISSING
    assert of(verdicts.HOLDS, verdicts.NO_DIFFERENCE) == verdicts.NO_DIFFERENCE
    assert of(verdicts.UNDECIDED, verdicts.NO_DIFFERENCE) == verdicts.NO_DIFFERENCE
    assert of(verdicts.NO_DIFFERENCE, verdicts.FAILS) == verdicts.FAILS
    assert of(verdicts.NO_DIFFERENCE, verdicts.MISSING) == verdicts.MISSING


def test_page_and_markdown(results, tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    (conf / "experiment").mkdir(parents=True)
    (conf / "config.yaml").write_text("defaults:\n  - _self_\n  - experiment: quick\n" + yaml.safe_dump(base()))
    claim = {"says": "A beats B & C.", "margin_after_results": True, "expect": [{"higher": "e-a", "than": "e-b"}], "figure": ["linear", "history.std", ["knn", "linear"]]}
    runs = {name: {"method": "random", "data": "d", "seeds": [0, 1]} for name in ("e-a", "e-b")}
    experiment = {"experiment": "e", "datasets": {"d": DATA}, "runs": runs, "claims": {"ab": claim}}
    (conf / "experiment/e.yaml").write_text("# @package _global_\n" + yaml.safe_dump(experiment))
    results("e-a", "linear", [50, 51])
    results("e-b", "linear", [40, 41])
    results("e-b", "knn", [40, 41])
    recorded(tmp_path, "e-b", [{"rank": 3.0}], [{"rank": 4.0}])
    shutil.rmtree(tmp_path / "data/results/e/histories")
    page = claims.build(tmp_path)
    assert verdicts.measure(tmp_path, "e-b", "history.rank").seeds == {"0": 3.0, "1": 4.0}  # kept by the page
    html, text = page.read_text(), page.with_suffix(".md").read_text()
    assert "A beats B &amp; C." in html and html.count("<svg") == 2 and "<strong>holds here</strong>" in html  # one of them for a telephone
    assert "| [ab](#ab) | A beats B &amp; C. | holds here |" in text and "make experiment E=e && make parallel" in text
    late = "The margin was named after these results were seen: ab."
    assert html.count(late) == text.count(late) == 1
    assert "20,480 images of d seen by each convnet (width 32)" in html and "seen by each convnet (width 32). `make" in text


DATA = {"source": "digits", "size": 32, "max_bad": 0, "val_share": 0.1}


def base():
    """conf/config.yaml of this repository, without its choice of experiment."""
    from pathlib import Path

    shared = yaml.safe_load((Path(__file__).parents[1] / "conf/config.yaml").read_text())
    return {key: value for key, value in shared.items() if key not in ("defaults", "experiment")}


@pytest.mark.parametrize("expected, sentence", [
    ({"higher": "quick-simcl", "than": "quick-random"}, 'no run "quick-simcl"; did you mean "quick-simclr"'),
    ({"higher": "quick-simclr"}, "one of `than`, `above` and `below`"),
    ({"higher": "quick-simclr", "than": "quick-random", "above": 1}, "one of `than`, `above` and `below`"),
    ({"above": 1}, "either `higher` or `ranked_apart`"),
    ({"ranked_apart": ["linear", "knn"], "below": 1}, "if it has `higher`"),
    ({"higher": "quick-simclr", "above": 1, "margin": 1}, "expect.0.margin is that of a difference"),
    ({"higher": "quick-simclr", "than": "quick-random", "margin": 0}, "expect.0.margin should be greater than 0"),
])  # fmt: skip
def test_claims_are_checked_with_the_params(tmp_path, expected, sentence):
    from pathlib import Path

    raw = quick.params()
    raw["claims"] = {"c": {"says": "so", "expect": [expected], "figure": ["linear"]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match=sentence):
        config.load(tmp_path / "params.yaml")
