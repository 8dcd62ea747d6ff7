"""DeepCluster's epochs on images whose groups are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core import cluster
from selfsup.errors import UserError
from selfsup.methods.deepcluster import DeepCluster


def build(images=40, classes=4, norm="group", **args):
    torch.manual_seed(0)
    card = {"counts": {"train": images}, "classes": list(range(classes))}
    return DeepCluster(nets.build("convnet", width=4, norm=norm), card, **args)


def epoch(method, features, number=0, seed=0):
    """before_epoch on given features (N, dim); returns what it logged and what it restarted."""
    logged, restarted = {}, []
    log = lambda **row: logged.update(row)  # noqa: E731
    embed = (lambda: features) if torch.is_tensor(features) else features
    method.before_epoch(SimpleNamespace(epoch=number, seed=seed, embed=embed, restart=restarted.append, log=log))
    return logged, restarted


def test_loss_weighs_every_cluster_alike():
    """Section 3.3: by the inverse of the cluster's size, which is uniform sampling over clusters in expectation."""
    method = build(clusters=5).eval()
    epoch(method, torch.randn(40, 6))
    x = torch.randn(40, 3, 16, 16)
    out = method({"image": x, "index": torch.arange(40)})
    with torch.no_grad():
        logits = method.classifier(method.norm(method.encoder(x))).double().numpy()
    label = method.label.numpy()
    losses = np.array([-np.log(np.exp(row[c]) / np.exp(row).sum()) for row, c in zip(logits, label)])
    by_cluster = [losses[label == c].mean() for c in sorted(set(label))]
    assert float(out["loss"].detach()) == pytest.approx(np.mean(by_cluster), rel=1e-5)
    half = [method({"image": part, "index": i})["loss"] for part, i in zip(x.chunk(2), torch.arange(40).chunk(2))]
    torch.testing.assert_close(sum(half) / 2, out["loss"])  # however the batch is split


def test_labels_are_the_clusters_of_whitened_features():
    method, features = build(clusters=5, pca=3).eval(), torch.randn(40, 6)
    logged, _ = epoch(method, features, number=2, seed=7)
    from selfsup.core import rng

    expected, _ = cluster.kmeans(cluster.whiten(features, 3), 5, seed=rng.key(7, 2))
    assert torch.equal(method.label, expected)
    assert logged == {"clusters": 5}  # no NMI: nothing to compare with yet
    x = torch.randn(3, 3, 16, 16)
    index = torch.tensor([30, 2, 11])
    logits = method.logits(x)
    losses = F.cross_entropy(logits, expected[index], reduction="none") * method.weight[expected[index]]
    torch.testing.assert_close(method({"image": x, "index": index})["loss"], losses.mean())


def test_classifier_starts_anew_as_a_function_of_seed_and_epoch():
    a, b = build(clusters=5), build(clusters=5)
    b.classifier.weight.data.normal_()
    features = torch.randn(40, 6)
    _, restarted = epoch(a, features, number=3)
    epoch(b, features, number=3)
    assert restarted == [a.classifier] and torch.equal(a.classifier.weight, b.classifier.weight)
    assert a.classifier.bias.abs().sum() == 0 and float(a.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    epoch(b, features, number=4)
    assert not torch.equal(a.classifier.weight, b.classifier.weight)
    epoch(b, features, number=3, seed=1)
    assert not torch.equal(a.classifier.weight, b.classifier.weight)


def test_number_of_clusters():
    assert build(images=100).clusters == 40  # ten times the classes
    for wrong in ({"images": 30}, {"classes": 0}, {"clusters": 41}):
        with pytest.raises(UserError, match="set args.clusters"):
            build(**wrong)


def test_collapsed_features_do_not_break_the_loss():
    method = build(clusters=5)
    logged, _ = epoch(method, torch.ones(40, 6))
    assert logged["clusters"] == 1
    assert method({"image": torch.randn(4, 3, 16, 16), "index": torch.arange(4)})["loss"].isfinite()


def test_nmi_rises_and_no_cluster_empties_over_epochs():
    """240 images of six colours, more clusters than colours: training makes successive assignments agree."""
    random = torch.Generator().manual_seed(0)
    colours = torch.rand(6, 3, generator=random) * 2 - 1
    truth = torch.arange(240) % 6
    x = colours[truth][:, :, None, None] + 0.7 * torch.randn(240, 3, 16, 16, generator=random)
    method = build(images=240, clusters=8, pca=8, norm="batch")
    optimizer = torch.optim.Adam(method.parameters(), 2e-3)
    rows = []
    for number in range(8):
        logged, _ = epoch(method, lambda: method.eval().encoder(x).detach(), number)
        rows.append(logged)
        method.train()
        for part in torch.randperm(240, generator=random).split(40):
            optimizer.zero_grad()
            method({"image": x[part], "index": part})["loss"].backward()
            optimizer.step()
    assert all(row["clusters"] == 8 for row in rows)
    nmi = [row["nmi"] for row in rows[1:]]
    assert np.mean(nmi[-3:]) > nmi[0] + 0.2 and nmi[-1] > nmi[1] > nmi[0]


def test_clusters_picture_groups_what_the_classifier_groups():
    method = build(clusters=5)
    epoch(method, torch.randn(40, 6))
    pictures = method.pictures({"image": torch.randn(10, 3, 16, 16)})
    assert pictures["clusters"].shape == (3, 8 * 18, 8 * 18)
