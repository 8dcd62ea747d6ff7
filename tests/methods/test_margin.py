"""The margin loss against eq. 4 summed over pairs in loops, and its two histograms."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.margin import Margin, distances
from selfsup.inputs.views import Views


def build(norm="group", **args):
    torch.manual_seed(0)
    return Margin(nets.build("convnet", width=4, norm=norm), **{"hidden": 32, "dim": 8, **args})


def views(n=5, seed=0):
    return {"image": torch.randn(n, 2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("margin", [0.3, 1.0, 1.9])
def test_loss_is_equation_4(margin):
    method, batch = build(margin=margin).eval(), views()
    with torch.no_grad():
        z = [method.projector(method.encoder(batch["image"][:, v])).double().numpy() for v in range(2)]
    z = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in z]
    points = [(image, z[v][image]) for image in range(5) for v in range(2)]
    terms = {True: [], False: []}
    for i, (image, a) in enumerate(points):
        for j, (other, b) in enumerate(points):
            d = np.sqrt(((a - b) ** 2).sum())
            if i != j:
                terms[image == other].append(0.5 * d**2 if image == other else 0.5 * max(0, margin - d) ** 2)
    assert len(terms[True]) == 10 and len(terms[False]) == 80
    loss = method(batch)["loss"]
    assert float(loss.detach()) == pytest.approx(sum(terms[True] + terms[False]) / len(points), rel=1e-4)


def test_gradient_pushes_inside_the_margin_only_and_is_finite_where_points_coincide():
    far = torch.tensor([[0.0, 0], [0, 0], [3, 0], [3, 0]], requires_grad=True)  # two images, both views equal
    method = build(margin=2.0)
    method.embed = lambda x: x
    loss = method({"image": far})["loss"]
    (gradient,) = torch.autograd.grad(loss, far)
    assert loss == 0 and (gradient == 0).all()
    near = torch.tensor([[0.0, 0], [0, 0], [1, 0], [1, 0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(method({"image": near})["loss"], near)
    assert (gradient[:2, 0] > 0).all() and (gradient[2:, 0] < 0).all()  # descent parts them
    same = torch.zeros(4, 2, requires_grad=True)
    assert torch.autograd.grad(method({"image": same})["loss"], same)[0].isfinite().all()


def test_histograms_separate(prepare, fit):
    """Of views never seen in training, a similar pair is the closer one more often than before training."""

    def ordered(method):
        with torch.no_grad():
            similar, dissimilar = distances(method.eval().embed(prepare(method, 32, "smooth", epoch=99)["image"]))
        return float((similar < dissimilar).float().mean())

    method = build("batch")
    method.inputs = Views(2, augment="crop_flip")  # all that the smooth images differ in is colour
    before = ordered(method)
    last = fit(method, lambda step: prepare(method, 32, "smooth", epoch=step), 60, lr=1e-2)
    after = ordered(method)
    assert before + 0.05 < after and after > 0.9, (before, after)
    assert 1.5 * last["similar"] < last["dissimilar"]


def test_picture_of_the_histograms():
    """Similar pairs all at distance 0, dissimilar ones all at √2, bin 22 of 32 up to 2: a bar at the left end above, one
    there below, both of full height, and nothing else but the margin's line."""
    method = build()
    method.embed = lambda x: torch.eye(2).repeat_interleave(2, 0)
    picture = method.pictures(views(2))["distances"]
    assert picture.shape == (3, 128, 256)
    green = (picture[1] > picture[0] + 0.5).nonzero()
    red = (picture[0] > picture[1] + 0.5).nonzero()
    assert green.amin(0).tolist() == [0, 0] and green.amax(0).tolist() == [63, 7] and len(green) == 64 * 8
    assert red.amin(0).tolist() == [64, 176] and red.amax(0).tolist() == [127, 183] and len(red) == 64 * 8
    assert ((picture[:, :, 128] - 0.6).abs() < 1e-6).all() and picture[:, :, 129].min() == 1
