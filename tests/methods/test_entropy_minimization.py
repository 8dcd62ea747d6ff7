"""Entropy against loops and finite differences, and the other form's gradient."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.entropy_minimization import EntropyMinimization

CARD = {"classes": ["a", "b", "c"]}


def build(**args):
    torch.manual_seed(0)
    return EntropyMinimization(nets.build("convnet", width=4, norm="group"), CARD, **{"ratio": 2, **args})


def test_loss_against_loops():
    method = build(weight=0.3, rising=0.5)
    method.after_step(0.25)
    logits, label = 3 * torch.randn(12, 3), torch.arange(12) % 3
    p = torch.softmax(logits.double(), 1).numpy()
    labelled = [-np.log(p[i, label[i]]) for i in range(0, 12, 3)]
    entropy = [-sum(q * np.log(q) for q in p[i]) for i in range(12) if i % 3]
    out = method.objective(logits, label)
    assert float(out["loss"]) == pytest.approx(np.mean(labelled) + 0.3 * np.exp(-1.25) * np.mean(entropy), rel=1e-5)
    hidden = torch.where(torch.arange(12) % 3 == 0, label, -1)
    torch.testing.assert_close(method.objective(logits, hidden), out, rtol=0, atol=0)


def test_the_gradient_flows_through_both_factors():
    method = build(weight=2.0, rising=0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: method.objective(z, torch.arange(6) % 3)["loss"], logits)
    p = logits.detach().softmax(1)
    method.objective(logits, torch.arange(6) % 3)["entropy"].backward()
    exact = -p * (p.log() - (p * p.log()).sum(1, keepdim=True)) / 4  # of −Σ p log p, after the softmax
    torch.testing.assert_close(logits.grad[[1, 2, 4, 5]], exact[[1, 2, 4, 5]])
    assert not logits.grad[[0, 3]].any()


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0])
def test_sharpened_targets_are_held_still(temperature):
    """p^(1/T) / Σ p^(1/T) as it stands in the paper; T = 1 has no gradient, T → 0 that of pseudo-labels."""
    method = build(temperature=temperature, weight=1.0, rising=0)
    logits = torch.randn(6, 3, requires_grad=True)
    method.objective(logits, torch.arange(6) % 3)["unlabelled"].backward()
    p = logits.detach().double().softmax(1)
    q = (p.log() / temperature - (p.log() / temperature).amax(1, keepdim=True)).exp()
    q = q / q.sum(1, keepdim=True)
    many = [1, 2, 4, 5]
    torch.testing.assert_close(logits.grad[many].double(), ((p - q) / 4)[many], atol=1e-6, rtol=1e-4)
    if temperature == 1:
        assert logits.grad.abs().max() < 1e-7
    if temperature == 1e-3:
        torch.testing.assert_close(q[many], torch.nn.functional.one_hot(p.argmax(1), 3)[many].double())
