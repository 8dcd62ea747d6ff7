"""Solids of a scene's shapes: how far away what is seen is, and points on the object's surface from two sides.

What is round in the picture (bottle, lamp, tree …) is the outline turned about the upright axis; the rest is as thick
as DEPTH says, with rounded edges."""

import numpy as np
import torch

from selfsup.core import rng
from selfsup.sources.scenes.describe import CLASSES, PROPS
from selfsup.sources.scenes.shapes import SHAPES

POINTS = 256  # of a view
METRE = 4096  # depth is kept in whole numbers of so many a unit
DEPTH, ROUND = .24, .06  # half a flat solid's thickness, and the radius of its edges
TURNED = {(CLASSES + PROPS).index(name) for name in ("bottle", "lamp", "mushroom", "tree", "ball", "cone", "post")}
RAYS, STEPS, REACH = 32, 28, .8  # a view looks along RAYS x RAYS rays, at points from -REACH to REACH
CHUNK = 4  # objects at a time; chosen for the processor's cache


def distance(kind, x, y, z, p, q):
    """Signed distance of points to a solid, negative inside; coordinates as in `shapes`."""
    if kind in TURNED:
        return SHAPES[kind](np.sqrt(x * x + z * z), y, p, q)[0]
    flat, deep = SHAPES[kind](x, y, p, q)[0] + ROUND, abs(z) - (DEPTH - ROUND)
    outside = np.sqrt(np.maximum(flat, 0) ** 2 + np.maximum(deep, 0) ** 2)
    return outside + np.minimum(np.maximum(flat, deep), 0) - ROUND


# What lies how far


def depth(s, distances, y):
    """How far away what is seen at each pixel is, in 1/METRE: uint16 (N, H, W). `distances`: of `render.outlines`; y
    (1, H, 1) of the pixels. The ground comes nearer downwards, things stand on it and bulge towards one."""
    horizon = s["horizon"][:, None, None]
    far = _far(horizon, y) + np.zeros_like(distances[:, 0])
    for slot in (0, 1):
        inside = np.clip(-distances[:, slot] / .16, 0, 1)
        here = _far(horizon, s["y"][:, slot, None, None]) - DEPTH * s["scale"][:, slot, None, None] * np.sqrt(inside)
        far = np.where(distances[:, slot] < 0, np.minimum(far, here), far)
    return np.floor(far * METRE + .5).astype(np.uint16)


def _far(horizon, y):
    return 1 / (np.maximum(y - horizon, 0) + .15)


# Points


def views(s):
    """Points on the object as two cameras see it, (N, 2, POINTS, 3), and the transform (N, 3, 4) that brings the first
    one's to the second: p -> R p + t. float32; each camera's x to the right, y up, z away from it.

    Each sees what faces it, 15 to 55 degrees from where the other one stands. The object lies any way up: were it upright,
    an untrained network would tell its class from where its points are."""
    u = rng.uniform(torch.from_numpy(s["key"]), 8, salt=9).double().numpy()
    away = np.where(u[:, 4] < .5, -1, 1) * (.13 + .39 * u[:, 5])
    first = _any_way_up(2 * u[:, :4] - 1)
    cameras, shifts = [first, _product(_turn(away), first)], 1.5 + u[:, 6:8]
    found = np.stack([_points(s, camera, shifts[:, v], v) for v, camera in enumerate(cameras)], 1)
    rotation = _product(cameras[1], cameras[0].swapaxes(1, 2))
    shift = -rotation[:, :, 2] * shifts[:, :1]
    shift[:, 2] += shifts[:, 1]
    return found, np.concatenate([rotation, shift[:, :, None]], 2).astype(np.float32)


def _any_way_up(q):
    """Rotations (N, 3, 3) of quaternions (N, 4) of any length."""
    w, x, y, z = (q / np.sqrt(np.maximum(q[:, 0] ** 2 + q[:, 1] ** 2 + q[:, 2] ** 2 + q[:, 3] ** 2, 1e-12))[:, None]).T
    return np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
                     2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                     2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1).reshape(-1, 3, 3)


def _turn(tangent):
    """Rotations (N, 3, 3) about the upright axis, by twice the angle of that tangent."""
    t = np.asarray(tangent)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    no, one = np.zeros_like(t), np.ones_like(t)
    return np.stack([cos, no, sin, no, one, no, -sin, no, cos], 1).reshape(-1, 3, 3)


def _product(a, b):
    """Of matrices (N, 3, 3), by sums in one order: a library's differ in the last bit between processors."""
    return a[:, :, 0, None] * b[:, None, 0] + a[:, :, 1, None] * b[:, None, 1] + a[:, :, 2, None] * b[:, None, 2]


def _points(s, camera, shift, view):
    """(N, POINTS, 3) of one view; fewer where less is seen, some then repeated."""
    kind, out = s["kind"][:, 0], np.empty((len(shift), POINTS, 3), np.float32)
    keys = torch.from_numpy(s["key"])
    for k in np.unique(kind):
        rows = np.flatnonzero(kind == k)
        for first in range(0, len(rows), CHUNK):
            some = rows[first:first + CHUNK]
            z, hit = _hits(k, camera[some].astype(np.float32), *s["shape"][some, 0].astype(np.float32).T)
            order = rng.uniform(keys[some], RAYS * RAYS, salt=10 + view).numpy()
            order = np.where(hit, order, np.float32(2)).argsort(1, kind="stable")
            which = np.take_along_axis(order, np.arange(POINTS) % np.maximum(hit.sum(1), 1)[:, None], 1)
            side = _grid(RAYS)
            away = np.take_along_axis(z, which, 1) + shift[some, None].astype(np.float32)
            out[some] = np.stack([side[which % RAYS], side[which // RAYS], away], 2)
    return out


def _hits(kind, camera, p, q):
    """Where parallel rays first meet a solid: z (n, RAYS²) in the camera's coordinates about its middle, and whether
    they do."""
    side, steps = _grid(RAYS), _grid(STEPS)
    x, y, z = side[None, None, None, :], side[None, None, :, None], steps[None, :, None, None]
    axes = [camera[:, 0, i, None, None, None] * x + camera[:, 1, i, None, None, None] * y
            + camera[:, 2, i, None, None, None] * z for i in range(3)]  # the inverse rotation
    found = distance(kind, axes[0], axes[1] + np.float32(.5), axes[2], p[:, None, None, None], q[:, None, None, None])
    found = found.reshape(len(camera), STEPS, -1)
    inside = found < 0
    first = np.maximum(inside.argmax(1), 1)[:, None]
    before, after = (np.take_along_axis(found, first - i, 1)[:, 0] for i in (1, 0))
    part = before / np.where(before == after, 1, before - after)
    return steps[first[:, 0] - 1] + np.clip(part, 0, 1) * (steps[1] - steps[0]), inside.any(1)


def _grid(count):
    return (((np.arange(count) + .5) / count * 2 - 1) * REACH).astype(np.float32)
