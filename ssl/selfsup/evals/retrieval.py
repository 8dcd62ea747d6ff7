"""Retrieval: are an image's nearest neighbours of its class (Doersch et al. 2015, §4.1 and figure 4)?

https://arxiv.org/abs/1505.05192. Nothing is fitted and nothing chosen.
"""

import torch
import torch.nn.functional as F

from selfsup.evals import accuracy, embed, percent

BLOCK = 2**24                                            # similarities held at once (64 MB)


def run(encoder, data, k, bootstrap=1000):
    """Precision at k: the share of a test image's k nearest training images, by cosine, that are of its class.

    Yields accuracy, low, high (percent) for the first k of the list; `precision`, the same three for each k; and
    `chance`, the precision of images drawn at random. A k above the number of training images stands for all of them.
    """
    bank, labels = embed(encoder, data.train)
    queries, truth = embed(encoder, data.test)
    right = (labels[nearest(bank, queries, max(k))] == truth[:, None]).float()
    precision = {str(n): dict(accuracy(right[:, :n].mean(1), bootstrap)) for n in k}
    yield from precision[str(k[0])].items()
    yield "precision", precision
    share = [F.one_hot(y, len(data.card["classes"])).double().mean(0) for y in (labels, truth)]
    yield "chance", percent(share[0] @ share[1])


def nearest(bank, queries, k):
    """Positions in bank (N, d) of each query's k nearest rows by cosine, nearest first: (n, k), for queries (n, d)."""
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    rows = max(1, BLOCK // len(bank))
    return torch.cat([(block @ bank.T).topk(min(k, len(bank)), dim=1).indices for block in queries.split(rows)])
