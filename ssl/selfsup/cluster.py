"""k-means on GPU or CPU tensors, batched; deterministic for a given seed."""

import torch

from . import rng


def whiten(x, dim=None, eps=1e-5):
    """PCA-whitened (N, d) -> (N, dim), then rows of unit length: what DeepCluster clusters (Caron 2018, sec. 3.3)."""
    x = x - x.mean(0)
    variances, directions = torch.linalg.eigh(x.T @ x / len(x))
    order = variances.argsort(descending=True)[:dim]
    x = x @ directions[:, order] / (variances[order].clamp(min=0) + eps).sqrt()
    return torch.nn.functional.normalize(x, dim=1)


def assign(x, centroids, chunk=65536):
    """Index of the nearest centroid (Euclidean) of each row: (N, d), (k, d) -> int64 (N,)."""
    half = centroids.square().sum(1) / 2
    return torch.cat([(part @ centroids.T - half).argmax(1) for part in x.split(chunk)])


def kmeans(x, k, seed=0, iterations=20):
    """Lloyd's k-means of (N, d) -> (assignments int64 (N,), centroids (k, d)).

    Starts from k distinct samples. An empty cluster is given a point of the largest one, slightly moved, as in
    DeepCluster (sec. 3.2), so none stays empty while N ≥ k.
    """
    if len(x) < k:
        raise ValueError(f"k-means of {len(x)} points into {k} clusters")
    centroids = x[rng.permutation(len(x), seed)[:k].to(x.device)].clone()
    for step in range(iterations):
        labels = assign(x, centroids)
        counts = torch.bincount(labels, minlength=k)
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        centroids = sums / counts.clamp(min=1)[:, None]
        for empty in (counts == 0).nonzero().flatten().tolist():
            largest = int(counts.argmax())
            noise = 1e-4 * rng.normal(rng.key(seed, step, empty), x.shape[1]).to(x.device)
            centroids[empty], centroids[largest] = centroids[largest] + noise, centroids[largest] - noise
            counts[empty] = counts[largest] // 2
            counts[largest] -= counts[empty]
    return assign(x, centroids), centroids
