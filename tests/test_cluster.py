"""k-means, whitening and mutual information, against references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core import cluster


def blobs(k=6, each=40, dim=8, spread=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, dim, generator=generator)
    truth = torch.arange(k).repeat(each)
    return centres[truth] + spread * torch.randn(len(truth), dim, generator=generator), truth


def test_whitened_covariance_is_the_identity_before_the_rows_are_scaled():
    x = torch.randn(4000, 6) @ torch.randn(6, 6) * 1e-4 + 3e-3  # eps must not depend on the features' scale
    w = cluster.whiten(x.double(), dim=6)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(4000).double())
    centred = x.double() - x.double().mean(0)
    mahalanobis = centred @ torch.linalg.inv(centred.T @ centred / len(x)) @ centred.T[:, :50]
    expected = torch.nn.functional.normalize(mahalanobis, dim=0)[:, :50]  # same Gram matrix up to row lengths
    gram = torch.nn.functional.normalize(w @ w[:50].T * mahalanobis_length(centred)[:, None], dim=0)
    torch.testing.assert_close(gram, expected, atol=1e-3, rtol=0)


def mahalanobis_length(x):
    return (x @ torch.linalg.inv(x.T @ x / len(x)) * x).sum(1).sqrt()


def test_whiten_keeps_the_largest_directions_and_survives_dead_ones():
    x = torch.zeros(100, 5)
    x[:, 3] = torch.linspace(-1, 1, 100)
    w = cluster.whiten(x, dim=2)
    assert w.shape == (100, 2) and w.isfinite().all()
    assert w[:, 0].abs().min() > 0.99  # all of the variance lies there
    assert cluster.whiten(torch.ones(10, 3)).isfinite().all()


def test_assign_is_the_nearest_centroid():
    x, c = torch.randn(50, 4), torch.randn(7, 4)
    assert torch.equal(cluster.assign(x, c, chunk=16), torch.cdist(x, c).argmin(1))


def lloyd(x, k, labels, iterations):
    """The plain algorithm in loops, from the same first assignment; no empty cluster expected."""
    for _ in range(iterations):
        centroids = np.stack([x[labels == j].mean(0) for j in range(k)])
        labels = np.array([((row - centroids) ** 2).sum(1).argmin() for row in x])
    return labels, centroids


def test_kmeans_is_lloyds_algorithm():
    torch.manual_seed(1)
    x = torch.randn(120, 3).double()
    first, _ = cluster.kmeans(x, 5, seed=3, iterations=0)
    for iterations in (1, 2, 7):
        labels, centroids = cluster.kmeans(x, 5, seed=3, iterations=iterations)
        expected, where = lloyd(x.numpy(), 5, first.numpy(), iterations)
        assert np.array_equal(labels.numpy(), expected)
        np.testing.assert_allclose(centroids.numpy(), where, rtol=1e-9)


def test_kmeans_finds_blobs():
    x, truth = blobs()
    labels, _ = cluster.kmeans(x, 6, seed=0)
    best = max(cluster.nmi(cluster.kmeans(x, 6, seed=s)[0], truth) for s in range(3))
    assert best > 0.99 and cluster.nmi(labels, truth) > 0.7  # one start may be a local optimum


def test_sets_clustered_together_are_clustered_as_each_by_itself():
    x = torch.stack([blobs(3, 20, seed=seed, spread=0.5)[0] for seed in range(8)])
    x[6] = x[6, :3].repeat(20, 1)  # three points, each many times: two of the first four samples coincide
    x[7] = 1.0
    assert torch.equal(cluster.kmeans_each(x, 4), torch.stack([cluster.kmeans(own, 4)[0] for own in x]))
    start = torch.stack([cluster.kmeans(own, 4, iterations=2)[0] for own in x])
    assert torch.equal(cluster.kmeans_each(x, 4, iterations=2), start)


def test_under_autocast_clusters_are_those_of_float32():
    x = torch.stack([blobs(3, 20, seed=seed, spread=0.5)[0] for seed in range(4)])
    whole, each = cluster.kmeans(x[0], 4), cluster.kmeans_each(x, 4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cluster.kmeans(x[0].bfloat16(), 4)
        assert all(torch.equal(a, b) for a, b in zip(whole, cluster.kmeans(x[0], 4)))
        assert torch.equal(each, cluster.kmeans_each(x, 4))
    assert rounded[1].dtype == torch.float32


def test_kmeans_is_a_function_of_its_seed():
    x, _ = blobs(spread=1.0)
    a, b = cluster.kmeans(x, 9, seed=5), cluster.kmeans(x, 9, seed=5)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], cluster.kmeans(x, 9, seed=6)[0])


def test_no_cluster_stays_empty():
    """Half of the samples coincide, so many of the first centroids do: their clusters start empty."""
    x = torch.randn(200, 4)
    x[:100] = x[0]
    first, _ = cluster.kmeans(x, 20, iterations=0)
    labels, centroids = cluster.kmeans(x, 20)
    assert len(first.unique()) < 15 and len(labels.unique()) == 20 and centroids.isfinite().all()


def test_collapsed_features_give_one_cluster_and_no_nan():
    labels, centroids = cluster.kmeans(torch.ones(30, 4), 3)
    assert len(labels.unique()) == 1 and centroids.isfinite().all()


def test_more_clusters_than_points_is_an_error():
    with pytest.raises(ValueError, match="3 points into 4"):
        cluster.kmeans(torch.randn(3, 2), 4)
    assert len(cluster.kmeans(torch.randn(4, 2), 4)[0].unique()) == 4


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_nmi_against_counting(i, j, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(i, size=60), rng.integers(j, size=60)
    information = h_a = h_b = 0.0
    for u in set(a):
        h_a -= np.mean(a == u) * math.log(np.mean(a == u))
        for v in set(b):
            p = np.mean((a == u) & (b == v))
            information += p * math.log(p / (np.mean(a == u) * np.mean(b == v))) if p else 0
    for v in set(b):
        h_b -= np.mean(b == v) * math.log(np.mean(b == v))
    expected = information / math.sqrt(h_a * h_b) if h_a * h_b > 0 else float(h_a == h_b)
    assert cluster.nmi(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, abs=1e-9)


def test_nmi_ignores_the_numbers_of_clusters():
    a = torch.randint(5, (300,))
    assert cluster.nmi(a, torch.tensor([3, 0, 7, 1, 2])[a]) == pytest.approx(1)
    assert cluster.nmi(a, torch.randint(5, (300,))) < 0.1


def test_sinkhorn_is_swavs_algorithm():
    scores = torch.rand(24, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got = cluster.sinkhorn(scores, epsilon=0.1, iterations=3)
    q = np.exp(scores.double().numpy() / 0.1).T  # (prototypes, samples), as in the paper's Algorithm 1
    q /= q.sum()
    for _ in range(3):
        for k in range(5):
            q[k] *= (1 / 5) / q[k].sum()
        for n in range(24):
            q[:, n] *= (1 / 24) / q[:, n].sum()
    np.testing.assert_allclose(got, (q / q.sum(0)).T, rtol=1e-5)


def test_sinkhorn_fills_all_prototypes_evenly():
    scores = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    scores[:, 0] += 0.5  # without it all would go there
    codes = cluster.sinkhorn(scores, iterations=50)
    torch.testing.assert_close(codes.sum(1), torch.ones(400))
    torch.testing.assert_close(codes.mean(0), torch.full((8,), 1 / 8), atol=1e-3, rtol=0)
    extreme = cluster.sinkhorn(torch.tensor([[1e4, -1e4], [1e4, -1e4]]))
    assert extreme.isfinite().all()


def test_sinkhorn_passes_over_rows_that_are_no_samples():
    scores = torch.rand(24, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    empty = torch.arange(24) % 3 == 1
    codes = cluster.sinkhorn(scores.masked_fill(empty[:, None], -torch.inf))
    torch.testing.assert_close(codes[~empty], cluster.sinkhorn(scores[~empty]))
    assert not codes[empty].any()
    alone = torch.tensor([[1.0, 2.0], [-torch.inf, -torch.inf]])
    torch.testing.assert_close(cluster.sinkhorn(alone).sum(1), torch.tensor([1.0, 0.0]))


@given(st.lists(st.integers(0, 6), max_size=30))
def test_counted_is_bincount(labels):
    labels = torch.tensor(labels, dtype=torch.int64)
    assert torch.equal(cluster.counted(labels, 7), labels.bincount(minlength=7))


@pytest.mark.parametrize("n", [1, 7, 60, 1000])
def test_nmi_with_a_single_cluster(n):
    """Its entropy is 0 however the shares' sum rounds."""
    one, several = torch.zeros(n, dtype=torch.long), torch.arange(n) % 6
    assert cluster.nmi(one, one) == 1 and cluster.nmi(one, several) == cluster.nmi(several, one) == float(n == 1)
