"""What is in each scene: plain arrays, and in words."""

import zlib

import numpy as np
import torch

from selfsup.core import rng
from selfsup.errors import UserError, nearest

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
CLASSES = ("boat", "bottle", "car", "chair", "duck", "house", "lamp", "mug", "mushroom", "tree")
PROPS = ("ball", "crate", "cone", "post")  # the second object: never a class, so the label is never in doubt
CONCEPTS = ("small", "large", *TEXTURES[1:], *COLOURS, *CLASSES, *PROPS, *GROUNDS)  # words of captions for what is seen
LOT = 10
# In the column `attributes`, each with how many values it has; None where it is a measure.
ATTRIBUTES = {"colour": len(COLOURS), "texture": len(TEXTURES), "ground": len(GROUNDS), "relation": len(RELATIONS) + 1,
              "prop": len(PROPS) + 1, "lot": LOT, "size": None, "lean": None, "light": None}


def describe(split, index, seed=0, curated=False):
    """Scenes `index` (int array (N,)) of a split -> dict of arrays with N rows. Columns of two are (object, prop).

    Lengths are shares of the image's side, `tangent` is tan(half the angle the object leans by). curated: the object
    fills the image and stands alone; all else is that of the other scenes.
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
    s["present"] = np.stack([np.ones(len(index), bool), u() < (0 if curated else .6)], 1)
    s["relation"] = relation = pick(len(RELATIONS))
    s["colour"] = pick(len(COLOURS), 2)
    s["texture"] = np.maximum(pick(len(TEXTURES) + 1, 2) - 1, 0)  # plain twice as often as each other
    s["accent"] = (s["colour"] + 1 + pick(len(COLOURS) - 1, 2)) % len(COLOURS)  # the texture's other colour
    s["detail"], s["jitter"] = u(.1, .95, 2), u(-.07, .07, 6).reshape(-1, 2, 3)
    s["shape"] = u(columns=4).reshape(-1, 2, 2)
    s["tangent"], s["flip"], s["stretch"] = u(-.12, .12, 2), pick(2, 2), u(.85, 1.2, 2)
    s["period"], s["slant"] = u(.16, .30, 2), pick(3, 2)

    low, high = (.78, .95) if curated else (.48, .85)
    height = u(low, high)
    s["size"] = even(height - (low + high) / 2, high - low)
    s["scale"] = np.stack([height, height * u(.3, .5)], 1)
    x = u(.46, .54) if curated else u(.36, .64)
    base = .5 + height / 2 + (u(-.02, .02) if curated else u(-.1, .1))
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
    s["sky"] = muted(u(.1, .95, 6).reshape(-1, 2, 3))  # colours at the top and at the horizon
    s["light"], s["shadow"], s["gain"] = u(-.6, .6), u(.15, .45), u(.85, 1.1)
    s["tint"], s["noise"] = u(.95, 1.05, 3), u(.02, .04)
    return s


def labels(split, index, seed=0):
    """Classes (N,) of scenes `index` (N,): every ten consecutive scenes hold each class once, in random order."""
    root = rng.key(seed, zlib.crc32(split.encode()))
    order = rng.uniform(rng.key(root, torch.from_numpy(index // 10)), 10, salt=1).argsort(1).numpy()
    return order[np.arange(len(index)), index % 10]


def numbers(names):
    """The places of classes, by name, among CLASSES; None where none are named. UserError for one that is not there."""
    for name in names or ():
        if name not in CLASSES:
            there = ", ".join(CLASSES)
            raise UserError(f'classes: scenes have no "{name}"{nearest(name, CLASSES)} (there are: {there})')
    return [CLASSES.index(name) for name in names] if names else None


def selected(split, count, seed=0, imbalance=1.0, classes=None):
    """Indices (count,) of a split's scenes. Of the endless sequence of scenes the training split leaves some out where
    imbalance > 1: of class c of C it keeps the share imbalance^(-c / (C - 1)), evenly spread, so that the first class
    has `imbalance` times as many as the last (the exponential profile of Cui et al. 2019, section 5.1,
    https://arxiv.org/abs/1901.05555). All of them are scenes that the balanced sequence has, too, and so are those of
    some `classes` alone, by their numbers."""
    if split != "train":
        imbalance = 1.0
    if imbalance == 1 and classes is None:
        return np.arange(count)
    classes = range(len(CLASSES)) if classes is None else classes
    share = np.zeros(len(CLASSES))
    # Rounded, since the last bit of a power differs between machines.
    share[list(classes)] = [round(imbalance ** (-c / (len(classes) - 1)), 9) for c in range(len(classes))]
    index = np.arange(len(CLASSES) * int(np.ceil(count / share.sum())))
    ten, kept = index // len(CLASSES), share[labels(split, index, seed)]
    return index[np.floor(ten * kept) > np.floor((ten - 1) * kept)][:count]


def muted(colours):
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


def exchanged(s, share, position, count):
    """Which of the scenes, at these positions among `count`, have the caption of another one, bool (N,), and at what
    position that stands (N,): never their own."""
    u = rng.uniform(torch.from_numpy(s["key"]), 2, salt=12).double().numpy()
    return (u[:, 0] < share) & (count > 1), (position + 1 + np.floor(u[:, 1] * (count - 1)).astype(np.int64)) % count


def styled(s, share):
    """Which of the scenes are in another style, bool (N,): that share of them, whatever their class."""
    return rng.uniform(torch.from_numpy(s["key"]), 1, salt=13).double().numpy()[:, 0] < share


def attributes(s):
    """Of each scene what ATTRIBUTES names, float32 (N, 9).

    Numbers of the object's colour, its texture, the ground, the relation to the prop and the prop, these from 1 on and
    0 where there is none; and one drawn by lot, which nothing in the picture tells. Then measures, which have mean 0
    and variance 1: the object's height, the tangent of half the angle that it leans by, and from how far to the side
    the light comes."""
    there = s["present"][:, 1]
    lot = np.floor(LOT * rng.uniform(torch.from_numpy(s["key"]), 1, salt=14).double().numpy()[:, 0])
    return np.stack([s["colour"][:, 0], s["texture"][:, 0], s["ground"], there * (s["relation"] + 1),
                     there * (s["kind"][:, 1] - len(CLASSES) + 1), lot, s["size"], even(s["tangent"][:, 0], .24),
                     even(s["light"], 1.2)], 1).astype(np.float32)


def even(x, width):
    """What is drawn evenly from an interval of this width about 0, with variance 1."""
    return x * np.sqrt(12) / width


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
