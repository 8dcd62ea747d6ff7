"""From one domain to another without its labels: each way against what is known of it, and no label of the target
looked at."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.optimize import minimize

from selfsup import evals, report
from selfsup.errors import UserError
from selfsup.evals import adaptation
from tests.evals.conftest import ArraySplit

OPTIONS = {"samples": 200, "bootstrap": 100, "weight_decay": [1e-3, 1e-1], "directions": 2, "clip": 50.0,
           "components": 4, "mu": [0.1, 1.0]}
GRID = {key: value for key, value in OPTIONS.items() if key != "bootstrap"}


def between(low, high):
    """The sum of what SciPy varies."""
    return [{"type": "ineq", "fun": lambda w: w.sum() - low}, {"type": "ineq", "fun": lambda w: high - w.sum()}]


def gaussians(source, target, shift, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(0, 1, (source, 2)), random.normal(shift, 1, (target, 2))


# Weights


def test_a_classifiers_ratio_is_that_of_the_densities():
    """Also in its size, where the domains' sizes differ: without n_s / n_t (as in adapt's IWC) it would be four times
    less."""
    source, target = gaussians(2000, 500, 0.5)
    domains = adaptation.Domains(source, target, source, 2)
    weights = domains.ratio(1e6)(domains.source)
    true = np.exp(0.5 * source.sum(1) - 0.25)             # of N(0.5, 1) over N(0, 1) in both directions
    assert np.corrcoef(weights, true)[0, 1] > 0.95 and weights.mean() == pytest.approx(1, abs=0.1)
    assert np.median(weights / true) == pytest.approx(1, abs=0.15)
    assert domains.ratio(2.0)(domains.val).max() == 2
    assert adaptation.effective(torch.ones(7)) == 100 and adaptation.effective(torch.tensor([4.0, 0, 0, 0])) == 25


def test_kernel_mean_matching_is_the_quadratic_programmes_solution(monkeypatch):
    monkeypatch.setattr(adaptation, "BOUND", 3.0)         # so that the bound is felt
    source, target = gaussians(15, 20, 1.0)
    width, slack = adaptation.median(np.concatenate([source, target])), 15 - np.sqrt(15)
    kernel = np.array([[np.exp(-((a - b) ** 2).sum() / (2 * width**2)) for b in source] for a in source])
    kappa = np.array([15 / 20 * sum(np.exp(-((a - b) ** 2).sum() / (2 * width**2)) for b in target) for a in source])

    def loss(w):
        return 0.5 * w @ kernel @ w - kappa @ w

    slow = minimize(loss, np.ones(15), bounds=[(0, 3.0)] * 15, constraints=between(15 - slack, 15 + slack), method="SLSQP",
                    options={"maxiter": 500})
    ours = adaptation.kmm(source, target, steps=5000)
    assert loss(ours) == pytest.approx(slow.fun, abs=1e-3) and 0 <= ours.min() and ours.max() <= 3
    for low, high in ((20, 25), (2, 4), (0, 100)):        # the projection, against what it is by definition
        w = np.random.default_rng(1).normal(0.7, 1, 12)
        near = adaptation.projected(w, low, high)
        best = minimize(lambda v: ((v - w) ** 2).sum(), np.ones(12), bounds=[(0, 3)] * 12, method="SLSQP",
                        constraints=between(low, high))
        np.testing.assert_allclose(near, best.x, atol=1e-4)


def test_weighted_moments_of_the_source_are_the_targets():
    source, target = gaussians(400, 300, 0.6)
    domains = adaptation.Domains(source, target, source, 2)
    for weights in (adaptation.kmm(source, target), domains.ratio(100.0)(domains.source)):
        weights = weights / weights.mean()
        assert np.abs((weights[:, None] * source).mean(0) - target.mean(0)).max() < 0.15 < np.abs(target.mean(0)).min()


# TCA


def test_tca_solves_the_eigenproblem_of_2011():
    """Excludes what public code does: `eigh` of a matrix that is not symmetric, and the µ of 2009."""
    source, target = gaussians(30, 20, 1.5)
    tca = adaptation.TCA(source, target, 5, 0.1)
    both, n = np.concatenate([source, target]), 50
    kernel = np.array([[np.exp(-((a - b) ** 2).sum() / (2 * tca.width**2)) for b in both] for a in both])
    centre, apart = np.eye(n) - 1 / n, np.zeros((n, n))
    apart[:30, :30], apart[30:, 30:], apart[:30, 30:], apart[30:, :30] = 1 / 900, 1 / 400, -1 / 600, -1 / 600
    matrix = np.linalg.solve(kernel @ apart @ kernel + 0.1 * np.eye(n), kernel @ centre @ kernel)
    values, vectors = scipy.linalg.eig(matrix)
    order = np.argsort(-values.real)[:5]
    np.testing.assert_allclose(tca.values, values.real[order], rtol=1e-6)
    residual = matrix @ tca.weights - tca.weights * tca.values
    assert np.abs(residual).max() < 1e-8 * np.abs(tca.weights * tca.values).max()
    assert scipy.linalg.subspace_angles(tca.weights, vectors[:, order].real).max() < 1e-5
    np.testing.assert_allclose(tca.weights.T @ kernel @ centre @ kernel @ tca.weights, np.eye(5), atol=1e-7)
    np.testing.assert_allclose(tca(both), kernel @ tca.weights, atol=1e-10)


def test_tca_brings_the_domains_together_and_without_a_say_is_kernel_pca():
    source, target = gaussians(60, 60, 1.5)

    def apart(a, b):
        return ((a.mean(0) - b.mean(0)) ** 2).sum() / np.concatenate([a, b]).var(0).sum()

    tca, blind = (adaptation.TCA(source, target, 5, mu) for mu in (1e-3, 1e9))
    assert apart(tca(source), tca(target)) < 0.1 * apart(source, target)
    both = np.concatenate([source, target])
    kernel = adaptation.gaussian(both, both, blind.width)
    centred = kernel - kernel.mean(0)
    found = blind(both) - blind(both).mean(0)             # of the kernel that is centred
    expected = np.linalg.svd(centred)[0][:, :5]
    assert scipy.linalg.subspace_angles(found, expected).max() < 1e-4


# The protocol


def domain(x, labels, name):
    """A data set of numbers x (n, 2) in -4…4, as the first two pixels of images (n, 3, 3, 3)."""
    images = torch.full((len(x), 27), 128, dtype=torch.uint8)
    images[:, :2] = ((torch.as_tensor(x) + 4) * 255 / 8).round().clamp(0, 255).byte()
    splits = [ArraySplit(images[i::3].view(-1, 3, 3, 3), torch.as_tensor(labels[i::3]).long(), 2) for i in range(3)]
    card = {"classes": ["a", "b"], "hash": name, "name": name}
    return SimpleNamespace(train=splits[0], val=splits[1], test=splits[2], card=card, seed=0)


@pytest.fixture
def curve():
    """No line parts the classes; one does where the target is, another one where most of the source is (Shimodaira
    2000)."""
    source, target = gaussians(1800, 900, 0)
    source[:, 0], target[:, 0] = source[:, 0] - 0.7, 0.6 * target[:, 0] + 1
    return [domain(x, (x[:, 0] > 0.5) | (x[:, 0] < -1), name) for x, name in ((source, "source"), (target, "target"))]


def test_weights_help_where_the_model_cannot_fit_everything(encoder, curve):
    source, target = curve
    result = dict(evals.run("adaptation", encoder, target, source=source, **{**OPTIONS, "samples": 300}))
    assert result["source_only"]["accuracy"] < 40 and result["accuracy"] == result["source_only"]["accuracy"]
    for way in ("classifier", "kmm"):
        assert result[way]["low"] > 80 and 2 < result[way]["effective"] < 70, way
    assert result["target"]["accuracy"] > 95 and result["tca"]["mu"] in OPTIONS["mu"]


def test_tca_helps_where_the_domain_is_a_shift(encoder):
    source, target = gaussians(900, 900, 0)
    labels = [part[:, 0] > 0 for part in (source, target)]
    source[:, 0] += np.where(labels[0], 1.0, -1.0)
    target[:, 0] += np.where(labels[1], 1.0, -1.0) + 1.5
    pair = [domain(0.8 * x, y, name) for x, y, name in ((source, labels[0], "source"), (target, labels[1], "target"))]
    result = dict(evals.run("adaptation", encoder, pair[1], source=pair[0], **{**OPTIONS, "mu": [0.1]}))
    assert result["source_only"]["high"] < 87 < result["tca"]["low"] and result["target"]["accuracy"] > 95


def test_no_label_of_the_target_chooses_and_test_is_read_once(encoder, curve):
    source, target = curve
    before = dict(evals.run("adaptation", encoder, target, source=source, **OPTIONS))
    assert target.test.reads == 1 and source.test.reads == 0
    for split in (target.train, target.val):
        split.labels = 1 - split.labels
    after = dict(evals.run("adaptation", encoder, target, source=source, **OPTIONS))
    assert {way: value for way, value in after.items() if way != "target"} == {
        way: value for way, value in before.items() if way != "target"}
    assert after["target"]["accuracy"] < 10
    target.test.labels = 1 - target.test.labels
    turned = dict(evals.run("adaptation", encoder, target, source=source, **OPTIONS))
    for way in adaptation.WAYS:
        assert all(turned[way][name] == after[way][name] for name in ("weight_decay", "val_accuracy"))


def test_what_is_no_pair_of_domains_is_refused(encoder, curve):
    source, target = curve
    with pytest.raises(UserError, match="source is what the encoder was trained on"):
        evals.judge("adaptation", encoder, source, source=source, **GRID)
    target.card["classes"] = ["a", "c"]
    with pytest.raises(UserError, match=r"target has other classes \(a, c\) than source \(a, b\)"):
        evals.judge("adaptation", encoder, target, source=source, **GRID)


def test_the_report_has_a_line_for_each_pair_of_domains():
    def result(accuracy, **more):
        return {"accuracy": accuracy, "low": accuracy - 1, "high": accuracy + 1, **more}

    ways = {way: result(10 * i, effective=i) for i, way in enumerate(adaptation.WAYS)}
    judged = {"adaptation": {"seeds": {"0": result(0, **ways), "1": result(0, **ways)}}}
    rows = [SimpleNamespace(title="run", run=SimpleNamespace(data="day"), results={}, elsewhere={"night": judged, "ink": judged})]
    panel = adaptation.panel(report, rows, {"samples": 1000})
    heads, table = panel.table
    assert len(heads) == 7 and [row.title for row, _ in table] == ["run on night", "run on ink"]
    assert [cell["accuracy"] for cell in table[0][1]] == [0, 10, 20, 30, 40, 1, 2]
    assert "1,000 training samples" in panel.remarks[0]
