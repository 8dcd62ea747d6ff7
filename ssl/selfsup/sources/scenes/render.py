"""Draws a description: pixels."""

import numpy as np
import torch

from selfsup.core import rng
from selfsup.sources.scenes.describe import COLOURS, GROUNDS, muted
from selfsup.sources.scenes.motion import MARGIN, behind, seen
from selfsup.sources.scenes.shapes import SHAPES, box, ellipse

SUPERSAMPLE = 2
BLOBS, CELLS = 3, 12  # clutter, and cells of the ground's mottle a side, in the unit square
CHUNK = 1 << 17  # pixels rendered at a time; chosen for the processor's cache


def render(s, size=32, aberration=0.0, style=None):
    """Draw a description, or a frame of its film (`motion.at`): uint8 (N, size, size, 3). Upright, lit from above, far
    things first. aberration: by what share the lens draws green smaller than red and blue, about the image's centre.
    style: one of STYLES, for those that are `styled`."""
    step = max(1, CHUNK // (size * SUPERSAMPLE) ** 2)
    n = len(s["label"])
    parts = [_render({k: v[i:i + step] for k, v in s.items()}, size, aberration, style) for i in range(0, n, step)]
    return np.concatenate(parts) if parts else np.zeros((0, size, size, 3), np.uint8)


def _render(s, size, aberration, style):
    s = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in s.items()}
    keys, order = torch.from_numpy(s["key"]), s["y"].argsort(1)  # far to near
    x, y = seen(s, *pixels(size))  # what has no sharp edges is drawn at the final size
    image = _backdrop(s, keys, behind(s, x, y), y, MARGIN if "pose" in s else 0.0)
    for slot in (0, 1):
        _shadow(image, s, order[:, slot], x, y)
    image = image.repeat(SUPERSAMPLE, 2).repeat(SUPERSAMPLE, 3)
    x, y = seen(s, *pixels(size * SUPERSAMPLE))
    for slot in (0, 1):
        _paint(image, s, order[:, slot], x, y)
    if aberration:
        image[:, 1] = _shrunk(_shrunk(image[:, 1], aberration).swapaxes(1, 2), aberration).swapaxes(1, 2)
    image *= (s["gain"][:, None] * s["tint"])[:, :, None, None]
    if style:
        image[s["styled"]] = STYLES[style](image[s["styled"]])
    small = image.reshape(-1, 3, size, SUPERSAMPLE, size, SUPERSAMPLE)
    small = (small[:, :, :, 0, :, 0] + small[:, :, :, 0, :, 1] + small[:, :, :, 1, :, 0] + small[:, :, :, 1, :, 1]) / 4
    u = rng.uniform(torch.from_numpy(s["grain"]) if "grain" in s else keys, 3, size, size, salt=2).numpy()
    coarse = np.floor(u * 4096)
    small += s["noise"][:, None, None, None] * (coarse / 4096 + (u * 4096 - coarse) - 1) * 2  # triangular
    return np.floor(np.clip(small, 0, 1) * 255 + np.float32(.5)).astype(np.uint8).transpose(0, 2, 3, 1)


def _night(image):
    """Little light, and of that the more the bluer."""
    return image * np.array((.26, .32, .48), np.float32)[:, None, None]


def _sketch(image):
    """A pencil's lines on paper, the darker the more brightness changes there."""
    grey = image[:, 0] / 3 + image[:, 1] / 3 + image[:, 2] / 3
    change = np.zeros_like(grey)
    change[:, :, 1:] += abs(grey[:, :, 1:] - grey[:, :, :-1])
    change[:, 1:] += abs(grey[:, 1:] - grey[:, :-1])
    line = np.clip(np.float32(3) * change, 0, 1)
    return np.repeat((np.float32(.95) - np.float32(.85) * line)[:, None], 3, 1)


STYLES = {"night": _night, "sketch": _sketch}  # (N, 3, H, W) -> the same scenes in another domain


def _shrunk(image, share):
    """(N, H, W) drawn smaller by `share` along W about the centre, linearly between pixels; the edge stays."""
    side = image.shape[2]
    at = np.clip((np.arange(side) - (side - 1) / 2) / (1 - share) + (side - 1) / 2, 0, side - 1)
    left = np.minimum(at.astype(int), side - 2)
    part = (at - left).astype(np.float32)
    return image[:, :, left] * (1 - part) + image[:, :, left + 1] * part


def pixels(side):
    """Coordinates of pixel centres: x (1, 1, side), y (1, side, 1)."""
    at = (np.arange(side, dtype=np.float32) + np.float32(.5)) / side
    return at[None, None, :], at[None, :, None]


def _backdrop(s, keys, x, y, margin):
    """Gradient sky or wall, soft clutter on it, and the ground below the horizon: (N, 3, H, W). They go on, as dense,
    for `margin` beyond the unit square."""
    t = np.clip(y / np.maximum(s["horizon"], .1)[:, None, None], 0, 1)[:, None]
    image = s["sky"][:, 0, :, None, None] * (1 - t) + s["sky"][:, 1, :, None, None] * t + np.zeros_like(x)[:, None]
    horizon = (s["horizon"][:, None, None] + s["slope"][:, None, None] * (x - .5))
    ground = (np.array(list(GROUNDS.values()), np.float32)[s["ground"]] + s["ground_jitter"])[:, :, None, None]
    ground = ground * (1 + .3 * (_mottle(keys, x, y, margin) - .5))[:, None]
    _blend(image, ground, np.clip(.5 + (y - horizon) * x.shape[2], 0, 1))
    side = 1 + 2 * margin
    blobs = rng.uniform(keys, round(BLOBS * side ** 2), 10, salt=3).numpy()  # centre, radii, colour, opacity, kind
    for b in np.moveaxis(blobs, 1, 0):
        cx, cy, rx, ry = (b[:, i, None, None] for i in range(4))
        cx, cy = side * cx - margin, side * cy - margin
        rx, ry, soft = .06 + .25 * rx, .06 + .25 * ry, .02 + .1 * b[:, 7, None, None]
        d = np.where(b[:, 9, None, None] < .5, ellipse(x, y, cx, cy * .8, rx, ry),
                     box(x, y, cx, cy * .8, rx, ry))
        opacity = .1 + .4 * b[:, 8, None, None]
        _blend(image, muted(b[:, 4:7])[:, :, None, None], np.clip(.5 - d / soft, 0, 1) * opacity)
    return image


def _mottle(keys, x, y, margin):
    """Smooth random field in 0..1 from -margin to 1 + margin: random values, CELLS a side, bilinearly between them."""
    cells = round(CELLS * (1 + 2 * margin))
    grid = rng.uniform(keys, cells + 1, cells + 1, salt=4).numpy()
    x, y = (x + margin) * CELLS, (y + margin) * CELLS
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - i, x - j
    if x.shape[1] > 1:
        n = np.arange(len(grid))[:, None, None]
        rows = [grid[n, i, k] * (1 - fy) + grid[n, i + 1, k] * fy for k in (j, j + 1)]
        return rows[0] * (1 - fx) + rows[1] * fx
    i, j = i[0, :, 0], j[0, 0]  # the same rows and columns for all: much faster
    rows = grid[:, i] * (1 - fy[0]) + grid[:, i + 1] * fy[0]
    return rows[:, :, j] * (1 - fx[0, 0]) + rows[:, :, j + 1] * fx[0, 0]


def _blend(image, colour, alpha):
    """In place: paint colour (N, 3, ...) over the image where alpha (N, H, W) says."""
    image += (colour - image) * alpha[:, None]


def _of(s, name, slot):
    """One object's column of the description, shaped to broadcast over pixels: (N, 1, 1)."""
    return s[name][np.arange(len(slot)), slot][:, None, None]


def _shadow(image, s, slot, x, y):
    scale = _of(s, "scale", slot)
    cx = _of(s, "x", slot) - .25 * scale * s["light"][:, None, None]
    d = np.sqrt(((x - cx) / (.48 * scale)) ** 2 + ((y - _of(s, "y", slot)) / (.13 * scale)) ** 2)
    alpha = np.clip(1.6 * (1 - d), 0, 1) * s["shadow"][:, None, None] * _of(s, "present", slot)
    image *= 1 - alpha[:, None]


def outlines(s, size):
    """Signed distances (N, 2, size, size) of pixel centres to the outlines of object and prop, negative inside;
    infinite where there is no prop."""
    s = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in s.items()}
    x, y = seen(s, *pixels(size))
    slots = (np.full(len(s["label"]), slot) for slot in (0, 1))
    found = [np.where(_of(s, "present", slot), _outline(s, slot, x, y)[2], np.float32(np.inf)) for slot in slots]
    return np.stack(found, 1)


def _outline(s, slot, x, y):
    """Of one object a scene: its own coordinates (to the right, upwards) of each pixel, and distances to outline and
    detail there, each (N, H, W)."""
    scale, t = _of(s, "scale", slot), _of(s, "tangent", slot)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    right, up = (x - _of(s, "x", slot)) / scale, (_of(s, "y", slot) - y) / scale - np.float32(.5)
    right, up = cos * right + sin * up, cos * up - sin * right + np.float32(.5)  # leans about its middle
    right = right * (1 - 2 * _of(s, "flip", slot).astype(np.float32)) / _of(s, "stretch", slot)

    kind = s["kind"][np.arange(len(slot)), slot]
    outline, detail = np.empty_like(right), np.empty_like(right)
    for k in np.unique(kind):
        rows = kind == k
        shape = s["shape"][rows, slot[rows]][:, :, None, None]
        outline[rows], detail[rows] = SHAPES[k](right[rows], up[rows], shape[:, 0], shape[:, 1])
    return right, up, outline, detail


def _paint(image, s, slot, x, y):
    """Draw one object a scene, textured, shaded as if embossed, over the image."""
    right, up, outline, detail = _outline(s, slot, x, y)
    n, pixel = np.arange(len(slot)), 1 / (x.shape[2] * _of(s, "scale", slot))
    palette = np.array(list(COLOURS.values()), np.float32)
    colour = palette[s["colour"][n, slot]] + s["jitter"][n, slot]
    paint = np.repeat(np.repeat(colour[:, :, None, None], x.shape[2], 2), x.shape[2], 3)
    _blend(paint, palette[s["accent"][n, slot]][:, :, None, None], _texture(s, slot, right, up))
    _blend(paint, _of(s, "detail", slot)[:, None], np.clip(.5 - detail / pixel, 0, 1))
    paint *= _shading(outline, s["light"][:, None, None])[:, None]
    _blend(image, paint, np.clip(.5 - outline / pixel, 0, 1) * _of(s, "present", slot))


def _texture(s, slot, x, y):
    """Where the accent colour shows, 0 or 1, in the object's own coordinates."""
    kind, period, slant = _of(s, "texture", slot), _of(s, "period", slot), _of(s, "slant", slot)
    u = np.where(slant == 0, x, np.where(slant == 1, y, (x + y) * np.float32(.7))) / period
    a, b = x / period, y / period
    fa, fb, fu = a - np.floor(a), b - np.floor(b), u - np.floor(u)
    stripes, dots = fu < .4, (fa - .5) ** 2 + (fb - .5) ** 2 < .09
    checks = (fa < .5) ^ (fb < .5)
    return np.where(kind == 1, stripes, np.where(kind == 2, dots, (kind == 3) & checks)).astype(np.float32)


def _shading(outline, light):
    """Brightness of a pillow-shaped relief under light from above, from the slope of the distance to the outline."""
    edge = np.clip(1 + outline / np.float32(.16), 0, 1)  # 1 at the outline, 0 deep inside
    dx, dy = np.zeros_like(outline), np.zeros_like(outline)
    dx[:, :, 1:-1] = outline[:, :, 2:] - outline[:, :, :-2]
    dy[:, 1:-1] = outline[:, 2:] - outline[:, :-2]
    length = np.sqrt(dx * dx + dy * dy) + np.float32(1e-4)
    return np.clip(.88 + edge * np.float32(.3) * (light * dx - dy) / length, .25, 1.4)
