"""What to label next: scores against definitions, and data in which it is known what should be asked for."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfsup import config, evals, report
from selfsup.errors import UserError
from selfsup.evals import active
from tests.evals.conftest import ArraySplit, Flatten, blobs

OPTIONS = {"start": 8, "batch": 4, "rounds": 2, "repeats": 2, "strategies": ["kl"], "committee": 2, "beta": 1.0,
           "weight_decay": [1e-1, 1.0], "bootstrap": 50}


def splits(noise=120.0):
    train, val, test = (ArraySplit(*blobs(n, seed, noise=noise), classes=4) for seed, n in enumerate((200, 100, 100)))
    return SimpleNamespace(train=train, val=val, test=test, card=val.card, seed=0, shards="toy")


@pytest.fixture(scope="module")
def found():
    return dict(evals.run("active", Flatten(), splits(), **OPTIONS))


def probabilities(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)).double().add(0.01).log().mul(2).softmax(-1)


def test_scores_are_as_the_survey_defines_them():
    """Settles 2009, sections 3.1 and 3.2, by loops; the largest is asked for."""
    p = probabilities(4, 6, 3)
    for u in range(6):
        one, members = p[0, u].tolist(), p[:, u].tolist()
        ranked = sorted(one, reverse=True)
        assert active.least_confident(p)[u].item() == pytest.approx(1 - ranked[0])
        assert active.margin(p)[u].item() == pytest.approx(1 - (ranked[0] - ranked[1]))
        assert active.entropy(p)[u].item() == pytest.approx(-sum(q * math.log(q) for q in one))
        votes = [sum(row.index(max(row)) == c for row in members) / 4 for c in range(3)]
        assert active.vote_entropy(p)[u].item() == pytest.approx(-sum(v * math.log(v) for v in votes if v), abs=1e-6)
        consensus = [sum(row[c] for row in members) / 4 for c in range(3)]
        divergence = sum(q * math.log(q / m) for row in members for q, m in zip(row, consensus)) / 4
        assert active.kl(p)[u].item() == pytest.approx(divergence)


def test_a_committee_of_copies_disagrees_on_nothing():
    same = probabilities(1, 50, 4).expand(5, -1, -1)
    assert active.vote_entropy(same).abs().max() == 0 and active.kl(same).max() < 1e-12


def test_density_is_the_mean_similarity_to_the_pool(monkeypatch):
    x = torch.randn(9, 3)
    by_hand = [sum(1 / (1 + (a - b).norm().item()) for b in x) / 9 for a in x]
    monkeypatch.setattr(active, "BLOCK", 20)  # blocks of two
    np.testing.assert_allclose(active.density(x), by_hand, rtol=1e-4)


def line(n, seed):
    """Points of a line in random order, whose class changes at an unknown place: features (n, 1), labels (n,)."""
    x = torch.rand(n, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return x, (x[:, 0] > 0.3).long()


def pool(x, labels, **more):
    return SimpleNamespace(x=x, labels=labels, classes=2, weight=torch.ones(len(x)), committee=4, held=x, truth=labels,
                           decays=[1e-4], seed=0, **more)


def wrong(x, labels, curve):
    return {n: (active.predict(x, *solution) != labels).float().mean().item() for n, solution, _ in curve}


@pytest.mark.parametrize("name", ["least_confident", "margin", "entropy"])
def test_a_threshold_is_found_by_bisection(name):
    """With two classes on a line uncertainty needs of the order of log 1/ε labels, random of the order of 1/ε."""
    x, labels = line(1000, 0)
    start = torch.tensor([int(x[:, 0].argmin()), int(x[:, 0].argmax())])
    asked, random = (wrong(x, labels, active.bought(pool(x, labels), start, which, 1, 12))
                     for which in (name, "random"))
    assert list(asked) == list(range(2, 15)) and asked[14] < 0.01 < random[14]


def test_uncertainty_gets_stuck_at_what_nobody_can_tell():
    """Settles 2009, figure 6: what lies between the classes, and is like none of those that are judged by, is bought by
    uncertainty before all others, and teaches nothing: it ends below random."""
    random = torch.Generator().manual_seed(0)
    labels, centres = torch.arange(500) % 6, torch.randn(6, 12, generator=random)
    centres = 3 * centres / centres.norm(dim=1, keepdim=True)
    x = centres[labels] + torch.randn(500, 12, generator=random)
    between = torch.arange(500) < 150  # labelled all the same, and by chance
    x[between] = 0.1 * torch.randn(150, 12, generator=random)
    start, errors, junk = torch.arange(150, 162), {}, {}
    for name in ("random", "entropy"):
        asked = pool(x[:300], labels[:300])
        asked.classes, asked.held, asked.truth, asked.decays = 6, x[300:], labels[300:], [1e-2]
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(active, "path", lambda x, *rest, path=active.path: seen.append(x.clone()) or path(x, *rest))
            errors[name] = list(wrong(x[300:], labels[300:], active.bought(asked, start, name, 10, 6)).values())
        junk[name] = (seen[-1][12:].norm(dim=1) < 1).float().mean()
    assert junk["entropy"] > 0.9 > 0.6 > junk["random"]
    assert errors["entropy"][0] == errors["random"][0] and errors["entropy"][-1] > errors["random"][-1] + 0.03


def test_what_is_bought_starts_alike_and_is_bought_once(found):
    assert list(found["curves"]) == ["random", "kl", "dense_kl"]
    assert all(list(points) == ["8", "12", "16"] for points in found["curves"].values())
    first = [points["8"] for points in found["curves"].values()]
    assert all(point == first[0] for point in first)  # paired
    for way, points in found["curves"].items():
        assert found["mean"][way]["accuracy"] == pytest.approx(np.mean([points[n]["accuracy"] for n in ("12", "16")]),
                                                               abs=0.02)
        if way != "random":
            lead = found["mean"][way]["accuracy"] - found["mean"]["random"]["accuracy"]
            assert found["lead"][way]["accuracy"] == pytest.approx(lead, abs=0.02)
    assert found["accuracy"] == found["curves"][found["way"]]["16"]["accuracy"] > 40  # chance is 25
    features, labels = evals.embed(Flatten(), splits().train)
    seen = []
    asked = pool(features, labels)
    asked.classes, path = 4, active.path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(active, "path", lambda x, *rest: seen.append(x.clone()) or path(x, *rest))
        list(active.bought(asked, active.purchase(labels)[:8], "entropy", 4, 3))
    assert [len(x) for x in seen] == [8, 12, 16, 20] and len(seen[-1].unique(dim=0)) == 20
    assert all(torch.equal(a, b[:len(a)]) for a, b in zip(seen, seen[1:]))


def test_beta_zero_is_without_density(found):
    plain = dict(evals.run("active", Flatten(), splits(), **{**OPTIONS, "beta": 0.0}))
    assert list(plain["curves"]) == ["random", "kl"]
    assert all(plain["curves"][way] == found["curves"][way] for way in plain["curves"])


def test_choices_see_no_more_of_val_than_was_bought_and_nothing_of_test(found):
    """Excludes a weight decay that is chosen on more labels than there are: others of val may be wrong."""
    data = splits()
    seeds = [int(active.rng.key(0, repeat)) for repeat in range(2)]
    shown = set().union(*(active.purchase(data.val.labels, seed)[:16].tolist() for seed in seeds))
    hidden = torch.tensor([i for i in range(100) if i not in shown])
    order = {seed: active.purchase(data.val.labels, seed) for seed in seeds}
    truth = data.val.labels.clone()
    data.val.labels[hidden] = (data.val.labels[hidden] + 1) % 4
    with pytest.MonkeyPatch.context() as patch:  # which are shown follows from the labels: settled before
        purchase = active.purchase
        patch.setattr(active, "purchase", lambda labels, seed: order[seed] if len(labels) == len(truth) else
                      purchase(labels, seed))
        assert dict(evals.run("active", Flatten(), data, **OPTIONS)) == found
    data = splits()
    data.test.labels = data.test.labels.roll(1)
    other = dict(evals.run("active", Flatten(), data, **OPTIONS))
    assert (other["way"], other["val_accuracy"]) == (found["way"], found["val_accuracy"])
    assert other["accuracy"] < found["accuracy"]


@pytest.mark.parametrize("change, words", [
    ({"start": 3}, "active.start: 3 labels cannot hold one of each of 4 classes"),
    ({"batch": 100}, "active: 8 labels and 2 rounds of 100 are 208, more than the 200 of toy")])
def test_too_few_labels_are_one_sentence(change, words):
    options = {key: value for key, value in {**OPTIONS, **change}.items() if key != "bootstrap"}
    with pytest.raises(UserError, match=words):
        evals.judge("active", Flatten(), splits(), **options)


def test_a_committee_of_one_is_one_sentence():
    section, problems = config.checker.section("evals", "active"), config.checker.Problems("params.yaml")
    problems.make("protocols.active", section, {**OPTIONS, "committee": 1})
    assert list(problems) == ["protocols.active.committee should be greater than or equal to 2, not 1"]


def test_the_report_has_curves_and_leads(found):
    other = {**found, "lead": {way: {**cell, "accuracy": cell["accuracy"] + 1} for way, cell in found["lead"].items()}}
    rows = [SimpleNamespace(title="a", results={"active": {"seeds": {"0": found, "1": other}}}),
            SimpleNamespace(title="b", results={"active": {"seeds": {"0": found}}})]
    panel = active.panel(report, rows, OPTIONS)
    assert panel.table[0] == [f"{way}, mean of the curve" for way in sorted(found["mean"])]
    lead = found["lead"]["kl"]
    assert f" kl {lead['accuracy'] + 0.5:+.1f} [" in panel.sentences[0]
    assert f" kl {lead['accuracy']:+.1f} [{lead['low']:.1f}, {lead['high']:.1f}]" in panel.sentences[1]
    assert "dense_kl" in panel.figure and "labels bought" in panel.figure
