"""Losses that several methods share; a method's own loss stands in its file."""

import torch
import torch.nn.functional as F

from .distributed import gather, rank


def info_nce(query, key, temperature):
    """Each of the queries (n, d) finds its own key among all processes' keys (van den Oord et al. 2018, eq. 4).

    query, key: of one sample in the same row; unit vectors, where the similarity is to be a cosine. The keys carry a
    gradient unless detached. Returns the loss, averaged over the queries, and the share of queries that are right.
    """
    logits = query @ gather(key).T / temperature
    mine = torch.arange(len(query), device=query.device) + rank() * len(query)
    return F.cross_entropy(logits, mine), (logits.argmax(1) == mine).float().mean()
