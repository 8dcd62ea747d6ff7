"""k-means on GPU or CPU tensors, and what goes with it; the same bits for the same seed and machine."""

import torch

from . import rng
from .distributed import most, total
from .precision import float32, wide


@float32
def whiten(x, dim=None, eps=1e-5):
    """PCA-whitened (N, d) -> (N, dim), then rows of unit length: what DeepCluster clusters (Caron 2018, sec. 3.3).

    eps, a share of the largest variance, keeps directions without variance from being blown up.
    """
    x = x - x.mean(0)
    variances, directions = torch.linalg.eigh(x.T @ x / len(x))
    order = variances.argsort(descending=True)[:dim]
    variances = variances[order].clamp(min=0)
    x = x @ directions[:, order] / (variances + eps * variances[0] + torch.finfo(x.dtype).tiny).sqrt()
    return torch.nn.functional.normalize(x, dim=1)


def counted(labels, k):
    """How many of the int64 `labels` (N,) are each of 0 … k - 1: (k,). `bincount`, but without reading the largest."""
    return torch.zeros(k, dtype=torch.int64, device=labels.device).scatter_add_(0, labels, torch.ones_like(labels))


@float32
def assign(x, centroids, chunk=65536):
    """Index of the nearest centroid (Euclidean) of each row: (N, d), (k, d) -> int64 (N,)."""
    half = centroids.square().sum(1) / 2
    return torch.cat([(part @ centroids.T - half).argmax(1) for part in x.split(chunk)])


def ranked(number, score):
    """The place (N,) of each among those with the same number (N,), from 0; the highest score (N,) comes first."""
    order = score.argsort(descending=True, stable=True)
    order = order[number[order].argsort(stable=True)]
    sizes = number.bincount()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[number[order]]
    return place


@float32
def kmeans(x, k, seed=0, iterations=20):
    """Lloyd's k-means of (N, d) -> (assignments int64 (N,), centroids (k, d)).

    Starts from k distinct samples and stops early once nothing changes. Empty clusters restart at the samples farthest
    from their centroids, as in scikit-learn, so none stays empty unless samples coincide. (DeepCluster, sec. 3.2, moves a
    copy of another cluster's centroid slightly, which cannot divide a heap of equal samples.)
    """
    if len(x) < k:
        raise ValueError(f"k-means of {len(x)} points into {k} clusters")
    centroids = x[rng.permutation(len(x), seed)[:k].to(x.device)].clone()
    labels = assign(x, centroids)
    for _ in range(iterations):
        counts = torch.bincount(labels, minlength=k)
        # Sums of sorted rows: index_add_ would be a race on GPUs, with other bits each time.
        sums = torch.segment_reduce(x[labels.argsort(stable=True)], "sum", lengths=counts, axis=0)
        centroids = sums / counts.clamp(min=1)[:, None]
        if len(empty := (counts == 0).nonzero().flatten()):
            centroids[empty] = x[(x - centroids[labels]).square().sum(1).topk(len(empty)).indices]
        before, labels = labels, assign(x, centroids)
        if torch.equal(before, labels):
            break
    return labels, centroids


@float32
def kmeans_each(x, k, seed=0, iterations=20):
    """`kmeans` of each of N sets of P points, all at once: (N, P, d) -> assignments int64 (N, P)."""

    def assigned(centroids):
        return (x @ centroids.transpose(1, 2) - centroids.square().sum(2)[:, None] / 2).argmax(2)

    labels = assigned(x[:, rng.permutation(x.shape[1], seed)[:k].to(x.device)])
    for _ in range(iterations):
        own = torch.nn.functional.one_hot(labels, k).to(x.dtype)
        counts = own.sum(1)
        centroids = own.transpose(1, 2) @ x / counts.clamp(min=1)[..., None]
        if (empty := counts == 0).any():
            farthest = (x - own @ centroids).square().sum(2).topk(k, dim=1).indices
            farthest = farthest.gather(1, (empty.cumsum(1) - 1).clamp(min=0))[..., None].expand_as(centroids)
            centroids = torch.where(empty[..., None], x.gather(1, farthest), centroids)
        before, labels = labels, assigned(centroids)
        if torch.equal(before, labels):
            break
    return labels


@torch.no_grad()
@float32
def sinkhorn(scores, epsilon=0.05, iterations=3):
    """Codes (n, k) of samples over prototypes from their scores (n, k): each row sums to 1, and over all processes'
    rows each column to (samples / k), as nearly as `iterations` allow (Caron et al. 2020, eq. 3-5 and Algorithm 1).
    A row whose scores are all -inf stands for no sample: its code is 0, and others' are as without it."""
    q = scores.to(wide(scores.device)) / epsilon  # in double: exp(1 / 0.05) times many is beyond what float32 adds up well
    q = (q - most(q.amax())).exp()
    for _ in range(iterations):
        q = q / total(q.sum(0)).clamp(min=torch.finfo(q.dtype).tiny)
        q = q / q.sum(1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
    return q.to(scores.dtype)


def nmi(a, b):
    """Normalised mutual information of two assignments int64 (N,), I(A; B) / sqrt(H(A) H(B)) (Caron 2018, eq. 3).

    A float in 0..1; 1 where both have the same clusters under whatever numbers, also if that is a single one.
    """
    columns = int(b.max()) + 1
    joint = torch.bincount(a * columns + b, minlength=(int(a.max()) + 1) * columns).double().view(-1, columns) / len(a)
    h_a, h_b, h = (-torch.xlogy(p, p).sum() for p in (joint.sum(1), joint.sum(0), joint))
    if min(h_a, h_b) < 1e-12:  # of a single cluster it is 0, but for the rounding of its shares' sum
        return float(max(h_a, h_b) < 1e-12)
    return float((h_a + h_b - h).clamp(min=0) / (h_a * h_b).sqrt())
