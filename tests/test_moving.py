"""What is found to move by itself, in films of which the truth is known, and windows and tracks against loops."""

import numpy as np
import pytest
import torch

from selfsup.core import moving
from selfsup.core.moving import BORDER, UNIT, affine, apart, carried, places, window

SIDE, FRAMES = 32, 4


def film(thing, camera=((0, 0, 0), (0, 0, 0)), n=4, seed=0, noise=0.0):
    """Frames (n, T, 3, S, S), normalised, flow (n, T - 1, 2, S, S) and masks (n, S, S) of a square that goes on by `thing`,
    (x, y) in pixels a frame, before a ground that an affine camera moves by (value at the middle, slopes by x, y)."""
    random = torch.Generator().manual_seed(seed)
    y, x = places(SIDE, SIDE, "cpu")
    ground = torch.tensor(camera).float()
    ground = (ground[:, :1] + ground[:, 1:2] * x + ground[:, 2:] * y).view(2, SIDE, SIDE)
    corner = torch.randint(7, 12, (n, 2), generator=random)
    frames, flow = torch.randn(n, 1, 3, 8, 8, generator=random) * 0.3 - 1, []
    frames = torch.nn.functional.interpolate(frames[:, 0], (SIDE, SIDE))[:, None].repeat(1, FRAMES, 1, 1, 1)
    masks = torch.zeros(n, FRAMES, SIDE, SIDE, dtype=torch.bool)
    for i in range(n):
        for t in range(FRAMES):
            top, left = (int(corner[i, a] + t * thing[1 - a]) for a in (0, 1))
            masks[i, t, top : top + 11, left : left + 11] = True
    frames = torch.where(masks[:, :, None], torch.rand(n, 1, 3, SIDE, SIDE, generator=random) + 0.5, frames)
    flow = torch.where(masks[:, :-1, None], torch.tensor(thing).float()[:, None, None], ground)
    flow = flow + noise * torch.randn(flow.shape, generator=random)
    return frames, (flow * UNIT).round().short(), masks[:, 0], corner


def iou(found, truth):
    return ((found & truth).flatten(1).sum(1) / (found | truth).flatten(1).sum(1)).min().item()


@pytest.mark.parametrize("camera", [((0, 0, 0), (0, 0, 0)), ((1.5, 0.6, -0.4), (-1, 0.4, 0.6))], ids=["still", "rolls"])
def test_what_moves_by_itself_is_found(camera):
    frames, flow, truth, _ = film((2.0, 1.0), camera, noise=0.1)
    assert iou(moving.moving(frames, flow) > 0.5, truth) > 0.6


def test_where_the_camera_alone_moves_nothing_is_found():
    """Also where the ground goes left in directions on both sides of 180 degrees, which are next to each other."""
    frames = film((0.0, 0.0))[0]
    for camera in (((0, 0, 0), (0, 0, 0)), ((2, 0.8, -0.5), (1, 0.5, 0.8)), ((-2, 0, 0), (0, 0.05, 0.05))):
        assert moving.moving(frames, film_of_camera(camera)).max() < 0.4, camera


def film_of_camera(camera):
    y, x = places(SIDE, SIDE, "cpu")
    ground = torch.tensor(camera).float()
    ground = (ground[:, :1] + ground[:, 1:2] * x + ground[:, 2:] * y).view(2, SIDE, SIDE)
    noise = 0.05 * torch.randn(4, FRAMES - 1, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return ((ground + noise) * UNIT).round().short()


def test_nothing_is_found_at_the_border():
    frames, flow, *_ = film((2.0, 1.0))
    edge = round(BORDER * SIDE)
    flow[:, :, :, :edge] += 400
    with_edge = moving.moving(frames, flow)
    assert with_edge[:, 0].max() < 0.4 and with_edge.amax((1, 2)).min() > 0.9


def test_the_dominant_motion_is_the_nearest_affine_one():
    random = torch.Generator().manual_seed(0)
    y, x = places(5, 7, "cpu")
    u, weight = torch.randn(3, 2, 35, generator=random), torch.rand(3, 35, generator=random)
    basis = np.stack([np.ones(35), x, y], 1)
    for n in range(3):
        root = weight[n].sqrt().numpy()[:, None]
        expected = np.linalg.lstsq(basis * root, u[n].T.numpy() * root, rcond=None)[0].T
        np.testing.assert_allclose(affine(x, y, u, weight)[n].numpy(), expected, atol=1e-4)
    exact = film_of_camera(((2, 0.8, -0.5), (1, 0.5, 0.8)))[0].float() / UNIT
    assert apart(exact).abs().mean() < 0.08


def test_own_motion_is_what_the_camera_does_not_explain():
    for camera in (((0, 0, 0), (0, 0, 0)), ((1.5, 0.6, -0.4), (-1, 0.4, 0.6))):
        _, flow, truth, _ = film((2.0, 1.0), camera)
        found = moving.own(flow)
        assert found.abs().amax(1)[~truth].quantile(0.9) < 0.2
        if camera[0][0] == 0:
            inside = found.transpose(0, 1)[:, truth]
            assert (inside.median(1).values - torch.tensor([2.0, 1.0])).abs().max() < 0.1


def test_windows_and_tracks_against_loops():
    random = torch.Generator().manual_seed(0)
    mask = torch.rand(5, 12, 12, generator=random)
    corner, held = window(mask, 4)
    for n in range(5):
        means = {(t, l): float(mask[n, t : t + 4, l : l + 4].mean()) for t in range(9) for l in range(9)}  # noqa: E741
        assert tuple(corner[n].tolist()) == max(means, key=means.get)
        assert float(held[n]) == pytest.approx(max(means.values()), abs=1e-6)
    for thing in ((2.0, 1.0), (-2.0, 0.0), (5.0, 5.0)):
        _, flow, truth, start = film(thing)
        found = carried(start, 11, flow, truth.float())
        for t in range(FRAMES):
            expected = (start + t * torch.tensor([int(thing[1]), int(thing[0])])).clamp(0, SIDE - 11)
            assert torch.equal(found[:, t], expected) or thing == (5.0, 5.0), (thing, t)
        assert found.min() >= 0 and found.max() <= SIDE - 11
    _, flow, truth, start = film((2.0, 1.0))
    wide = carried(start - 3, 19, flow, truth.float())  # of which the thing is the smaller part
    assert torch.equal(wide[:, -1] - wide[:, 0], torch.tensor([[3, 6]]).expand(4, -1).minimum(13 - wide[:, 0]))
    assert torch.equal(carried(start, 11, flow, torch.zeros_like(truth).float()), carried(start, 11, flow, truth.float()))
