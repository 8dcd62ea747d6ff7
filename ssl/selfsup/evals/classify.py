"""A method's own classifier, as it comes: of the methods that learn from labels, few or many."""

from types import SimpleNamespace

import torch

from selfsup.evals import accuracy, embed, percent

title = "Own classifier"
parts = ("classifier",)                                  # of the encoder folder, besides the encoder


def choose(encoder, data, classifier):
    """Nothing is fitted and nothing chosen."""
    return SimpleNamespace(val_accuracy=percent(right(encoder, classifier, data.val).mean()), classifier=classifier)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) and val_accuracy."""
    yield from accuracy(right(encoder, chosen.classifier, data.test), bootstrap)
    yield "val_accuracy", chosen.val_accuracy


@torch.no_grad()
def right(encoder, classifier, split):
    """Of each sample whether it is classified rightly, float32 (N,)."""
    features, labels = embed(encoder, split)
    return (classifier(features).argmax(1) == labels).float()


def notes(report, rows, options):
    yield ("Own classifier: the one that the method trained, with the labels of its budget; nothing is fitted anew and "
           "nothing chosen.")
