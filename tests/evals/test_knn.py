import numpy as np
import torch
import torch.nn.functional as F

from selfsup import evals
from selfsup.evals import knn


def reference(bank, labels, classes, queries, k, temperature):
    """Wu 2018 §3.4 written out: cosine to every training image, k nearest, exp(s / τ) votes."""
    predicted = []
    for query in queries:
        similarity = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in bank]
        votes = np.zeros(classes)
        for i in np.argsort(similarity)[::-1][:k]:
            votes[labels[i]] += np.exp(similarity[i] / temperature)
        predicted.append(votes.argmax())
    return np.array(predicted)


def test_equals_the_loops(monkeypatch):
    monkeypatch.setattr(evals, "ROWS", 7)                   # several blocks of queries
    monkeypatch.setattr(evals, "BLOCK", 700)
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(120, 6, generator=generator), torch.randn(50, 6, generator=generator)
    labels = torch.randint(5, (120,), generator=generator)
    ks, temperatures = [50, 1, 7, 500], [0.07, 0.5]       # unsorted, and more neighbours than there are
    grid = knn.predict(F.normalize(bank, dim=1), labels, 5, queries, ks, temperatures)
    assert list(grid) == [(k, t) for k in ks for t in temperatures]
    for (k, temperature), predicted in grid.items():
        expected = reference(bank.numpy(), labels.numpy(), 5, queries.numpy(), k, temperature)
        np.testing.assert_array_equal(predicted, expected)


def test_no_overflow_at_a_tiny_temperature():
    bank = F.normalize(torch.randn(30, 4), dim=1)
    labels = torch.arange(30) % 3
    (predicted,) = knn.predict(bank, labels, 3, bank, [5], [1e-4]).values()
    assert torch.equal(predicted, labels)                 # each finds itself


def test_scale_of_features_does_not_matter(encoder, data):
    grid = {"k": [5, 20], "temperature": [0.1]}
    before = dict(evals.run("knn", encoder, data, **grid))
    encoder.scale.data.fill_(37.0)
    assert dict(evals.run("knn", encoder, data, **grid)) == before


def test_first_of_equals_is_chosen(encoder, data):
    for split in (data.train, data.val, data.test):       # one class a corner: every choice is right
        split.images = (split.labels[:, None, None, None] == torch.arange(3)[:, None, None]).repeat(1, 1, 3, 3) * 255
        split.images = split.images.to(torch.uint8)
    result = dict(evals.run("knn", encoder, data, k=[7, 3], temperature=[0.5, 0.1]))
    assert (result["accuracy"], result["k"], result["temperature"]) == (100, 7, 0.5)
