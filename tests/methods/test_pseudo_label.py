"""Pseudo-labels against loops, and whose gradient they are."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.pseudo_label import PseudoLabel


def build(card, **args):
    torch.manual_seed(0)
    return PseudoLabel(nets.build("convnet", width=4, norm="group"), card, **args)


def test_loss_against_loops(card, prepare):
    method = build(card, ratio=2, threshold=0.8, weight=3.0)
    method.after_step(0.2)
    logits, label = 2 * torch.randn(12, 3), torch.arange(12) % 3
    p = torch.softmax(logits.double(), 1).numpy()
    labelled = [-np.log(p[i, label[i]]) for i in range(0, 12, 3)]
    others = [i for i in range(12) if i % 3]
    unlabelled = [-np.log(p[i].max()) if p[i].max() >= 0.8 else 0 for i in others]
    out = method.objective(logits, label)
    assert 0 < sum(loss > 0 for loss in unlabelled) < len(others)
    assert float(out["loss"]) == pytest.approx(np.mean(labelled) + 3 * 0.5 * np.mean(unlabelled), rel=1e-5)
    assert float(out["confident"]) == pytest.approx(np.mean([p[i].max() >= 0.8 for i in others]))
    assert float(out["accuracy"]) == pytest.approx(np.mean([p[i].argmax() == label[i] for i in range(0, 12, 3)]))
    batch = prepare(method, 12)
    again = method.objective(method.classifier(method.encoder(batch["image"])), batch["label"])
    torch.testing.assert_close(method(batch), again)


def test_who_is_not_sure_has_no_gradient_and_who_is_has_his_share_of_all():
    """Excludes the mask of shape (n, 1) times losses of shape (n,), in the code of MixMatch and FixMatch: it scales all
    rows alike; and the mean over the confident ones, by which the first of them would have the whole weight."""
    card = {"classes": ["a", "b", "c"]}
    method = build(card, ratio=4, threshold=0.9, weight=1.0)
    method.after_step(1.0)
    sure, unsure = [5.0, 0.0, 0.0], [1.0, 0.5, 0.0]
    logits = torch.tensor([sure, sure, unsure, unsure, unsure], requires_grad=True)
    out = method.objective(logits, torch.tensor([0, 1, 1, 1, 1]))
    out["unlabelled"].backward()
    p = torch.tensor(sure).softmax(0)
    assert float(out["unlabelled"].detach()) == pytest.approx(-float(p[0].log()) / 4, rel=1e-4)
    assert not logits.grad[2:].any() and not logits.grad[0].any()
    torch.testing.assert_close(logits.grad[1], (p - torch.tensor([1.0, 0, 0])) / 4)  # the label itself is held still


def test_labels_of_unlabelled_rows_are_not_read(card, prepare):
    method = build(card)
    method.after_step(1.0)
    batch = prepare(method, 8)
    hidden = torch.where(torch.arange(8) % 4 == 0, batch["label"], -1)
    torch.testing.assert_close(method({**batch, "label": hidden}), method(batch), rtol=0, atol=0)


@pytest.mark.parametrize("start, full, at, risen", [
    (0.0, 0.4, 0.2, 0.5), (0.0, 0.4, 0.9, 1.0), (0.1, 0.6, 0.1, 0.0), (0.1, 0.6, 0.35, 0.5), (0.5, 0.5, 0.4, 0.0),
    (0.5, 0.5, 0.6, 1.0)])
def test_the_weight_waits_and_rises(card, start, full, at, risen):
    method = build(card, start=start, full=full)
    assert method.risen == 0
    method.after_step(at)
    assert float(method.risen) == pytest.approx(risen)
