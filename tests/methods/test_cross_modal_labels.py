"""de Sa's labels: the loss in loops, and what it finds in pairs of Gaussians beside her own algorithm and k-means."""

import math

import numpy as np
import pytest
import torch
import torch.nn as nn
from scipy.optimize import linear_sum_assignment

from selfsup import nets
from selfsup.core import cluster
from selfsup.methods.cross_modal_labels import CrossModalLabels

CARD = {"schema": {"sound": {"kind": "sound", "shape": [1, 800], "dtype": "int16", "rate": 4000}},
        "classes": list("abc")}


def made(**args):
    torch.manual_seed(0)
    return CrossModalLabels(nets.build("convnet", width=4), CARD, mels=16, width=2, **args)


def softmax(row):
    return [math.exp(x) / sum(map(math.exp, row)) for x in row]


def test_the_loss_in_loops():
    image, sound = torch.randn(7, 3), torch.randn(7, 3)
    out = made(balance=3.0, temperature=0.2).objective(image, sound)
    loss, agree = 0, 0
    for a, b in zip(image.tolist(), sound.tolist()):
        for row, other in ((a, b), (b, a)):
            target = softmax([x / .2 for x in other])
            loss -= sum(t * math.log(p) for t, p in zip(target, softmax(row))) / 7
        agree += (a.index(max(a)) == b.index(max(b))) / 7
    for logits in (image, sound):
        mean = np.mean([softmax(row) for row in logits.tolist()], 0)
        loss += 3 * sum(p * math.log(p) for p in mean)
    assert float(out["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(out["agreement"]) == pytest.approx(agree) and float(out["used"]) == len(set(image.argmax(1).tolist()))


def test_a_label_teaches_and_is_not_taught_by_the_one_it_teaches():
    method = made(balance=0.0)
    image, sound = torch.randn(7, 3, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    method.objective(image, sound)["loss"].backward()
    expected = (image.softmax(1) - (sound / .25).softmax(1)) / 7
    torch.testing.assert_close(image.grad, expected.detach())


# --- Pairs of Gaussians that have nothing but the class in common


def gaussians(n=600, seed=0):
    """(two modalities (n, 2), classes (n,)): three classes in a row each, other two of which overlap; all are stretched
    across the row, which is what k-means divides."""
    generator = np.random.default_rng(seed)
    y = generator.integers(3, size=n)
    places = np.array([[0, 2.2, 6], [0, 3.8, 6]])
    spread = [generator.normal(size=(n, 2)) * [.7, 6] for _ in range(2)]
    return [np.stack([places[m][y], np.zeros(n)], 1) + spread[m] for m in range(2)], y


def accuracy(labels, y):
    """Share that is right where each label stands for one class, as well as can be (Hungarian matching)."""
    table = np.array([[((labels == a) & (y == b)).sum() for b in range(3)] for a in range(3)])
    return table[linear_sum_assignment(-table)].sum() / len(y)


def agreeing(**args):
    """Labels by both modalities after training two small networks on the method's objective."""
    (a, b), y = gaussians()
    method = made(**args)
    torch.manual_seed(1)
    two = nn.ModuleList(nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3)) for _ in range(2))
    optimizer = torch.optim.Adam(two.parameters(), 1e-2)
    x = [torch.from_numpy((m - m.mean(0)) / m.std(0)).float() for m in (a, b)]
    for _ in range(300):
        optimizer.zero_grad()
        method.objective(two[0](x[0]), two[1](x[1]))["loss"].backward()
        optimizer.step()
    return [net(m).argmax(1).numpy() for net, m in zip(two, x)], y


def nearest(x, vectors):
    return np.argsort([np.linalg.norm(x - w) for w in vectors])[:2]


def lvq(x, vectors, of, wanted, rate, width=.3):
    """A step of LVQ2.1 with `wanted` as x's label: of its two nearest vectors that of the label comes nearer and the
    other goes away, if just one has it and x lies near their border (de Sa 1993, section 2.1)."""
    i, j = nearest(x, vectors)
    if (of[i] == wanted) == (of[j] == wanted):
        return
    far = [np.linalg.norm(x - vectors[k]) for k in (i, j)]
    if far[0] / max(far[1], 1e-9) < (1 - width) / (1 + width):
        return
    right, wrong = (i, j) if of[i] == wanted else (j, i)
    for k, sign in ((right, 1), (wrong, -1)):
        away = x - vectors[k]
        vectors[k] += sign * rate * away / max(np.linalg.norm(away), 1e-9)


def de_sa(x, y, count=9, rounds=15, seed=0):
    """The M-D algorithm in loops: labelled vectors in each modality, each taught by the other's label, and labelled
    anew by what they are active together with."""
    generator = np.random.default_rng(seed)
    x = [(m - m.mean(0)) / m.std(0) for m in x]
    vectors = [cluster.kmeans(torch.from_numpy(m), count)[1].numpy().copy() for m in x]
    won = [np.array([nearest(row, v)[0] for row in m]) for m, v in zip(x, vectors)]
    joint = np.zeros((count, count))
    np.add.at(joint, tuple(won), 1)
    joint /= np.sqrt(joint.sum(1, keepdims=True) * joint.sum(0) + 1e-9)
    left, _, right = np.linalg.svd(joint)  # the initial labels: clusters of what is active together
    places = torch.from_numpy(np.concatenate([left[:, 1:3], right.T[:, 1:3]]))
    of = cluster.kmeans(places, 3, seed=seed)[0].numpy()
    of = [of[:count], of[count:]]
    for number in range(rounds):
        rate = .05 * (1 - number / rounds)
        for n in generator.permutation(len(y)):
            said = [of[m][nearest(x[m][n], vectors[m])[0]] for m in range(2)]
            for m in range(2):
                lvq(x[m][n], vectors[m], of[m], said[1 - m], rate)
    return [np.array([of[m][nearest(row, vectors[m])[0]] for row in x[m]]) for m in range(2)]


def test_it_finds_the_classes_that_neither_modality_shows_by_itself():
    labels, y = agreeing()
    x, _ = gaussians()
    ours = [accuracy(found, y) for found in labels]
    hers = [accuracy(found, y) for found in de_sa(x, y)]
    alone = [accuracy(cluster.kmeans(torch.from_numpy((m - m.mean(0)) / m.std(0)), 3)[0].numpy(), y) for m in x]
    # Who knows the classes and both distributions: nearest of the three places in the row.
    best = [np.mean(abs(m[:, :1] - places).argmin(1) == y) for m, places in zip(x, ([0, 2.2, 6], [0, 3.8, 6]))]
    assert min(ours) > max(alone) + .15, (ours, alone)
    assert min(np.array(ours) - best) > -.05, (ours, best)
    assert min(np.array(ours) - hers) > -.05, (ours, hers)


def test_without_the_entropy_fewer_labels_are_used():
    (seen, heard), y = agreeing(balance=0.0)
    assert len(set(seen)) < 3 and (seen == heard).mean() > .95, "agreement is no sign of having found anything"
