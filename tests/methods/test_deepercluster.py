"""DeeperCluster: two levels of clusters and four rotations, on data whose groups are known and of very different size."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import cluster, rng
from selfsup.errors import UserError
from selfsup.methods.deepercluster import DeeperCluster


def build(images=40, classes=4, norm="group", **args):
    torch.manual_seed(0)
    card = {"counts": {"train": images}, "classes": list(range(classes))}
    return DeeperCluster(nets.build("convnet", width=4, norm=norm), card, **args)


def epoch(method, features, number=0, seed=0):
    """before_epoch on given features (N, dim), or a function that makes them; what it logged and what it restarted."""
    logged, restarted = {}, []
    log = lambda **row: logged.update(row)  # noqa: E731
    embed = (lambda: features) if torch.is_tensor(features) else features
    method.before_epoch(SimpleNamespace(epoch=number, seed=seed, embed=embed, restart=restarted.append, log=log))
    return logged, restarted


def drawn_evenly(group, label):
    """How often each image is drawn, 1 on average, where a group is, a cluster of its, then an image of that."""
    at = list(zip(group, label))
    clusters = lambda g: len({z for y, z in at if y == g})  # noqa: E731
    return [len(at) / (len(set(group)) * clusters(g) * at.count((g, z))) for g, z in at]


def test_loss_is_equation_5():
    method = build(groups=2, clusters=6).eval()
    epoch(method, torch.randn(40, 6))
    x, index = torch.randn(5, 3, 16, 16), torch.tensor([30, 2, 11, 7, 39])
    v, b = method.coarse.weight.detach().double().numpy(), method.coarse.bias.detach().double().numpy()
    w = method.fine.weight.detach().double().numpy().reshape(8, 3, -1)  # (super-class, cluster, dim)
    minus_log = lambda logits, label: np.log(np.exp(logits).sum()) - logits[label]  # noqa: E731
    weights, losses = drawn_evenly(method.group.tolist(), method.label.tolist()), []
    for image, i in zip(x, index.tolist()):
        for quarter in range(4):
            turned = torch.tensor(np.rot90(image.numpy(), quarter, axes=(1, 2)).copy())[None]
            with torch.no_grad():
                f = method.norm(method.encoder(turned))[0].double().numpy()
            y = int(method.group[i]) * 4 + quarter
            losses.append(weights[i] * (minus_log(v @ f + b, y) + minus_log(w[y] @ f, int(method.label[i]))))
    assert float(method({"image": x, "index": index})["loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_sub_classes_are_clusters_within_the_group():
    method, features = build(groups=2, clusters=6, pca=3), torch.randn(40, 6)
    logged, restarted = epoch(method, features, number=3, seed=7)
    white, key = cluster.whiten(features, 3), rng.key(7, 3)
    group, _ = cluster.kmeans(white, 2, seed=key)
    assert torch.equal(method.group, group)
    for g in range(2):
        assert torch.equal(method.label[group == g], cluster.kmeans(white[group == g], 3, rng.key(key, g))[0])
    assert restarted == [method.coarse, method.fine]
    assert logged == {"clusters": 6, "smallest_group": int(group.bincount().min()),
                      "largest_group": int(group.bincount().max())}  # no NMI: nothing to compare with yet


def test_clusters_anew_every_third_epoch():
    method, changed = build(groups=2, clusters=6), []
    for number in range(7):
        before = method.label.clone(), method.fine.weight.clone()
        logged, restarted = epoch(method, torch.randn(40, 6), number)
        same = torch.equal(before[0], method.label) and torch.equal(before[1], method.fine.weight)
        assert same == (not logged) == (not restarted)
        changed += [] if same else [number]
        assert ("nmi" in logged) == (number in (3, 6))
    assert changed == [0, 3, 6]


def test_a_long_tail_leaves_no_group_or_cluster_empty(monkeypatch):
    """Heaps of 38 images and of 2, 10 clusters a group: a group smaller than that has as many as images."""
    monkeypatch.setattr(cluster, "whiten", lambda x, dim: x)  # so that the heaps stay what they are
    features = torch.randn(40, 6) * 0.02
    features[5:7] += 10
    method = build(groups=2, clusters=20)
    logged, _ = epoch(method, features)
    assert logged == {"clusters": 12, "smallest_group": 2, "largest_group": 38}
    small = method.group[5]
    weight = method.weight[method.group, method.label]
    assert weight.tolist() == pytest.approx(drawn_evenly(method.group.tolist(), method.label.tolist()))
    # The two images of a group count as much as the other 38 together, and each of 10 clusters of these the same.
    assert float(weight[5:7].sum()) == pytest.approx(20) and float(weight[method.label == 9].sum()) == pytest.approx(2)
    assert (method.group == small).nonzero()[:, 0].tolist() == [5, 6]
    assert method.label[5:7].tolist() in ([0, 1], [1, 0])
    assert method.label[method.group != small].unique().tolist() == list(range(10))
    out = method({"image": torch.randn(4, 3, 16, 16), "index": torch.tensor([0, 5, 6, 39])})
    assert out["loss"].isfinite()


def test_collapsed_features_do_not_break_the_loss():
    method = build(groups=2, clusters=6)
    logged, _ = epoch(method, torch.ones(40, 6))
    assert logged["clusters"] == 1 and logged["smallest_group"] == 0
    assert method({"image": torch.randn(4, 3, 16, 16), "index": torch.arange(4)})["loss"].isfinite()


def test_number_of_clusters():
    assert build(images=100).clusters == 10  # ten times the classes, over four groups
    for wrong in ({"images": 30}, {"classes": 0}, {"clusters": 41}, {"clusters": 3}):
        with pytest.raises(UserError, match="set args.clusters"):
            build(**wrong)


def test_assignments_settle_over_epochs():
    """Images of six colours, few of them frequent, lit from above: successive assignments agree more and more."""
    random = torch.Generator().manual_seed(0)
    colours = torch.rand(6, 3, generator=random) * 2 - 1
    truth = torch.repeat_interleave(torch.arange(6), torch.tensor([80, 40, 20, 10, 6, 4]))
    x = colours[truth][:, :, None, None] + 0.7 * torch.randn(160, 3, 16, 16, generator=random)
    x = x + torch.linspace(1, -1, 16)[:, None]
    method = build(images=160, groups=2, clusters=6, pca=8, every=1, norm="batch")
    optimizer = torch.optim.Adam(method.parameters(), 2e-3)
    logged = []
    for number in range(6):
        logged.append(epoch(method, lambda: method.eval().encoder(x).detach(), number)[0])
        method.train()
        for part in torch.randperm(160, generator=random).split(40):
            optimizer.zero_grad()
            out = method({"image": x[part], "index": part})
            out["loss"].backward()
            optimizer.step()
    assert logged[-1]["nmi"] > logged[1]["nmi"] + 0.1
    assert out["accuracy_super"] > 0.3  # chance is 1/8
