"""VAT: the direction against the eigenvector that it approximates, and what the search must leave alone."""

import copy

import numpy as np
import pytest
import torch
import torch.nn as nn

from selfsup import nets
from selfsup.methods.vat import VAT, divergence, unit


def build(card, norm="group", **args):
    torch.manual_seed(0)
    return VAT(nets.build("convnet", width=4, norm=norm), card, **{"ratio": 3, **args})


def cosines(a, b):
    return torch.nn.functional.cosine_similarity(a.flatten(1).double(), b.flatten(1).double())


def test_the_direction_is_that_of_the_largest_curvature():
    """Of softmax(Wx) the Hessian of the divergence at r = 0 is Wᵀ(diag p − ppᵀ)W."""
    torch.manual_seed(0)
    encoder = nn.Flatten()
    encoder.dim = 12
    method = VAT(encoder, {"classes": list("abcd")}, ratio=3, xi=1e-2, iterations=30).double()
    few, many, key = torch.randn(2, 3, 2, 2).double(), torch.randn(6, 3, 2, 2).double(), torch.arange(6)
    found = method.direction(few, many, key)
    w = method.classifier.weight.detach()
    for x, d in zip(many, found):
        p = method.classifier(x.flatten()).detach().softmax(0)
        _, vectors = torch.linalg.eigh(w.T @ (p.diag() - p[:, None] * p) @ w)
        assert abs(vectors[:, -1] @ d.flatten().double()) > 0.99
    torch.testing.assert_close(found.flatten(1).norm(dim=1).float(), torch.ones(6))


def test_the_finite_difference_is_no_rounding_noise(card):
    """Excludes ξ = 1e-6 in float32, in the code of MixMatch and others, whose direction is noise."""
    method = build(card)
    few, many, key = torch.randn(2, 3, 32, 32), torch.randn(6, 3, 32, 32), torch.arange(6)
    exact = copy.deepcopy(method).double()
    exact.xi = 1e-5
    truth = exact.direction(few.double(), many.double(), key)
    assert cosines(method.direction(few, many, key), truth).min() > 0.95
    method.xi = 1e-6
    assert cosines(method.direction(few, many, key), truth).mean() < 0.9


def test_the_divergence_is_from_the_clean_prediction():
    """Excludes the reverse, KL(changed ‖ clean), in the code of MixMatch, FixMatch and realistic-ssl."""
    p, q = np.array([0.9, 0.05, 0.05]), np.array([0.4, 0.3, 0.3])
    forward, reverse = sum(p * np.log(p / q)), sum(q * np.log(q / p))
    found = float(divergence(torch.tensor(p).log()[None], torch.tensor(q).log()[None]))
    assert found == pytest.approx(forward, rel=1e-6) and abs(forward - reverse) > 0.1


def test_loss_and_who_is_taught(card, prepare):
    method = build(card, epsilon=2.0, weight=3.0)
    batch = prepare(method, 8)
    seen = []
    method.encoder.register_forward_pre_hook(lambda net, x: seen.append(x[0].detach()))
    out = method(batch)
    first = torch.arange(8) % 4 == 0
    few, many = batch["image"][first], batch["image"][~first]
    torch.testing.assert_close(seen[0], torch.cat([few, many]))
    torch.testing.assert_close(seen[-1][:2], few)  # labelled rows stay as they are, beside the others
    torch.testing.assert_close((seen[-1][2:] - many).flatten(1).norm(dim=1), torch.full((6,), 2.0))
    with torch.no_grad():
        p, q = (method.classifier(method.encoder(x)).double().softmax(1).numpy()[2:] for x in (seen[0], seen[-1]))
        z = method.classifier(method.encoder(few)).double().softmax(1).numpy()
    divergences = [sum(a * np.log(a / b)) for a, b in zip(p, q)]
    cross = np.mean([-np.log(z[i, batch["label"][4 * i]]) for i in range(2)])
    assert min(divergences) >= 0
    assert float(out["loss"].detach()) == pytest.approx(cross + 3 * np.mean(divergences), rel=1e-4)
    hidden = torch.where(first, batch["label"], -1)
    torch.testing.assert_close(method({**batch, "label": hidden}), out, rtol=0, atol=0)
    random = torch.cat([few, many + 2.0 * unit(torch.randn_like(many))])
    with torch.no_grad():  # it is worse than chance
        by_chance = divergence(*(method.classifier(method.encoder(x))[2:] for x in (seen[0], random)))
    assert float(out["divergence"].detach()) > 3 * float(by_chance.mean())


def test_the_search_leaves_gradients_and_statistics_alone(card, prepare):
    method = build(card, norm="batch", iterations=2)
    batch = prepare(method, 8)
    for p in method.parameters():
        p.grad = torch.full_like(p, 7.0)
    expected = copy.deepcopy(method.encoder)
    few = torch.arange(8) % 4 == 0
    expected(torch.cat([batch["image"][few], batch["image"][~few]]))
    method(batch)
    assert all(p.grad.eq(7.0).all() for p in method.parameters())  # as of a part of the batch before
    torch.testing.assert_close(method.encoder.state_dict(), expected.state_dict())


def test_without_a_change_there_is_no_divergence(card, prepare):
    """BatchNorm has the same companions in all passes; else the finite difference would be theirs."""
    method = build(card, norm="batch", epsilon=1e-3)
    assert float(method(prepare(method, 8))["divergence"].detach()) < 1e-6


def test_what_is_certain_has_no_direction():
    assert not unit(torch.zeros(2, 3, 4)).any()
    torch.testing.assert_close(unit(torch.full((1, 4), 1e-30)), torch.full((1, 4), 0.5))
