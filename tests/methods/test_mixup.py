"""MixUp: the loss two ways, and its ends."""

import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core import rng
from selfsup.data.order import Shuffled
from selfsup.inputs import mix
from selfsup.methods.mixup import MixUp


def build(**args):
    torch.manual_seed(0)
    return MixUp(nets.build("convnet", width=4, norm="group"), {"classes": ["a", "b", "c"]}, **args).eval()


def batch(n=12):
    torch.manual_seed(1)
    return {"image": torch.randn(n, 3, 16, 16), "label": torch.arange(n) % 3, "key": rng.key(0, torch.arange(n))}


def test_loss_is_that_of_mixed_labels():
    """The authors' code has λ·CE(y_a) + (1 - λ)·CE(y_b); the paper's figure 1 cross-entropy with the mixed one-hot labels."""
    method, given = build(alpha=1.0), batch()
    share, partner = mix.shares(given["key"], 1.0), mix.partners(given["key"])
    losses, right = [], []
    for i, j in enumerate(partner.tolist()):
        lam = float(share[i])
        x = lam * given["image"][i] + (1 - lam) * given["image"][j]
        y = lam * F.one_hot(given["label"][i], 3) + (1 - lam) * F.one_hot(given["label"][j], 3)
        logits = method.classifier(method.encoder(x[None]))[0]
        losses.append(float(-(y * logits.log_softmax(0)).sum().detach()))
        right.append(float(logits.argmax() == given["label"][i if lam >= 0.5 else j]))
    out = method(given)
    assert float(out["loss"].detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert float(out["accuracy"]) == pytest.approx(sum(right) / len(right))
    assert len(share.unique()) == len(share)  # each has its own


def test_with_a_small_alpha_nothing_is_mixed():
    method, given = build(alpha=1e-3), batch()
    plain = F.cross_entropy(method.classifier(method.encoder(given["image"])), given["label"])
    swapped = mix.shares(given["key"], 1e-3) < 0.5  # or all of it is the partner, with the partner's label
    x, share, others = method.mixed(given)
    assert (share.minimum(1 - share) < 0.01).all() and swapped.any()
    order = torch.where(swapped, mix.partners(given["key"]), torch.arange(12))
    expected = F.cross_entropy(method.classifier(method.encoder(given["image"][order])), given["label"][order])
    torch.testing.assert_close(method(given)["loss"], expected, atol=0.02, rtol=0.02)
    assert plain.isfinite()


def test_it_learns_from_labelled_images_alone(fit):
    assert MixUp.order == Shuffled(labelled=True)
    method, generator = build(alpha=0.5).train(), torch.Generator().manual_seed(0)

    def made(step):
        label = torch.arange(24) % 3
        image = 0.5 * torch.randn(24, 3, 16, 16, generator=generator) + torch.eye(3)[label][:, :, None, None] * 2
        return {"image": image, "label": label, "key": rng.key(step, torch.arange(24))}

    fit(method, made, 60)
    new = made(0)
    assert (method.eval().classifier(method.encoder(new["image"])).argmax(1) == new["label"]).all()
