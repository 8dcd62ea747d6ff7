"""Relative patch: the eight directions, and the audit of the shortcut that a lens opens."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.training import patches
from selfsup.errors import UserError
from selfsup.methods.relative_patch import RelativePatch

DIRECTIONS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]  # (down, right), figure 2


def build(card, norm="group", width=4, **args):
    torch.manual_seed(0)
    card = {**card, "size": 32, "std": [0.2, 0.25, 0.3]}
    return RelativePatch(nets.build("convnet", width=width, norm=norm), card, **args)


def images(n=5, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"image": torch.randn(n, 3, size, size, generator=generator), "key": torch.arange(n) + 1000 * seed}


def test_loss_and_accuracy_against_loops(card):
    method, batch = build(card, colour="none", hidden=16).eval(), images()
    corners = patches.jittered_grid(batch["key"], 32, 3, 8)
    losses, right = [], []
    with torch.no_grad():
        for image, places in zip(batch["image"], corners):
            feature = {}
            for cell, (top, left) in enumerate(places.tolist()):
                feature[cell // 3, cell % 3] = method.encoder(image[None, :, top : top + 8, left : left + 8])
            for number, (down, right_of) in enumerate(DIRECTIONS):
                pair = torch.cat([feature[1, 1], feature[1 + down, 1 + right_of]], 1)
                logits = method.head(pair).double().numpy()[0]
                losses.append(np.log(np.exp(logits).sum()) - logits[number])
                right.append(logits.argmax() == number)
    out = method(batch)
    assert float(out["loss"].detach()) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(out["accuracy"]) == pytest.approx(np.mean(right))


def test_dropping_keeps_one_channel_of_each_patch(card):
    batch = images(300)
    kept, whole = build(card, colour="drop").patches(batch), build(card, colour="none").patches(batch)
    same = (kept == whole).flatten(3).all(3)  # (N, 9, C)
    assert (same.sum(2) == 1).all()
    assert (same.float().mean((0, 1)) - 1 / 3).abs().max() < 0.05
    assert same[:, 0].ne(same[:, 1]).any()  # each patch's own
    deviation = whole[same].flatten(1).std(1)
    noise = kept[~same].view(-1, 2, 8, 8)
    assert (noise.flatten(1).std(1) / deviation).mean() == pytest.approx(0.01, rel=0.02)
    assert noise[:, 0].ne(noise[:, 1]).any()


def test_projection_is_the_papers_matrix(card):
    """B = I − aᵀa / (aaᵀ), a = (−1, 2, −1), on colours as they are, not on those divided by the data's deviation."""
    method, batch = build(card, colour="projection"), images()
    a = np.array([[-1.0, 2.0, -1.0]])
    b = np.eye(3) - a.T @ a / (a @ a.T)
    std = np.array([0.2, 0.25, 0.3])
    whole = build(card, colour="none").patches(batch).double().numpy()
    expected = np.einsum("ij,npjhw->npihw", b, whole * std[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(method.patches(batch), expected, atol=1e-5)


def test_wrong_options(card):
    with pytest.raises(UserError, match="no 3 × 3 patches of 11 pixels in images of 32"):
        build(card, patch=11)


def texture(n, seed, aberration):
    """Grey texture without any large structure, (n, 3, 32, 32), its green channel `aberration` times as large."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 1, 14, 14, generator=generator)
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), (n, 1, 32, 32), align_corners=False) * 0.8
    red, green = (F.grid_sample(coarse, at, "bicubic", align_corners=False) for at in (grid, grid * aberration))
    return {"image": torch.cat([red, green, red], 1), "key": torch.arange(n) + 10000 * seed}


@pytest.mark.parametrize("aberration, colour, cheats", [
    (1.0, "none", False),
    (1.06, "none", True),
    (1.06, "drop", False),
    (1.06, "projection", False),
])
def test_shortcut_audit(card, fit, aberration, colour, cheats):
    """Chromatic aberration tells where in the image a patch was, and so in which direction from another, though the
    texture itself tells nothing; dropping colours or projecting the axis away stops it (section 3.1)."""
    method = build(card, norm="batch", width=8, hidden=64, colour=colour)
    fit(method, lambda step: texture(48, step + 1, aberration), 60)
    method.eval()
    with torch.no_grad():
        accuracy = method(texture(256, 0, aberration))["accuracy"]
    assert accuracy > 0.3 if cheats else accuracy < 0.18
