import numpy as np
import pytest
import torch

from selfsup import evals


def reference(bank, labels, queries, truth, ks):
    """{k: precision at k in percent} in loops."""
    shares = {k: [] for k in ks}
    for query, label in zip(queries, truth):
        cosine = [row @ query / np.linalg.norm(row) / np.linalg.norm(query) for row in bank]
        found = sorted(range(len(bank)), key=lambda i: -cosine[i])
        for k in ks:
            shares[k].append(np.mean([labels[i] == label for i in found[:k]]))
    return {k: 100 * np.mean(found) for k, found in shares.items()}


def test_equals_the_loops(encoder, data, monkeypatch):
    monkeypatch.setattr(evals, "ROWS", 10)           # several blocks of queries
    monkeypatch.setattr(evals, "BLOCK", 1500)
    ks = [5, 1, 20, 1000]
    for split, n in ((data.train, 150), (data.test, 60)):
        split.images, split.labels = split.images[:n], split.labels[:n]
    result = dict(evals.run("retrieval", encoder, data, k=ks))
    bank, queries = (((split.images.flatten(1) / 255.0 - 0.5) / 0.25).numpy() for split in (data.train, data.test))
    expected = reference(bank, data.train.labels.numpy(), queries, data.test.labels.numpy(), ks)
    for k, found in result["precision"].items():
        assert found["accuracy"] == pytest.approx(expected[int(k)], abs=0.006)
        assert found["low"] <= found["accuracy"] <= found["high"]
    assert list(result["precision"]) == ["5", "1", "20", "1000"]
    assert {name: result[name] for name in ("accuracy", "low", "high")} == result["precision"]["5"]
    # All training images of the largest k: what chance finds, and what is called chance.
    assert result["precision"]["1000"]["accuracy"] == pytest.approx(result["chance"], abs=0.011)


def test_neighbours_are_training_images_alone(encoder, data):
    data.train.labels = torch.zeros(400, dtype=torch.long)
    data.test.labels = torch.ones(200, dtype=torch.long)
    assert dict(evals.run("retrieval", encoder, data, k=[1]))["accuracy"] == 0
