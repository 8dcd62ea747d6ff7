"""Retrieval: are an image's nearest neighbours of its class (Doersch et al. 2015, §4.1 and figure 4)?

https://arxiv.org/abs/1505.05192. Nothing is fitted and nothing chosen.
"""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn.functional as F

from selfsup.arguments import Count, Range
from selfsup.evals import accuracy, embed, in_blocks, percent

title = "Retrieval"
beside_neighbours = True                                 # the number of what the report shows there in pictures


def choose(encoder, data, k: Annotated[list[Count], Range(min_length=1, distinct=True)]):
    """Nothing to choose; val_accuracy is the precision at the first k of the list, of val's images.

    Precision at k: the share of an image's k nearest training images, by cosine, that are of its class. A k above the
    number of training images stands for all of them.
    """
    bank, labels = embed(encoder, data.train)
    bank = F.normalize(bank, dim=1, out=bank)
    queries, truth = embed(encoder, data.val)
    right = labels[nearest(bank, queries, k[0])] == truth[:, None]
    return SimpleNamespace(val_accuracy=percent(right.float().mean()), k=k, bank=bank, labels=labels)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) for the first k of the list; `precision`, the same three for each k;
    and `chance`, the precision of images drawn at random."""
    queries, truth = embed(encoder, data.test)
    right = (chosen.labels[nearest(chosen.bank, queries, max(chosen.k))] == truth[:, None]).float()
    precision = {str(n): dict(accuracy(right[:, :n].mean(1), bootstrap)) for n in chosen.k}
    yield from precision[str(chosen.k[0])].items()
    yield "precision", precision
    share = [F.one_hot(y, len(data.card["classes"])).double().mean(0) for y in (chosen.labels, truth)]
    yield "chance", percent(share[0] @ share[1])


def nearest(bank, queries, k):
    """Positions in a bank of unit rows (N, d) of each query's k nearest by cosine, nearest first: (n, k), for queries (n, d)."""
    queries = F.normalize(queries, dim=1)
    return torch.cat([(block @ bank.T).topk(min(k, len(bank)), dim=1).indices for block in in_blocks(queries, bank)])


def notes(report, rows, options):
    yield (f"Retrieval: of a test image's {options['k'][0]} nearest training images by cosine, how many are of its "
           "class; nothing is fitted or chosen.")
