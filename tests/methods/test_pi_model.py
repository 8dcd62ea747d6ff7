"""Algorithm 1 as loops, and through which views its gradient flows."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.pi_model import PiModel


def build(card, norm="group", **args):
    torch.manual_seed(0)
    return PiModel(nets.build("convnet", width=4, norm=norm), card, **{"ratio": 3, **args})


def test_loss_is_algorithm_1(card, prepare):
    method = build(card, weight=7.0, rising=0.5)
    batch = prepare(method, 8)
    first, second = batch["image"].unbind(1)
    assert not torch.equal(first, second)  # noise of each view's own
    with torch.no_grad():
        z, again = (method.classifier(method.encoder(x)).double().softmax(1).numpy() for x in (first, second))
    cross = np.mean([-np.log(z[i, batch["label"][i]]) for i in (0, 4)])
    squares = [(z[i, c] - again[i, c]) ** 2 for i in range(8) if i % 4 for c in range(3)]
    for progress, weight in ((0, np.exp(-5)), (0.25, np.exp(-1.25)), (0.5, 1), (1, 1)):
        if progress:
            method.after_step(progress)
        out = method(batch)
        assert float(out["loss"].detach()) == pytest.approx(cross + 7 * weight * np.mean(squares), rel=1e-5)
    hidden = torch.where(torch.arange(8) % 4 == 0, batch["label"], -1)
    torch.testing.assert_close(method({**batch, "label": hidden}), out, rtol=0, atol=0)


def test_the_gradient_flows_through_both_views(card):
    method = build(card)
    first, second = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    out = method.objective(first, second, torch.tensor([0, 1, 2, 0]))
    out["consistency"].backward()
    for x in (first, second):
        assert not x.grad[0].any() and x.grad[1:].any(1).all()
    (own,) = torch.autograd.grad(out["labelled"], first)
    assert own[0].any() and not own[1:].any()


def test_batch_norm_sees_labelled_and_unlabelled_rows_of_both_views_once(card, prepare):
    method = build(card, norm="batch")
    batch = prepare(method, 8)
    expected = nets.build("convnet", width=4)
    expected.load_state_dict(method.encoder.state_dict())
    expected(torch.cat(batch["image"].unbind(1)))
    method(batch)
    torch.testing.assert_close(method.encoder.state_dict(), expected.state_dict())
