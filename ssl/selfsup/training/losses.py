"""Losses that several methods share; a method's own loss stands in its file."""

import torch
import torch.nn.functional as F

from ..core.distributed import gather, rank, total, world
from ..core.precision import float32


@float32
def info_nce(query, key, temperature, smoothing=0.0):
    """Each of the queries (n, d) finds its own key among all processes' keys (van den Oord et al. 2018, eq. 4).

    query, key: of one sample in the same row; unit vectors, where the similarity is to be a cosine. The keys carry a
    gradient unless detached. smoothing: the share of the label that all keys have evenly (Szegedy et al. 2016, section
    7). Returns the loss, averaged over the queries, and the share of queries that are right.
    """
    logits = query @ gather(key).T / temperature
    mine = torch.arange(len(query), device=query.device) + rank() * len(query)
    loss = F.cross_entropy(logits, mine, label_smoothing=smoothing)
    return loss, (logits.argmax(1) == mine).float().mean()


@float32
def nt_xent(z, temperature):
    """Each view finds the other one of its image among all other views of all processes (SimCLR, Chen et al. 2020, eq. 1).

    z: unit vectors (2n, d), the two views of an image in neighbouring rows. Returns the loss, averaged over the views,
    and the share of views that are right.
    """
    me = torch.arange(len(z), device=z.device) + rank() * len(z)
    logits = z @ gather(z).T / temperature
    logits = logits.scatter(1, me[:, None], -torch.inf)  # never itself
    other = me ^ 1  # the image's other view
    return F.cross_entropy(logits, other), (logits.argmax(1) == other).float().mean()


@float32
def local_info_nce(scores, image):
    """Each query finds each place of its own image among all places of the other images (Bachman et al. 2019, eq. 4).

    scores: (n, N, P), of n queries with the P places of each of N images; image: (n,), the query's own among the N.
    """
    own = F.one_hot(image, scores.shape[1]).bool()
    others = scores.masked_fill(own[:, :, None], -torch.inf).flatten(1).logsumexp(1)
    # -log(exp(own) / (exp(own) + sum of exp(others)))
    return F.softplus(others[:, None] - of_own(scores, image)).mean()


def of_own(scores, image):
    """Of scores (n, N, P) with the places of N images those with the query's own image (n,): (n, P)."""
    return scores.gather(1, image[:, None, None].expand(-1, 1, scores.shape[2]))[:, 0]


def of_others(scores, image):
    """All others: (n, N - 1, P)."""
    other = torch.arange(scores.shape[1] - 1, device=scores.device)
    other = other + (other >= image[:, None])
    return scores.gather(1, other[:, :, None].expand(-1, -1, scores.shape[2]))


@float32
def mean_where(values, counted):
    """The mean of values (…) where `counted` (…) is true, over all processes' places: what a process gives is its share
    of it times their number, so that the processes' mean, and that of their gradients, is the whole batch's."""
    weight = counted.to(values.dtype)
    return (values * weight).sum() / total(weight.sum()).clamp(min=1) * world()


@float32
def of_tokens(logits, target, counted):
    """Cross-entropy of logits (…, vocabulary) with ids `target` (…), in nats a token, and the share of tokens that are
    the likeliest; both are means over the tokens that are `counted` (…), see `mean_where`."""
    loss = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none").view_as(target)
    return mean_where(loss, counted), mean_where((logits.argmax(-1) == target).float(), counted)
