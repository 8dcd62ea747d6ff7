"""RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719): some operations of a list, of one strength.

Each image has operations, directions and, from a range, magnitudes of its own. Operations and what a magnitude means
are those of torchvision.transforms.v2.RandAugment, with which each agrees on float images to 1e-5; places are
interpolated bilinearly, and what comes in from outside is black, as there. FixMatch draws from the same list by ranges
of its own.
"""

import math

import torch
import torch.nn.functional as F

from . import operations

MOST = 30  # the largest magnitude
OPERATIONS = (
    "identity autocontrast equalize posterize solarize brightness colour contrast sharpness rotate shear_x shear_y "
    "translate_x translate_y"
).split()
WHICH = {name: number for number, name in enumerate(OPERATIONS)}
BLEND, ROTATE, SHEAR, SHIFT = 0.9, 30, 0.3, 150 / 331  # at most: 1 ± a factor, degrees, share of the side
BITS = 4  # of 8 that posterize then leaves
FIXMATCH = "fixmatch"  # in place of a magnitude: each operation's own range
LESS, FARTHEST = (0.05, 0.95), 0.3  # there: factors of brightness, colour, contrast, sharpness; share of the side


def draw(u, low, high=None):
    """What is done to each image, from uniform numbers (N, n, 3) for n turns: `operation`, its number in OPERATIONS,
    `magnitude`, `low` or from the range low to high and divided by MOST, and `sign`, 1 or -1; each (N, n).

    low "fixmatch": magnitudes of the whole range of each operation, as Sohn et al. 2020 have them (section 2.3 and the
    appendix's table, https://arxiv.org/abs/2001.07685): factors that take away and never add, shorter shifts."""
    if low == FIXMATCH:
        p = draw(u, 0, MOST)
        less = (p["operation"] >= WHICH["brightness"]) & (p["operation"] <= WHICH["sharpness"])
        factor = LESS[0] + p["magnitude"] * (LESS[1] - LESS[0])
        shifts = p["operation"] >= WHICH["translate_x"]
        p["magnitude"] = torch.where(less, (1 - factor) / BLEND, p["magnitude"])
        p["magnitude"] = torch.where(shifts, p["magnitude"] * (FARTHEST / SHIFT), p["magnitude"])
        p["sign"] = torch.where(less, -1.0, p["sign"])
        return p
    high = low if high is None else high
    return {
        "operation": (u[..., 0] * len(OPERATIONS)).long(),
        "magnitude": (low + u[..., 1] * (high - low)) / MOST,
        "sign": (u[..., 2] < 0.5) * 2.0 - 1,
    }


def apply(x, operation, magnitude, sign):
    """The turns (N, n) of `draw`, one after the other, on images (N, C, H, W) in 0 to 1, perhaps in place."""
    only = operations.only
    for which, m, s in zip(operation.unbind(1), magnitude.unbind(1), sign.unbind(1)):
        # Every image has one operation in a turn, so their sequence here does not matter.
        x = only(which == WHICH["autocontrast"], x, autocontrast)
        x = only(which == WHICH["equalize"], x, equalize)
        x = only(which == WHICH["posterize"], x, posterize, 8 - (BITS * m).round())
        x = only(which == WHICH["solarize"], x, operations.solarize, 1 - m)
        x = only((which >= WHICH["brightness"]) & (which <= WHICH["sharpness"]), x, blend, which, 1 + s * m * BLEND)
        x = only(which >= WHICH["rotate"], x, move, which, s * m)
    return x


def autocontrast(x):
    """Each channel of (N, C, H, W) stretched to 0..1; one that is all the same stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    return ((x - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)).clamp_(0, 1)


def equalize(x):
    """Each channel of (N, C, H, W), rounded to 8 bits, with its values spread evenly, by the rule of PIL's ImageOps."""
    value = (x * 255.999).long().flatten(2)  # torchvision's rounding
    count = torch.zeros(*value.shape[:2], 256, dtype=torch.long, device=x.device)
    count.scatter_add_(2, value, torch.ones_like(value))
    last = count.gather(2, value.amax(2, keepdim=True))  # pixels of the largest value
    step = (value.shape[2] - last).div(255, rounding_mode="floor")
    below = count.cumsum(2) - count  # pixels of smaller values
    spread = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    return torch.where(step > 0, spread.gather(2, value), value).view(x.shape).float().div_(255)


def posterize(x, bits):
    """As many levels as `bits` (N,) tell apart, each at its lower end."""
    levels = (1 << bits.long()).float().view(-1, 1, 1, 1)
    return (x * levels).floor_().clamp_(min=0).minimum(levels - 1).div_(levels)


def blend(x, which, factor):
    """Brightness, colour, contrast or sharpness by `factor` (N,): away from black, grey, mean grey or the smoothed."""
    which, factor = which.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    grey = operations.grey(x)
    base = torch.where(which == WHICH["contrast"], grey.mean((2, 3), keepdim=True), 0)
    base = torch.where(which == WHICH["colour"], grey, base)
    base = torch.where(which == WHICH["sharpness"], smooth(x), base)
    return (x * factor).add_(base * (1 - factor)).clamp_(0, 1)


def smooth(x):
    """Means of 3 × 3 pixels, the one in the middle five times; the image's edge stays. (N, C, H, W)"""
    if min(x.shape[2:]) < 3:
        return x
    inside = x[:, :, 1:-1, 1:-1]
    return F.pad(F.avg_pool2d(x, 3, 1).mul_(9).add_(inside, alpha=4).div_(13).sub_(inside), (1, 1, 1, 1)).add_(x)


def move(x, which, amount):
    """Rotate, shear or shift (N, C, H, W) by `amount` (N,), -1 to 1 of what the operation does at most."""
    h, w = x.shape[2:]
    row, column = (torch.arange(n, device=x.device) + 0.5 for n in (h, w))
    row, column = row[:, None], column[None, :]
    by = {name: (amount * (which == WHICH[name])).view(-1, 1, 1) for name in OPERATIONS[WHICH["rotate"] :]}
    angle = by["rotate"] * math.radians(ROTATE)
    cos, sin = angle.cos(), angle.sin()
    right, down = column - w / 2, row - h / 2  # of the centre, about which it turns; shears are from the corner
    shift_x, shift_y = ((by[f"translate_{axis}"] * SHIFT * side).trunc() for axis, side in (("x", w), ("y", h)))
    from_x = cos * right - sin * down + SHEAR * by["shear_x"] * row - shift_x
    from_y = sin * right + cos * down + SHEAR * by["shear_y"] * column - shift_y
    grid = torch.stack([from_x * (2 / w), from_y * (2 / h)], 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
