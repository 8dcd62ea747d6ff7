"""AMDIM against the paper's loss, written as loops over views, places and images."""

import math

import pytest
import torch

from selfsup import methods, nets

AMDIM = methods.load("amdim")


@pytest.fixture
def method(card):
    torch.manual_seed(0)
    return AMDIM(nets.build("convnet", width=4, norm="group"), {**card, "size": 32}, hidden=32, dim=16)


def slow(query, place, clip, penalty):
    """Places (n, P, d) of one view from places (n, Q, d) of the other."""
    n = len(query)
    raw = lambda i, q, j, p: float(query[i, q] @ place[j, p]) / math.sqrt(query.shape[2])  # noqa: E731
    score = lambda *at: clip * math.tanh(raw(*at) / clip)  # noqa: E731
    terms, squares = [], []
    for i in range(n):
        for q in range(query.shape[1]):
            others = sum(math.exp(score(i, q, j, p)) for j in range(n) if j != i for p in range(place.shape[1]))
            squares += [raw(i, q, j, p) ** 2 for j in range(n) for p in range(place.shape[1])]
            for p in range(place.shape[1]):
                own = math.exp(score(i, q, i, p))
                terms.append(-math.log(own / (own + others)))
    return sum(terms) / len(terms) + penalty * sum(squares) / len(squares)


def test_objective_is_the_papers(method):
    random = torch.Generator().manual_seed(0)
    query, place = torch.randn(3, 2, 16, generator=random) * 4, torch.randn(3, 5, 16, generator=random) * 4
    assert float(method.objective(query, place)) == pytest.approx(slow(query, place, 20.0, 0.04), rel=1e-4)


def test_loss_predicts_each_view_from_the_other_at_three_pairs_of_scales(method, card, prepare):
    card["size"] = 32
    batch = prepare(method, 4)
    method.eval()
    (w1, c1, f1), (w2, c2, f2) = (method.embed(x) for x in batch["image"].unbind(1))
    assert [t.shape[1] for t in (w1, c1, f1)] == [1, 4, 16]  # the whole, 2 × 2, 4 × 4
    pairs = [(w1, c2), (w1, f2), (c1, c2), (w2, c1), (w2, f1), (c2, c1)]
    expected = sum(slow(query, place, 20.0, 0.04) for query, place in pairs) / 2
    assert float(method(batch)["loss"]) == pytest.approx(expected, rel=1e-4)


def test_scores_beyond_the_clip_do_not_count_more(method):
    query, place = torch.ones(2, 1, 16) * 100, torch.ones(2, 1, 16) * 100
    place[1] *= -1
    method.penalty = 0
    # The first query finds its own at +20 against -20, the second its own at -20 against +20.
    assert float(method.objective(query, place)) == pytest.approx((math.log1p(math.exp(-40)) + 40) / 2, rel=1e-4)


def test_places_of_an_image_stay_in_their_place(method):
    """Each fine place depends on the map at that place alone: the head is applied to places, not across them."""
    method.eval()
    x = torch.randn(2, 3, 32, 32)
    maps = method.encoder.layers(x)
    fine = method.embed(x)[2]
    for p in (0, 5, 15):
        torch.testing.assert_close(fine[:, p], method.fine_head(maps[2][:, :, p // 4, p % 4]))
