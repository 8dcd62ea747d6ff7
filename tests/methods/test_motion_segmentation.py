"""Motion segmentation: its trimap against loops, and the crops that frame and mask share."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core.moving import CELLS, moving
from selfsup.methods.motion_segmentation import MotionSegmentation, trimap
from tests.test_moving import SIDE, film


def build(card, **args):
    torch.manual_seed(0)
    return MotionSegmentation(nets.build("convnet", width=4, norm="group"), card | {"size": SIDE}, **args)


def batch(n=6, **more):
    frames, flow, truth, _ = film((2.0, 1.0), n=n, noise=0.1)
    return {"frames": frames, "flow": flow, "key": torch.arange(n), **more}, truth


def test_loss_is_logistic_on_what_is_certain_and_ignored_pixels_have_no_gradient():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 4, 4, generator=random, requires_grad=True)
    found = torch.rand(3, 1, 4, 4, generator=random)
    loss, ious, alls = 0.0, [], []
    for n in range(3):
        both = either = front = certain = 0
        for z, m in zip(logits[n].flatten().tolist(), found[n].flatten().tolist()):
            if m > 0.7 or m < 0.4:
                loss += np.log1p(np.exp(-z if m > 0.7 else z)) / 48
                both, either = both + (z > 0 and m > 0.7), either + (z > 0 or m > 0.7)
                front, certain = front + (m > 0.7), certain + 1
        ious.append(both / either)
        alls.append(front / certain)
    out = trimap(logits, found)
    assert float(out["loss"].detach()) == pytest.approx(loss, rel=1e-5)
    assert float(out["iou"]) == pytest.approx(np.mean(ious)) and float(out["iou_all_foreground"]) == pytest.approx(np.mean(alls))
    out["loss"].backward()
    ignored = (found >= 0.4) & (found <= 0.7)
    assert ignored.any() and (logits.grad[ignored] == 0).all() and (logits.grad[~ignored] != 0).all()


def test_frame_and_mask_are_cropped_alike_around_what_moves(card):
    method, (data, truth) = build(card, jitter=0.2), batch(40)
    assert method.side == 24
    data["frames"] = torch.where(truth[:, None, None], 1.0, -1.0).expand(-1, 4, 3, -1, -1)  # the frame says what moves
    for mode in (True, False):
        method.train(mode)
        image, found = method.cuts(data)
        assert image.shape == (40, 3, SIDE, SIDE) and found.shape == (40, 1, CELLS, CELLS)
        small = torch.nn.functional.adaptive_avg_pool2d(image[:, :1], CELLS)
        assert ((small > 0) == (found > 0.5)).float().mean() > 0.9
        assert (image > 0).float().mean() > 0.95 * truth.float().mean() * (32 / 24) ** 2, "all of it is in the crop"
        again, _ = method.cuts({**data, "key": data["key"] + 1000})
        assert torch.equal(again, image) != mode, "moved and mirrored at random while it trains"


def test_only_the_first_frame_is_looked_at(card):
    """All that follows it, and the flow, make the mask and its place alone."""
    method, (data, _) = build(card).eval(), batch()
    seen = []
    layers = method.encoder.layers
    method.encoder.layers = lambda x: seen.append(x) or layers(x)
    method(data)
    other = data["frames"].clone()
    other[:, 1:] = 0
    method({**data, "frames": other})
    assert torch.equal(*seen)


def test_what_moves_is_predicted_from_the_frame(card, fit):
    """Squares whose texture tells them apart: after a short training their masks, which all-foreground is far from."""
    method, (data, truth) = build(card, crop=1.0, jitter=0.0), batch(16)
    assert moving(data["frames"], data["flow"]).max() > 0.7
    fit(method, lambda step: data, 40)
    with torch.no_grad():
        out = method.eval()(data)
    assert out["iou"] > 0.6 and out["iou_all_foreground"] < 0.3, out
