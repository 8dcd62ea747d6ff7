"""`scenes`: generated pictures of toy objects on a ground, with captions. The default data set; needs no download.

Two halves, kept apart: `describe` says what is in each scene (plain arrays), `render` draws a description. Frames,
sound, depth or points are further renderers of the same description.

Every number is a pure function of (seed, split, index), and pixels also of the size, never of the batch or the process.
Pixels are made with + - * / sqrt, min, max and floor only, which IEEE 754 rounds alike on every machine; sines and
exponentials differ in the last bit between processors, and would change the hash of the shards.

Coordinates: x to the right and y *down*, the image is the unit square. Within an object (see SHAPES) x in -0.5..0.5,
y *up* from 0, where it stands on the ground, to about 1.
"""
import zlib

import numpy as np
import torch

from selfsup.core import rng
from selfsup.errors import UserError

COLOURS = {
    "red": (.80, .12, .12), "orange": (.95, .50, .08), "yellow": (.93, .85, .15), "green": (.15, .60, .22),
    "blue": (.12, .28, .80), "purple": (.50, .18, .65), "pink": (.95, .55, .70), "brown": (.42, .26, .14),
    "white": (.93, .93, .93), "grey": (.45, .45, .47),
}
GROUNDS = {
    "grass": (.33, .52, .20), "sand": (.82, .72, .48), "snow": (.88, .91, .95), "asphalt": (.28, .28, .30),
    "clay": (.62, .36, .25), "ice": (.60, .76, .84),
}
TEXTURES = ("plain", "striped", "dotted", "checked")
RELATIONS = ("left of", "right of", "behind", "in front of")  # the object is ... the prop
SMALL, LARGE = 0.58, 0.74  # captions say "small" below and "large" above these heights
SUPERSAMPLE = 2
CHUNK = 1 << 17  # pixels rendered at a time; chosen for the processor's cache


# --- Signed distances (negative inside) and how they combine; (x, y) are arrays, parameters broadcast against them.

def box(x, y, cx, cy, hx, hy, r=0.0):
    """Box of half-sizes hx, hy with corners rounded by r."""
    dx, dy = abs(x - cx) - hx + r, abs(y - cy) - hy + r
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0) - r


def ellipse(x, y, cx, cy, rx, ry):
    """Exact for a circle; otherwise a bound good enough near the outline."""
    return (np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) - 1) * np.minimum(rx, ry)


def taper(x, y, y0, y1, w0, w1, cx=0.0):
    """Symmetric trapezoid from half-width w0 at height y0 to w1 at y1 (a triangle for w1 = 0)."""
    slope = (w1 - w0) / (y1 - y0)
    side = (abs(x - cx) - w0 - slope * (y - y0)) / np.sqrt(1 + slope ** 2)
    return np.maximum(side, np.maximum(y0 - y, y - y1))


def union(*parts):
    d = parts[0]
    for part in parts[1:]:
        d = np.minimum(d, part)
    return d


# --- Shapes: (x, y, p, q) -> (outline, detail), signed distances. p and q in 0..1 vary the shape within its class; the
# detail (windows, stems, wheels …) is painted in another colour.

def boat(x, y, p, q):
    hull = np.maximum(taper(x, y, 0.0, .26, .22 + .1 * p, .46), y - .26)
    mast = box(x, y, 0, .6, .025, .38)
    sail = np.maximum(np.maximum(.3 - y, .04 - x), (x - .04) * (1.3 + q) + y - .96)
    jib = np.maximum(np.maximum(.36 - y, x + .05), y - x * (1.8 + p) - .9)
    return union(hull, mast, sail / 2, jib / 2.5), np.minimum(mast, np.maximum(hull, .17 - y))


def bottle(x, y, p, q):
    w, neck, top = .15 + .08 * p, .05 + .03 * q, .5 + .15 * q
    body, shoulder = box(x, y, 0, top / 2, w, top / 2, .04), taper(x, y, top - .05, top + .18, w, neck)
    return union(body, shoulder, box(x, y, 0, .8, neck, .2)), \
        np.minimum(box(x, y, 0, .3, w, .11), box(x, y, 0, .96, .1, .05))


def car(x, y, p, q):
    body = box(x, y, 0, .26, .5, .13, .06)
    cabin = taper(x, y, .36, .60 + .08 * q, .33, .2, -.08 + .1 * p)
    glass = taper(x, y, .40, .56 + .08 * q, .26, .17, -.08 + .1 * p)
    wheels = np.minimum(ellipse(x, y, -.28, .12, .125, .125), ellipse(x, y, .28, .12, .125, .125))
    return union(body, cabin, wheels), np.minimum(wheels, np.maximum(glass, .03 - abs(x + .05 - .1 * p)))


def chair(x, y, p, q):
    seat = .36 + .14 * q
    back = box(x, y, -.27, (1 + seat) / 2, .05 + .02 * p, (1 - seat) / 2, .03)
    legs = np.minimum(box(x, y, -.27, seat / 2, .04, seat / 2), box(x, y, .27, seat / 2, .04, seat / 2))
    cushion = box(x, y, 0, seat, .33, .06, .03)
    return union(back, legs, cushion), legs


def duck(x, y, p, q):
    body, tail = ellipse(x, y, -.04, .28, .40, .26 + .05 * p), taper(x + .40, y, .3, .62, .14, .01)
    hx, hy = .25, .68 + .08 * q
    head, neck = ellipse(x, y, hx, hy, .19, .18), box(x, y, .21, .48, .12, .2, .1)
    beak = ellipse(x, y, hx + .22, hy - .03, .12, .055)
    eye = ellipse(x, y, hx + .06, hy + .06, .045, .045)
    return union(body, tail, head, neck, beak), np.minimum(beak, eye)


def house(x, y, p, q):
    wall, w = .44 + .1 * q, .34 + .08 * p
    roof, walls = taper(x, y, wall, .98, w + .07, .0), box(x, y, 0, wall / 2, w, wall / 2)
    chimney = box(x, y, .22, .8, .06, .17)
    door, window = box(x, y, -.14, .15, .08, .15), box(x, y, .16, .28, .09, .08)
    return union(roof, walls, chimney), union(door, window, roof)


def lamp(x, y, p, q):
    rim = .5 + .14 * q
    shade = taper(x, y, rim, 1.0, .36, .14 + .12 * p)
    stem, foot = box(x, y, 0, .35, .035, .33), taper(x, y, 0.0, .09, .24, .14)
    return union(shade, stem, foot), np.minimum(stem, foot)


def mug(x, y, p, q):
    top, w = .62 + .2 * q, .27 + .05 * p
    body = np.minimum(taper(x - (-.08), y, .04, top, w - .03, w), ellipse(x, y, -.08, .05, w - .03, .06))
    handle = abs(ellipse(x, y, w - .06, top * .52, .20, .23)) - .045
    rim = ellipse(x, y, -.08, top, w, .08)
    return union(body, handle, rim), rim + .025


def mushroom(x, y, p, q):
    rim = .42 + .14 * q
    cap = np.maximum(ellipse(x, y, 0, rim, .42, .96 - rim), rim - .04 - y)
    stem = taper(x, y, 0.0, rim, .16 + .06 * p, .1 + .05 * p)
    return np.minimum(cap, stem), np.maximum(stem, -cap)


def tree(x, y, p, q):
    trunk = box(x, y, 0, .18, .06 + .03 * q, .18)
    fir = union(taper(x, y, .24, .58, .38, .1), taper(x, y, .44, .78, .31, .07), taper(x, y, .64, 1.0, .23, 0.0))
    leafy = union(ellipse(x, y, -.17, .52, .22, .2), ellipse(x, y, .17, .54, .22, .2), ellipse(x, y, 0, .76, .25, .22))
    return np.minimum(trunk, np.where(p < .5, fir, leafy)), trunk


def ball(x, y, p, q):
    return ellipse(x, y, 0, .42, .42, .42), np.full_like(x, 1.0)


def crate(x, y, p, q):
    return box(x, y, 0, .38, .34 + .1 * p, .38, .03), np.full_like(x, 1.0)


def cone(x, y, p, q):
    return taper(x, y, 0.0, .95, .36 + .1 * p, .03), np.full_like(x, 1.0)


def post(x, y, p, q):
    return box(x, y, 0, .5, .1 + .05 * p, .5, .05), np.full_like(x, 1.0)


CLASSES = ("boat", "bottle", "car", "chair", "duck", "house", "lamp", "mug", "mushroom", "tree")
PROPS = ("ball", "crate", "cone", "post")  # the second object: never a class, so the label is never in doubt
SHAPES = (boat, bottle, car, chair, duck, house, lamp, mug, mushroom, tree, ball, crate, cone, post)


# --- What is in a scene

def describe(split, index, seed=0):
    """Scenes `index` (int array (N,)) of a split -> dict of arrays with N rows. Columns of two are (object, prop).

    Lengths are shares of the image's side, `tangent` is tan(half the angle the object leans by).
    """
    if split not in ("train", "val", "test"):
        raise UserError(f"scenes has the splits train, val and test, not {split!r}")
    index = np.asarray(index, dtype=np.int64)
    root = rng.key(seed, zlib.crc32(split.encode()))
    keys = rng.key(root, torch.from_numpy(index))
    draws = iter(rng.uniform(keys, 64).double().numpy().T)

    def u(low=0.0, high=1.0, columns=None):
        if columns is None:
            return low + (high - low) * next(draws)
        return np.stack([low + (high - low) * next(draws) for _ in range(columns)], 1)

    def pick(n, columns=None):
        return np.floor(u(0, n, columns)).astype(np.int64)

    label = labels(split, index, seed)
    s = {"key": keys.numpy(), "label": label, "kind": np.stack([label, len(CLASSES) + pick(len(PROPS))], 1)}
    s["present"] = np.stack([np.ones(len(index), bool), u() < .6], 1)
    s["relation"] = relation = pick(len(RELATIONS))
    s["colour"] = pick(len(COLOURS), 2)
    s["texture"] = np.maximum(pick(len(TEXTURES) + 1, 2) - 1, 0)  # plain twice as often as each other
    s["accent"] = (s["colour"] + 1 + pick(len(COLOURS) - 1, 2)) % len(COLOURS)  # the texture's other colour
    s["detail"], s["jitter"] = u(.1, .95, 2), u(-.07, .07, 6).reshape(-1, 2, 3)
    s["shape"] = u(columns=4).reshape(-1, 2, 2)
    s["tangent"], s["flip"], s["stretch"] = u(-.12, .12, 2), pick(2, 2), u(.85, 1.2, 2)
    s["period"], s["slant"] = u(.16, .30, 2), pick(3, 2)

    height = u(.48, .85)
    s["scale"] = np.stack([height, height * u(.3, .5)], 1)
    x, base = u(.36, .64), .5 + height / 2 + u(-.1, .1)
    side, gap, lean = np.where(u() < .5, -1, 1), u(.42, .6), u(-.03, .05)
    left, right, behind = (relation == i for i in range(3))
    side = np.where(left, 1, np.where(right, -1, side))  # of the prop
    gap = np.where(left | right, gap, np.where(behind, gap - .2, gap - .1)) * height
    down = np.where(left | right, lean, np.where(behind, .03 + lean, -.1 - lean))
    x = x - .25 * side * gap * s["present"][:, 1]
    base = np.minimum(base, .97)
    s["x"] = np.stack([x, np.clip(x + side * gap, .06, .94)], 1)
    s["y"] = np.stack([base, base + down], 1)

    s["ground"], s["ground_jitter"] = pick(len(GROUNDS)), u(-.08, .08, 3)
    seen = u() < .5  # in half of the scenes one looks down on the ground and sees nothing else
    s["horizon"] = np.where(seen, np.minimum(s["y"].min(1) - .02, base - height * u(.05, .8)), -1)
    s["slope"] = u(-.12, .12)
    s["sky"] = _muted(u(.1, .95, 6).reshape(-1, 2, 3))  # colours at the top and at the horizon
    s["light"], s["shadow"], s["gain"] = u(-.6, .6), u(.15, .45), u(.85, 1.1)
    s["tint"], s["noise"] = u(.95, 1.05, 3), u(.02, .04)
    return s


def labels(split, index, seed=0):
    """Classes (N,) of scenes `index` (N,): every ten consecutive scenes hold each class once, in random order."""
    root = rng.key(seed, zlib.crc32(split.encode()))
    order = rng.uniform(rng.key(root, torch.from_numpy(index // 10)), 10, salt=1).argsort(1).numpy()
    return order[np.arange(len(index)), index % 10]


def selected(split, count, seed=0, imbalance=1.0):
    """Indices (count,) of a split's scenes. Of the endless sequence of scenes the training split leaves some out where
    imbalance > 1: of class c of C it keeps the share imbalance^(-c / (C - 1)), evenly spread, so that the first class has
    `imbalance` times as many as the last (the exponential profile of Cui et al. 2019, section 5.1,
    https://arxiv.org/abs/1901.05555). All of them are scenes that the balanced sequence has, too."""
    if split != "train" or imbalance == 1:
        return np.arange(count)
    # Rounded, since the last bit of a power differs between machines.
    share = np.array([round(imbalance ** (-c / (len(CLASSES) - 1)), 9) for c in range(len(CLASSES))])
    index = np.arange(len(CLASSES) * int(np.ceil(count / share.sum())))
    ten, kept = index // len(CLASSES), share[labels(split, index, seed)]
    return index[np.floor(ten * kept) > np.floor((ten - 1) * kept)][:count]


def _muted(colours):
    """Greyer colours: red, green and blue (last axis) drawn to their middle, so that objects stand out."""
    grey = colours[..., :1] / 3 + colours[..., 1:2] / 3 + colours[..., 2:] / 3
    return grey + .3 * (colours - grey)


def caption(s, i):
    """True sentence about scene i: [size] [texture] colour class [relation, colour, prop] on ground."""
    colours, height = list(COLOURS), s["scale"][i, 0]
    words = ["small" if height < SMALL else "large" if height > LARGE else "",
             TEXTURES[s["texture"][i, 0]].replace("plain", ""), colours[s["colour"][i, 0]], CLASSES[s["label"][i]]]
    text = _article(" ".join(w for w in words if w))
    if s["present"][i, 1]:
        prop = f"{colours[s['colour'][i, 1]]} {PROPS[s['kind'][i, 1] - len(CLASSES)]}"
        text += f" {RELATIONS[s['relation'][i]]} {_article(prop)}"
    return f"{text} on {list(GROUNDS)[s['ground'][i]]}"


def _article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def meta(s, i):
    """What describes scene i, as JSON-able names and numbers; `prop` is None where there is none."""
    def thing(j):
        return {"kind": (CLASSES + PROPS)[s["kind"][i, j]], "colour": list(COLOURS)[s["colour"][i, j]],
                "texture": TEXTURES[s["texture"][i, j]], "scale": _round(s["scale"][i, j]),
                "position": [_round(s["x"][i, j]), _round(s["y"][i, j])], "flip": int(s["flip"][i, j]),
                "angle": _round(np.degrees(2 * np.arctan(s["tangent"][i, j]))),
                "shape": [_round(v) for v in s["shape"][i, j]]}

    prop = thing(1) | {"relation": RELATIONS[s["relation"][i]]} if s["present"][i, 1] else None
    return thing(0) | {"prop": prop, "ground": list(GROUNDS)[s["ground"][i]], "horizon": _round(s["horizon"][i]),
                       "light": {"direction": _round(s["light"][i]), "shadow": _round(s["shadow"][i]),
                                 "gain": _round(s["gain"][i])}, "noise": _round(s["noise"][i])}


def _round(x):
    return round(float(x), 4)


# --- The renderer

def render(s, size=32, aberration=0.0):
    """Draw a description: uint8 (N, size, size, 3). Upright, lit from above, far things first. aberration: by what share
    the lens draws green smaller than red and blue, about the image's centre."""
    step = max(1, CHUNK // (size * SUPERSAMPLE) ** 2)
    n = len(s["label"])
    parts = [_render({k: v[i:i + step] for k, v in s.items()}, size, aberration) for i in range(0, n, step)]
    return np.concatenate(parts) if parts else np.zeros((0, size, size, 3), np.uint8)


def _render(s, size, aberration):
    s = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in s.items()}
    keys, order = torch.from_numpy(s["key"]), s["y"].argsort(1)  # far to near
    x, y = _pixels(size)  # what has no sharp edges is drawn at the final size
    image = _backdrop(s, keys, x, y)
    for slot in (0, 1):
        _shadow(image, s, order[:, slot], x, y)
    image = image.repeat(SUPERSAMPLE, 2).repeat(SUPERSAMPLE, 3)
    x, y = _pixels(size * SUPERSAMPLE)
    for slot in (0, 1):
        _paint(image, s, order[:, slot], x, y)
    if aberration:
        image[:, 1] = _shrunk(_shrunk(image[:, 1], aberration).swapaxes(1, 2), aberration).swapaxes(1, 2)
    image *= (s["gain"][:, None] * s["tint"])[:, :, None, None]
    small = image.reshape(-1, 3, size, SUPERSAMPLE, size, SUPERSAMPLE)
    small = (small[:, :, :, 0, :, 0] + small[:, :, :, 0, :, 1] + small[:, :, :, 1, :, 0] + small[:, :, :, 1, :, 1]) / 4
    u = rng.uniform(keys, 3, size, size, salt=2).numpy()
    coarse = np.floor(u * 4096)
    small += s["noise"][:, None, None, None] * (coarse / 4096 + (u * 4096 - coarse) - 1) * 2  # triangular
    return np.floor(np.clip(small, 0, 1) * 255 + np.float32(.5)).astype(np.uint8).transpose(0, 2, 3, 1)


def _shrunk(image, share):
    """(N, H, W) drawn smaller by `share` along W about the centre, linearly between pixels; the edge stays."""
    side = image.shape[2]
    at = np.clip((np.arange(side) - (side - 1) / 2) / (1 - share) + (side - 1) / 2, 0, side - 1)
    left = np.minimum(at.astype(int), side - 2)
    part = (at - left).astype(np.float32)
    return image[:, :, left] * (1 - part) + image[:, :, left + 1] * part


def _pixels(side):
    """Coordinates of pixel centres: x (1, 1, side), y (1, side, 1)."""
    at = (np.arange(side, dtype=np.float32) + np.float32(.5)) / side
    return at[None, None, :], at[None, :, None]


def _backdrop(s, keys, x, y):
    """Gradient sky or wall, soft clutter on it, and the ground below the horizon: (N, 3, H, W)."""
    t = np.clip(y / np.maximum(s["horizon"], .1)[:, None, None], 0, 1)[:, None]
    image = s["sky"][:, 0, :, None, None] * (1 - t) + s["sky"][:, 1, :, None, None] * t + np.zeros_like(x)
    horizon = (s["horizon"][:, None, None] + s["slope"][:, None, None] * (x - .5))
    ground = (np.array(list(GROUNDS.values()), np.float32)[s["ground"]] + s["ground_jitter"])[:, :, None, None]
    ground = ground * (1 + .3 * (_mottle(keys, x, y, 12, salt=4) - .5))[:, None]
    _blend(image, ground, np.clip(.5 + (y - horizon) * x.shape[2], 0, 1))
    blobs = rng.uniform(keys, 3, 10, salt=3).numpy()  # centre, radii, colour, opacity, kind
    for b in np.moveaxis(blobs, 1, 0):
        cx, cy, rx, ry = (b[:, i, None, None] for i in range(4))
        rx, ry, soft = .06 + .25 * rx, .06 + .25 * ry, .02 + .1 * b[:, 7, None, None]
        d = np.where(b[:, 9, None, None] < .5, ellipse(x, y, cx, cy * .8, rx, ry),
                     box(x, y, cx, cy * .8, rx, ry))
        opacity = .1 + .4 * b[:, 8, None, None]
        _blend(image, _muted(b[:, 4:7])[:, :, None, None], np.clip(.5 - d / soft, 0, 1) * opacity)
    return image


def _mottle(keys, x, y, cells, salt):
    """Smooth random field in 0..1: `cells` random values a side, bilinearly between them."""
    grid = rng.uniform(keys, cells + 1, cells + 1, salt=salt).numpy()
    i, j = np.floor(y[0, :, 0] * cells).astype(int), np.floor(x[0, 0] * cells).astype(int)
    fy, fx = (y[0] * cells - i[:, None]), (x[0] * cells - j)
    rows = grid[:, i] * (1 - fy) + grid[:, i + 1] * fy
    return rows[:, :, j] * (1 - fx) + rows[:, :, j + 1] * fx


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


def _paint(image, s, slot, x, y):
    """Draw one object a scene, textured, shaded as if embossed, over the image."""
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

    n, pixel = np.arange(len(slot)), 1 / (x.shape[2] * scale)
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


# --- The source

def samples(split, count, size=32, seed=0, start=0, stop=None, imbalance=1.0, aberration=0.0):
    """Yield scenes start … stop - 1 (default: all `count`) of those `selected` for a split, in key order, as dicts of

    key (str), image (uint8 (size, size, 3)), label (int), caption (str), meta (dict).
    """
    stop = count if stop is None else min(stop, count)
    index = selected(split, count, seed, imbalance)
    for first in range(start, stop, 512):
        some = index[first:min(first + 512, stop)]
        s = describe(split, some, seed)
        for i, image in enumerate(render(s, size, aberration)):
            yield {"key": f"{split}-{some[i]:06d}", "image": image, "label": int(s["label"][i]),
                   "caption": caption(s, i), "meta": meta(s, i)}
