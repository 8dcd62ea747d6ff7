"""Random views: what may be done to an image, what is drawn for each, and the recipes of the papers.

A view is a pure function of a sample's key, see `rng`: batch, process, worker and resume point do not matter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch

from ..core import rng
from ..errors import UserError, nearest
from . import mix, operations, rand_augment

CHUNK = 2**17  # pixels a CPU works on at once (128 images at 32 px): temporaries stay in the cache, calls cost little
RATIO = (3 / 4, 4 / 3)  # aspect ratios of crops, torchvision's default, as in all papers here
SIGMA = (0.1, 2.0)  # pixels, of the blur; SimCLR, appendix A


@dataclass(frozen=True)
class Augment:
    """Parameters of one random view, in the order the operations are applied. The default changes nothing.

    Raises UserError for a value that is none of these."""

    crop: tuple = ()  # smallest and largest share of the area, resized
    scale: float = 1.0  # to this share of the image's side
    flip: float = 0.0  # probability
    shift: float = 0.0  # at most so far, as a share of the side, in whole pixels; edges mirror
    jitter: tuple = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue, as in torchvision's ColorJitter
    jitter_p: float = 0.8  # probability of the jitter
    grey: float = 0.0  # probability
    blur: float = 0.0  # probability; sigma in SIGMA, kernel a tenth of the image as in SimCLR
    solarize: float = 0.0  # probability; threshold one half, as in BYOL
    # RandAugment: number of operations, and their magnitude of 30, its least and largest, or "fixmatch": `rand_augment`
    rand: tuple = ()
    cutout: float = 0.0  # side of a square set to the mean, as a share of the image's (DeVries & Taylor 2017)
    mixup: float = 0.0  # alpha of the share of another image of the batch, which stays the smaller part: `mix`

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, value := tuple(value))
            holds, words = RULES.get(field.name, PROBABILITY)
            if not holds(value):
                value = list(value) if isinstance(value, tuple) else value
                raise UserError(f"augment.{field.name}: should be {words}, not {value!r}")


def _number(value, low, high):
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _numbers(value, *bounds):
    if not isinstance(value, tuple) or len(value) != len(bounds):
        return False
    return all(_number(v, low, high) for v, (low, high) in zip(value, bounds))


def _range(value, low, high):
    """Whether it is two numbers within the bounds, the smaller first."""
    return _numbers(value, (low, high), (low, high)) and value[0] <= value[1]


def _rand(value):
    if value == ():
        return True
    count, magnitude = value[:1], value[1:]
    if not (_numbers(count, (1, 100)) and isinstance(count[0], int)):
        return False
    if magnitude == (rand_augment.FIXMATCH,):
        return True
    return _numbers(magnitude, (0, rand_augment.MOST)) or _range(magnitude, 0, rand_augment.MOST)


PROBABILITY = (lambda v: _number(v, 0, 1), "a probability, 0 to 1")
RULES = {  # of a field of Augment that is no probability: whether a value is one, and what it should be
    "crop": (
        lambda v: v == () or _range(v, 0, 1) and v[0] > 0,
        "the smallest and the largest share of the area, as in [0.2, 1]",
    ),
    "scale": (lambda v: _number(v, 0, 1) and v > 0, "a share of the image's side, above 0 and at most 1"),
    "jitter": (
        lambda v: _numbers(v, *[(0, 10)] * 3, (0, 0.5)),
        "the strengths of brightness, contrast and saturation, at most 10, and of hue, at most 0.5, as in "
        "[0.4, 0.4, 0.4, 0.1]",
    ),
    "rand": (
        lambda v: isinstance(v, tuple) and _rand(v),
        f"how many operations and their magnitude or its range, 0 to {rand_augment.MOST}, as in [2, 9] or [2, 1, 10], "
        f"or [2, {rand_augment.FIXMATCH}]",
    ),
    "shift": (lambda v: _number(v, 0, 0.5), "a share of the image's side, 0 to 0.5"),
    "cutout": (lambda v: _number(v, 0, 1), "a share of the image's side, 0 to 1"),
    "mixup": (lambda v: _number(v, 0, 0) or _number(v, *mix.ALPHA), f"0 or alpha, {mix.ALPHA[0]} to {mix.ALPHA[1]}"),
}

# One Augment for every view, or a tuple with one for each.
AUGMENTS = {
    "none": Augment(),
    "crop_flip": Augment(crop=(0.2, 1.0), flip=0.5),  # MAE, section 4; crops from 0.2
    "crop": Augment(crop=(0.9, 1.0)),  # CLIP, section 2.3, with open_clip's share: what the caption names stays in view
    # SimCLR, appendix A, colour strength 1 (B.9 has 1/2 for CIFAR-10, solo-learn's recipe for it 1).
    # No blur, as in B.9: at 32 px it removes what little detail there is.
    "simclr": Augment(crop=(0.08, 1.0), flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), grey=0.2),
    # Its two halves, for the paper's ablation (figure 5): crops alone, and colour alone.
    "simclr_crop": Augment(crop=(0.08, 1.0), flip=0.5),
    "simclr_colour": Augment(flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), grey=0.2),
    # A common recipe for CIFAR-10, that of Ermolov et al. 2021 (W-MSE, section 5): SimCLR's colours halved, less grey.
    "simclr_cifar": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.1),
    # MoCo's own order is crop, grey, jitter, flip; here the jitter comes first, as in all later papers.
    "moco_v1": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, grey=0.2),
    "moco_v2": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.2, blur=0.5),
    # solo-learn's asymmetric recipe for CIFAR: BYOL's, appendix B, without blur.
    "asym": (
        Augment(crop=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2),
        Augment(crop=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, solarize=0.2),
    ),
    # MixMatch by its authors' code, shifts by up to 4 of 32 pixels: the weak view of FixMatch (section 2.3).
    "flip_shift": Augment(flip=0.5, shift=0.125),
    "cutout": Augment(flip=0.5, shift=0.125, cutout=0.5),  # DeVries & Taylor 2017, for CIFAR-10
    # FixMatch, section 2.3: weak, and strong by two operations of its appendix's list and Cutout of half the side.
    "fixmatch": (
        Augment(flip=0.5, shift=0.125),
        Augment(flip=0.5, shift=0.125, rand=(2, rand_augment.FIXMATCH), cutout=0.5),
    ),
    # Noisy Student by its authors' code: RandAugment, two operations of magnitude 27.
    "noisy_student": Augment(flip=0.5, shift=0.125, rand=(2, 27)),
    # solo-learn's recipe for VICReg on CIFAR.
    "vicreg": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, solarize=0.1),
    # SimSiam's, section 3: MoCo v2's, without blur as in its CIFAR experiment (appendix D).
    "simsiam": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.2),
}


def augmentation(value, where="augment"):
    """The tuple of Augment, one for each view in turn, that `value` stands for: a name in AUGMENTS, an Augment, a
    mapping of its fields as in {crop: [0.5, 1], flip: 0.5}, or a list of these.

    Raises UserError, which begins with the key `where`, for anything else.
    """
    if isinstance(value, Augment):
        return (value,)
    if isinstance(value, list | tuple) and value:
        specs = tuple(spec for one in value for spec in augmentation(one, where))
        if len({spec.scale for spec in specs}) > 1:
            raise UserError(f"{where}: all views of a list have the same scale, since they are one tensor")
        return specs
    if isinstance(value, Mapping):
        known = [field.name for field in fields(Augment)]
        for name in value:
            if name not in known:
                there = f"(there are: {', '.join(known)})"
                raise UserError(f'{where}: unknown field "{name}"{nearest(name, known)} {there}')
        try:
            return (Augment(**value),)
        except UserError as error:
            raise UserError(str(error).replace("augment", where, 1)) from None
    if not isinstance(value, str):
        raise UserError(f"{where}: should be a name, a mapping of fields or a list of these, not {value!r}")
    if value not in AUGMENTS:
        raise UserError(f'{where}: unknown augmentation "{value}"{nearest(value, AUGMENTS)}')
    specs = AUGMENTS[value]
    return specs if isinstance(specs, tuple) else (specs,)


def draw(key, spec, height, width, view=None):
    """The random parameters of one view for each key (N,) of images of so many pixels: a dict of tensors with N rows, see
    `apply`. view: height and width of what it becomes, if others."""
    u = rng.uniform(key, 14)  # one column for each decision; columns never change their meaning
    p = {"flip": u[:, 0] < spec.flip}
    if spec.crop:
        p["box"] = _boxes(key, spec.crop, height, width)
    else:
        p["box"] = torch.stack([key.new_full(key.shape, side) for side in (0, 0, height, width)], 1)
    # Python numbers of float32's values: a tensor on a GPU would be a copy from the host in every step.
    strength = np.array(spec.jitter, np.float32)
    low, high = np.maximum(1 - strength, 0), 1 + strength
    low[3], high[3] = -strength[3], strength[3]  # brightness, contrast and saturation are factors, the hue is a shift
    bounds = zip(low.tolist(), (high - low).tolist())
    p["factors"] = torch.stack([u[:, 1 + i] * span + least for i, (least, span) in enumerate(bounds)], 1)
    p["order"] = u[:, 5:9].argsort(1)
    p["jitter"] = u[:, 9] < (spec.jitter_p if any(spec.jitter) else 0)
    p["grey"] = u[:, 10] < spec.grey
    p["blur"] = u[:, 11] < spec.blur
    p["sigma"] = SIGMA[0] + u[:, 12] * (SIGMA[1] - SIGMA[0])
    p["solarize"] = u[:, 13] < spec.solarize
    if spec.shift:
        most = [int(spec.shift * side) for side in view or (height, width)]
        steps = zip(rng.uniform(key, 2, salt=5).unbind(1), most)
        p["shift"] = torch.stack([(u * (2 * reach + 1)).long() - reach for u, reach in steps], 1)
    if spec.rand:
        p |= rand_augment.draw(rng.uniform(key, spec.rand[0], 3, salt=3), *spec.rand[1:])
    if spec.cutout:
        p["cutout"] = rng.uniform(key, 2, salt=4)
    return p


def _boxes(key, scale, height, width, tries=10):
    """Crops (N, 4): top, left, height, width in pixels, distributed as torchvision's RandomResizedCrop.get_params."""
    u = rng.uniform(key, tries, 2, salt=1)
    area = height * width * (scale[0] + u[..., 0] * (scale[1] - scale[0]))
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = (low + u[..., 1] * (high - low)).exp()
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.float().argmax(1, keepdim=True)  # of several maxima the first
    w, h, fits = (v.gather(1, first)[:, 0] for v in (w, h, fits))
    shape = min(max(width / height, RATIO[0]), RATIO[1])  # none fits: the largest central crop with an allowed ratio
    w = torch.where(fits, w, min(width, round(height * shape)))
    h = torch.where(fits, h, min(height, round(width / shape)))
    at = rng.uniform(key, 2, salt=2)
    top = torch.where(fits, (at[:, 0] * (height - h + 1)).long(), (height - h) // 2)
    left = torch.where(fits, (at[:, 1] * (width - w + 1)).long(), (width - w) // 2)
    return torch.stack([top, left, h, w], 1)


@torch.no_grad()
def apply(images, params, spec, mean, std, out):
    """Apply `draw`'s parameters to integer images (N, C, H, W); write float32, normalised, to `out` (N, C, h, w).

    0 to 1 is the range of the images' type, 8 or 16 bit.
    """
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=images.device).view(-1, 1, 1) for v in (mean, std))
    unit = 1 / torch.iinfo(images.dtype).max
    chunk = len(images) if images.is_cuda else max(1, CHUNK // (images.shape[2] * images.shape[3]))
    with torch.autocast(images.device.type, enabled=False):
        for start in range(0, len(images), chunk):
            rows = slice(start, start + chunk)
            p = {name: value[rows] for name, value in params.items()}
            x = _changed(images[rows].to(torch.float32, copy=True).mul_(unit), p, spec, out.shape[2:])
            torch.addcmul(-mean / std, x, 1 / std, out=out[rows])
            if spec.cutout:
                out[rows].masked_fill_(operations.square(p["cutout"], spec.cutout, *out.shape[2:]), 0)


def _changed(x, p, spec, size):
    """The operations of `spec` on x (N, C, H, W) in 0 to 1, perhaps in place -> (N, C, *size)."""
    only = operations.only
    if spec.crop or spec.flip or x.shape[2:] != size:
        x = operations.crop(x, p["box"], p["flip"], size)
    if spec.shift:
        x = operations.shift(x, p["shift"])
    if any(spec.jitter):
        x = operations.jitter(x, p["factors"], p["order"], p["jitter"])
    if spec.grey:
        x = only(p["grey"], x, lambda x: operations.grey(x).expand_as(x))
    if spec.blur:
        x = only(p["blur"], x, operations.blur, p["sigma"])
    if spec.solarize:
        x = only(p["solarize"], x, operations.solarize)
    if spec.rand:
        x = rand_augment.apply(x, p["operation"], p["magnitude"], p["sign"])
    return x
