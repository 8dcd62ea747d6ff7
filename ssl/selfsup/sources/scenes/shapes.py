"""The shapes of scenes' objects, as signed distances (negative inside).

Within an object x in -0.5..0.5, y *up* from 0, where it stands on the ground, to about 1."""

import numpy as np

# --- Distances and how they combine; (x, y) are arrays, parameters broadcast against them.

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


# In the order of `describe.CLASSES + describe.PROPS`.
SHAPES = (boat, bottle, car, chair, duck, house, lamp, mug, mushroom, tree, ball, crate, cone, post)
