"""CPC against eq. 1-2 in loops, and that nothing flows upwards."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods.cpc import CPC

GRID = 5  # of patches of 8 pixels, every 2, in the card's 16


def build(card, **args):
    torch.manual_seed(0)
    encoder = nets.build("convnet", width=8, norm="group")
    return CPC(encoder, card, **{"patch": 8, "stride": 2, "dim": 8, "hidden": 8, **args})


def images(n=3, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def unit(v):
    return v / np.linalg.norm(v)


def test_loss_is_equation_2(card):
    """Every patch cut and encoded by itself; the candidates are the patches, of all images, that lie low enough."""
    method, x = build(card), images()
    with torch.no_grad():
        z = torch.stack([
            torch.stack([torch.cat([method.encoder(x[None, i, :, r : r + 8, c : c + 8]) for c in range(0, 9, 2)])
                         for r in range(0, 9, 2)])
            for i in range(3)
        ]).permute(0, 3, 1, 2)
        context, target = method.context(z), method.target(z).double().numpy()
        predicted = [predict(context).double().numpy() for predict in method.predict]
    loss, accuracy = 0.0, {}
    for k, guess in zip((2, 3, 4), predicted):
        losses, right = [], []
        for i in range(3):
            for row in range(GRID - k):
                for column in range(GRID):
                    own = (i, row + k, column)
                    places = [(j, r, c) for j in range(3) for r in range(k, GRID) for c in range(GRID)]
                    g = unit(guess[i, :, row, column])
                    scores = {p: g @ unit(target[p[0], :, p[1], p[2]]) / method.temperature for p in places}
                    losses.append(np.log(sum(np.exp(list(scores.values())))) - scores[own])
                    right.append(scores[own] == max(scores.values()))
        loss += np.mean(losses)
        accuracy[f"accuracy_{k}"] = np.mean(right)
    out = method({"image": x})
    assert float(out["loss"].detach()) == pytest.approx(loss, rel=1e-4)
    assert {name: float(out[name]) for name in accuracy} == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("row", range(7))
def test_a_context_depends_on_its_own_row_and_those_above_alone(card, row):
    method = build(card)
    z = torch.randn(1, method.encoder.dim, 7, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(method.context(z)[0, :, row, 3].sum(), z)
    seen = gradient[0].abs().sum((0, 2)) > 0
    reach = max(0, row - 5)  # five blocks reach up one row each
    assert seen.tolist() == [reach <= r <= row for r in range(7)]
    assert gradient[0, :, row, 1].any() and gradient[0, :, row, 5].any()  # to both sides


def test_lower_pixels_change_no_prediction_from_above(card):
    method, x = build(card).eval(), images(1)
    lower = x.clone()
    lower[:, :, 11:] += 1  # patches of row r have the pixels 2r to 2r + 7, so those from row 2 on are touched
    with torch.no_grad():
        (guess, target), (changed, found) = method.vectors(x)[0], method.vectors(lower)[0]
    assert torch.equal(guess[:, :2], changed[:, :2]) and not torch.equal(guess[:, 2], changed[:, 2])
    assert not torch.equal(target[:, 0], found[:, 0])  # the lowest patch that row 0 predicts is one of them


def test_accuracy_falls_with_the_distance(card, prepare, fit):
    """On images that vary slowly, among patches never seen in training, and although there are fewer to choose from."""
    method = build(card, nearest=1, dim=16, hidden=16)
    fit(method, lambda step: prepare(method, 16, "smooth", seed=step), 80, lr=3e-3)
    with torch.no_grad():
        out = method.eval()(prepare(method, 16, "smooth", seed=999))
    accuracy = [float(out[f"accuracy_{k}"]) for k in range(1, 5)]
    assert accuracy == sorted(accuracy, reverse=True), accuracy
    assert accuracy[0] > 10 / (16 * 20) and accuracy[0] > 1.5 * accuracy[3], accuracy


def test_picture_shows_the_lowest_middle_patch_above_what_is_picked_for_it(card):
    method, x = build(card), images(4)
    target = torch.eye(4 * GRID**2).view(4, GRID, GRID, -1)
    method.vectors = lambda x: [(target[:, k:], target[:, k:]) for k in method.distances]  # all predictions right
    picture = method.pictures({"image": x})["picks"]
    assert picture.shape == (3, 4 * 10, 4 * 10)  # truth and three distances; four images; patches of 8 px with a border
    shown = (x - x.min()) / (x.max() - x.min())
    for image in range(4):
        for line in range(4):
            cell = picture[:, 10 * line + 1 : 10 * line + 9, 10 * image + 1 : 10 * image + 9]
            torch.testing.assert_close(cell, shown[image, :, 8:16, 4:12])


@pytest.mark.parametrize("distances", [{"nearest": 0}, {"farthest": 5}, {"nearest": 4, "farthest": 3}])
def test_distances_that_the_grid_has_not(card, distances):
    with pytest.raises(UserError, match="it predicts from 1 to 4 rows below"):
        build(card, **distances)
