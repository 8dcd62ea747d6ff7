"""Weighted nearest neighbours on frozen features (Wu et al. 2018, §3.4, https://arxiv.org/abs/1805.01978)."""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn.functional as F

from selfsup.arguments import Count, Positive, Range
from selfsup.evals import accuracy, balanced, embed, in_blocks, percent

title = "kNN"


def choose(
    encoder,
    data,
    k: Annotated[list[Count], Range(min_length=1)],
    temperature: Annotated[list[Positive], Range(min_length=1)],
):
    """k and temperature, by accuracy on val, from the two lists; the neighbours are always those in train.

    A k above the number of training images stands for all of them.
    """
    bank, labels = embed(encoder, data.train)
    bank, classes = F.normalize(bank, dim=1, out=bank), len(data.card["classes"])
    queries, truth = embed(encoder, data.val)
    grid = predict(bank, labels, classes, queries, k, temperature)
    val = {choice: (predicted == truth).float().mean().item() for choice, predicted in grid.items()}
    best = max(val, key=val.get)                         # the first of equals, in the order of the grid
    return SimpleNamespace(val_accuracy=percent(val[best]), k=best[0], temperature=best[1], bank=(bank, labels, classes))


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test), val_accuracy, k and temperature."""
    queries, truth = embed(encoder, data.test)
    (predicted,) = predict(*chosen.bank, queries, [chosen.k], [chosen.temperature]).values()
    yield from accuracy(predicted == truth, bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    yield "k", chosen.k
    yield "temperature", chosen.temperature
    yield from balanced(predicted == truth, truth, bootstrap)


def predict(bank, labels, classes, queries, ks, temperatures):
    """{(k, temperature): predicted class (n,)} for queries (n, d), from a bank of unit rows (N, d) with labels (N,).

    Each of the k nearest by cosine votes for its class with weight exp(cosine / temperature). One sort serves all k.
    """
    queries = F.normalize(queries, dim=1)
    parts = [predict_block(bank, labels, classes, block, ks, temperatures) for block in in_blocks(queries, bank)]
    return {choice: torch.cat([part[choice] for part in parts]) for choice in parts[0]}


def predict_block(bank, labels, classes, queries, ks, temperatures):
    similarity, nearest = (queries @ bank.T).topk(min(max(ks), len(bank)), dim=1)
    voters = labels[nearest]
    predicted = {}
    for temperature in temperatures:
        # Relative to the nearest: the same argmax, and no overflow at small temperatures.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes, start = weight.new_zeros(len(queries), classes), 0
        for k in sorted(ks):
            votes.scatter_add_(1, voters[:, start:k], weight[:, start:k])
            predicted[k, temperature] = votes.argmax(1)
            start = k
    return {(k, t): predicted[k, t] for k in ks for t in temperatures}


def notes(report, rows, options):
    yield ("kNN: weighted nearest neighbours by cosine; on val chosen were k, of "
           f"{report.listed(options['k'])}, and the temperature, of {report.listed(options['temperature'])}.")
