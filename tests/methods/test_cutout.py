"""Cutout: how much of an image its inputs take away, and the loss on what is left."""

import pytest
import torch
import torch.nn.functional as F

from tests.pictures import batch, pictures
from selfsup import nets
from selfsup.data.order import Shuffled
from selfsup.methods.cutout import Cutout


def test_takes_away_a_square_anywhere_that_is_clipped_at_the_edge():
    images = pictures(2000)
    given = Cutout.inputs({**batch(images), "label": torch.zeros(2000)}, 0, [-1.0] * 3, [0.25] * 3)
    cut = (given["image"] == 0).all(1).float()
    along = sum(min(c + 8, 32) - max(c - 8, 0) for c in range(32)) / 32  # the paper's 16 of 32 pixels, its middle anywhere
    assert cut.mean() * 32**2 == pytest.approx(along**2, rel=0.02)
    assert cut.flatten(1).sum(1).max() == 16 * 16 and (cut.flatten(1).sum(1) >= 8 * 8).all()
    assert Cutout.order == Shuffled(labelled=True)


def test_loss_is_cross_entropy(card, prepare):
    torch.manual_seed(0)
    method = Cutout(nets.build("convnet", width=4), card).eval()
    given = prepare(method, 6)
    out, logits = method(given), method.classifier(method.encoder(given["image"]))
    torch.testing.assert_close(out["loss"], F.cross_entropy(logits, given["label"]))
    assert set(method.parts()) == {"encoder", "classifier"}
