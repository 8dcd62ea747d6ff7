"""From the data that an encoder was trained on to others of the same classes, without their labels: a linear classifier
on frozen features of the source, judged on the target.

Four ways, and the labels of the target as the ceiling:
- source_only: as it is;
- classifier: each sample of the source counts by w(x) = p_t(x) / p_s(x) (Shimodaira 2000,
  https://doi.org/10.1016/S0378-3758(00)00115-4), told by a classifier of the domains (Bickel et al. 2007,
  https://doi.org/10.1145/1273496.1273507);
- kmm: by weights that bring its mean in a kernel's space to that of the target (Huang et al. 2007,
  https://papers.nips.cc/paper/3110-correcting-sample-selection-bias-by-unlabeled-data);
- tca: in a space in which the domains' means agree (Pan et al. 2011, https://doi.org/10.1109/TNN.2010.2091281).

No label of the target chooses anything: weight decay and TCA's μ are chosen by the accuracy on the source's val, where
samples count by their weights as in training (Sugiyama et al. 2007, https://jmlr.org/papers/v8/sugiyama07a.html).
"""

from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch

from selfsup.arguments import Count, NotNegative, Positive, Range
from selfsup.core import rng
from selfsup.data.order import purchase
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent, summarise
from selfsup.evals.linear import Probe, Standardise, path

title = "Source only"
column = False                                           # but a table of its own
elsewhere = True
WAYS = {"source_only": "source only", "classifier": "weighted, by a classifier", "kmm": "weighted, by KMM",
        "tca": "TCA", "target": "labels of the target"}
BOUND = 1000.0                                           # of a weight of KMM, Huang et al.'s


def choose(encoder, data, source, samples: Annotated[int, Range(ge=10, le=5000)],
           weight_decay: Annotated[list[NotNegative], Range(min_length=1)], directions: Count, clip: Positive,
           components: Count, mu: Annotated[list[Positive], Range(min_length=1)]):
    """Fits all ways on at most `samples` training samples of each domain, as balanced over classes as they allow in the
    source and at random in the target.

    data: the target; source: an evals.Data of what the encoder was trained on. directions: the densities are compared
    along so many principal directions of both domains, since in more of them a classifier tells the domains apart
    without a mistake and no sample of the source counts; clip: the largest weight, of a mean of 1. components: of
    TCA."""
    check(source, data)
    classes = len(data.card["classes"])
    (x, y), held, (z, truth) = embed(encoder, source.train), embed(encoder, source.val), embed(encoder, data.train)
    some = purchase(y.cpu(), data.seed)[:samples].to(x.device)
    others = rng.permutation(len(z), data.seed)[:samples].to(z.device)
    x, y, z = x[some], y[some], z[others]
    same = Standardise(torch.cat([x, z]))
    domains = Domains(*(same(part).double().cpu().numpy() for part in (x, z, held[0])), directions)

    def weighted(weigh):
        weights = (torch.from_numpy(weigh(part)).float().to(x.device) for part in (domains.source, domains.val))
        own, val = (some / some.mean() for some in weights)
        return Probe((x.clone(), y, own), (*held, val), classes, weight_decay), own

    ways = {"source_only": (lambda features: features, Probe((x.clone(), y), held, classes, weight_decay), {})}
    for way, weigh in (("classifier", domains.ratio(clip)), ("kmm", domains.matched)):
        probe, own = weighted(weigh)
        ways[way] = (lambda features: features, probe, {"effective": effective(own)})
    ways["tca"] = transferred(same, x, y, z, held, classes, weight_decay, components, mu)
    val = embed(encoder, data.val)
    ways["target"] = (lambda features: features, Probe((z, truth[others]), val, classes, weight_decay), {})
    return SimpleNamespace(val_accuracy=percent(ways["source_only"][1].val), ways=ways)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test of the target) and val_accuracy (of the source's val) of source_only;
    then of each of WAYS these, weight_decay, of those that weigh `effective`, the effective sample size as a share in
    percent, and of TCA mu. val_accuracy of `target` is on the target's val."""
    features, truth = embed(encoder, data.test)
    results = {way: {**dict(accuracy(probe(into(features)) == truth, bootstrap)), "val_accuracy": percent(probe.val),
                     "weight_decay": probe.decay, **told} for way, (into, probe, told) in chosen.ways.items()}
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, results["source_only"][name]
    yield from results.items()


def check(source, data):
    """UserError where the two are no pair of domains."""
    ours, theirs = source.card, data.card
    if ours["hash"] == theirs["hash"]:
        raise UserError(f"protocols.adaptation: {theirs['name']} is what the encoder was trained on, so there is nothing "
                        "to adapt to; name another data set under `runs` or `on`")
    if ours["classes"] != theirs["classes"]:
        raise UserError(f"protocols.adaptation: {theirs['name']} has other classes ({', '.join(theirs['classes'])}) "
                        f"than {ours['name']} ({', '.join(ours['classes'])}), which the encoder was trained on")


def effective(weights):
    """(Σw)² / Σw² as a share of the samples, in percent: how many of them the weights leave."""
    return percent(weights.sum() ** 2 / weights.square().sum() / len(weights))


class Domains:
    """Features of the source's train and val and of the target's train, (n, d) float64, along the `directions` in which
    those of both domains' training samples vary most; what weights come of them."""

    def __init__(self, source, target, val, directions):
        both = np.concatenate([source, target])
        _, axes = np.linalg.eigh(np.atleast_2d(np.cov(both.T)))
        axes = axes[:, ::-1][:, :directions]
        self.source, self.target, self.val = ((part - both.mean(0)) @ axes for part in (source, target, val))

    def ratio(self, clip):
        """A function from points to p_t / p_s there, at most `clip`: (n_s / n_t) · P(target | x) / P(source | x) by
        logistic regression. Without the first factor, which public code forgets, the domains' sizes would be in it,
        too."""
        both = torch.from_numpy(np.concatenate([self.source, self.target])).float()
        domain = torch.arange(len(both)) >= len(self.source)
        weight, bias = path(both, domain.long(), 2, [1e-3])[1e-3]

        def weigh(points):
            logits = torch.from_numpy(points) @ weight.double() + bias.double()
            odds = (logits[:, 1] - logits[:, 0]).exp().numpy()
            return np.minimum(odds * len(self.source) / len(self.target), clip)

        return weigh

    def matched(self, points):
        """The weights of points by kernel mean matching."""
        return kmm(points, self.target)


def median(points):
    """The median of the distances between points (n, d), of 500 of them at most."""
    some = points[:: -(-len(points) // 500)]
    return np.median(np.sqrt(distances(some, some))[np.triu_indices(len(some), 1)])


def distances(a, b):
    """Squared distances (n, m)."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def gaussian(a, b, width):
    """The kernel exp(−‖a − b‖² / 2 width²), (n, m)."""
    return np.exp(distances(a, b) / (-2 * width**2))


def kmm(source, target, steps=500):
    """Weights (n_s,) that minimise ½ wᵀKw − κᵀw with κ_i = (n_s / n_t) Σ_j k(x_i, x_j), where 0 ≤ w ≤ BOUND and the sum
    is within n_s ε of n_s, ε = (√n_s − 1) / √n_s (Huang et al. 2007, eq. 12), by projected gradients with Nesterov's
    momentum. The kernel's width is the median distance."""
    n, width = len(source), median(np.concatenate([source, target]))
    kernel, kappa = gaussian(source, source, width), gaussian(source, target, width).sum(1) * n / len(target)
    slack, rate = n - np.sqrt(n), 1 / np.linalg.eigvalsh(kernel)[-1]
    weights = ahead = np.ones(n)
    t = 1.0
    for _ in range(steps):
        before, weights = weights, projected(ahead - rate * (kernel @ ahead - kappa), n - slack, n + slack)
        t, last = (1 + np.sqrt(1 + 4 * t**2)) / 2, t
        ahead = weights + (last - 1) / t * (weights - before)
    return weights


def projected(w, lowest, highest):
    """The nearest point to w (n,) with 0 ≤ w ≤ BOUND and lowest ≤ Σw ≤ highest: shifted by what a bisection finds."""
    total = np.clip(w, 0, BOUND).sum()
    goal = min(max(total, lowest), highest)
    low, high = (w - BOUND).min(), w.max()               # shifts at which all are BOUND, and 0
    for _ in range(60 * (goal != total)):
        shift = (low + high) / 2
        low, high = (shift, high) if np.clip(w - shift, 0, BOUND).sum() > goal else (low, shift)
    return np.clip(w - (high if goal != total else 0), 0, BOUND)


class TCA:
    """Transfer component analysis of a source and a target, (n, d) each.

    With K the kernel of all samples, L_ij = 1/n_s², 1/n_t² or −1/(n_s n_t), so that tr(KLK…) is the distance of the
    domains' means, and H what centres: the leading eigenvectors W of (KLK + μI)⁻¹ KHK (Pan et al. 2011; in the version
    of 2009 μ stands elsewhere and means the opposite). That matrix is not symmetric, and public code gives it to
    `eigh`; the pair KHK, KLK + μI is. Scaled so that Wᵀ KHK W = I: components have the same variance."""

    def __init__(self, source, target, components, mu):
        from scipy.linalg import eigh

        self.samples, count = np.concatenate([source, target]), len(source) + len(target)
        self.width = median(self.samples)
        kernel = gaussian(self.samples, self.samples, self.width)
        mean = np.concatenate([np.full(len(source), 1 / len(source)), np.full(len(target), -1 / len(target))])
        apart, centred = kernel @ mean, kernel - kernel.mean(0)
        self.left, self.right = centred.T @ centred, np.outer(apart, apart) + mu * np.eye(count)
        values, vectors = eigh(self.left, self.right, subset_by_index=[max(0, count - components), count - 1])
        self.values, self.weights = values[::-1], vectors[:, ::-1] / np.sqrt(np.maximum(values[::-1], 1e-12))

    def __call__(self, points):
        """Components (n, m) of points (n, d)."""
        return gaussian(points, self.samples, self.width) @ self.weights


def transferred(same, x, y, z, held, classes, decays, components, mus):
    """(what makes components of features, the classifier on them, {mu}), of the μ that is best on the source's val."""
    found = []
    for mu in mus:
        tca = TCA(*(same(part).double().cpu().numpy() for part in (x, z)), components, mu)

        def into(features, tca=tca):
            return torch.from_numpy(tca(same(features).double().cpu().numpy())).to(features)

        probe = Probe((into(x), y), (into(held[0]), held[1]), classes, decays)
        found.append((into, probe, {"mu": mu}))
    return max(found, key=lambda each: each[1].val)      # the first of equals


def notes(report, rows, options):
    yield ("Source only: a linear classifier on frozen features of the data that the encoder was trained on, judged on "
           "other data of the same classes, of which no label was used.")


def panel(report, rows, options):
    heads, table = list(WAYS.values()) + ["effective samples, classifier", "effective samples, KMM"], []
    for row, data, result in report.everywhere(rows, "adaptation"):
        def over(way, key=None):
            seeds = {seed: content[way] for seed, content in result["seeds"].items()}
            if key:
                seeds = {seed: dict.fromkeys(("accuracy", "low", "high"), some[key]) for seed, some in seeds.items()}
            return summarise(seeds)

        cells = [*map(over, WAYS), *(over(way, "effective") for way in ("classifier", "kmm"))]
        table.append((SimpleNamespace(title=f"{row.title} on {data}", role=""), cells))
    return report.Panel(
        "adaptation", "From one data set to another", "Accuracy on test of data that the encoder was not trained on, "
        "with labels of its own data alone; and with labels of the target.", table=(heads, table), short="Adaptation",
        remarks=[f"On at most {options['samples']:,} training samples of each. Weight decay and μ were chosen on val of "
                 "the source, where samples count by their weights; for the last way on val of the target. Effective samples: "
                 "how many of a hundred the weights leave."])
