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


def test_the_mean_over_tokens_is_over_those_that_count():
    from selfsup.training.losses import mean_where, of_tokens

    logits, target = torch.randn(3, 4, 5), torch.randint(5, (3, 4))
    counted = torch.rand(3, 4) < 0.5
    counted[0], counted[1, 0] = False, True
    loss, right = of_tokens(logits, target, counted)
    p = logits.softmax(2)
    each = [(-p[n, t, target[n, t]].log(), p[n, t].argmax() == target[n, t]) for n, t in counted.nonzero()]
    torch.testing.assert_close(loss, torch.stack([nats for nats, _ in each]).mean())
    torch.testing.assert_close(right, torch.stack([hit for _, hit in each]).float().mean())
    assert mean_where(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)) == 0, "of none it is 0"
