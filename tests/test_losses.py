"""InfoNCE against the paper's sum."""

import math

import pytest
import torch

from selfsup.training.losses import info_nce, of_others, of_own


def test_info_nce_is_the_papers():
    random = torch.Generator().manual_seed(0)
    query, key = (torch.randn(6, 4, generator=random).double() for _ in range(2))
    loss, accuracy = info_nce(query, key, 0.3)
    terms, right = [], 0
    for i in range(6):
        scores = [math.exp(float(query[i] @ key[j]) / 0.3) for j in range(6)]
        terms.append(-math.log(scores[i] / sum(scores)))
        right += max(range(6), key=lambda j: scores[j]) == i
    assert float(loss) == pytest.approx(sum(terms) / 6) and float(accuracy) == pytest.approx(right / 6)


def test_both_sides_take_a_gradient_unless_detached():
    query, key = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    info_nce(query, key, 1.0)[0].backward()
    assert query.grad.any() and key.grad.any()
    query.grad = key.grad = None
    info_nce(query, key.detach(), 1.0)[0].backward()
    assert query.grad.any() and key.grad is None


def test_own_and_others_are_what_masks_pick():
    scores, image = torch.randn(4, 6, 3), torch.tensor([5, 0, 2, 2])
    own, others = of_own(scores, image), of_others(scores, image)
    mask = torch.nn.functional.one_hot(image, 6).bool()
    assert torch.equal(own, scores[mask]) and torch.equal(others, scores[~mask].view(4, 5, 3))
