"""What a sample becomes for a method: batched augmentation on the device, with parameters of each sample's own.

A view is a pure function of (seed, epoch, sample index, view number), see `rng`: batch, process, worker and resume
point do not matter. Every operation agrees with torchvision.transforms.v2.functional on float images, per image, to
1e-5 (its functions on 8-bit images, like PIL's, also round after each step).

A method declares its inputs with `View`, `Views`, `MultiCrop` or `Pair`; the trainer calls them on each batch.
"""

import math
from dataclasses import dataclass, replace

import torch

from ..core import rng
from ..errors import UserError, nearest

CHUNK = 2**17  # pixels a CPU works on at once (128 images at 32 px): temporaries stay in the cache, calls cost little
RATIO = (3 / 4, 4 / 3)  # aspect ratios of crops, torchvision's default, as in all papers here
SIGMA = (0.1, 2.0)  # pixels, of the blur; SimCLR, appendix A
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue in grey


@dataclass(frozen=True)
class Augment:
    """Parameters of one random view, in the order the operations are applied. The default changes nothing."""

    crop: tuple = ()  # smallest and largest share of the area, resized
    scale: float = 1.0  # to this share of the image's side
    flip: float = 0.0  # probability
    jitter: tuple = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue, as in torchvision's ColorJitter
    jitter_p: float = 0.8  # probability of the jitter
    grey: float = 0.0  # probability
    blur: float = 0.0  # probability; sigma in SIGMA, kernel a tenth of the image as in SimCLR
    solarize: float = 0.0  # probability; threshold one half, as in BYOL


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
    # MoCo's own order is crop, grey, jitter, flip; here the jitter comes first, as in all later papers.
    "moco_v1": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, grey=0.2),
    "moco_v2": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.2, blur=0.5),
    # solo-learn's asymmetric recipe for CIFAR: BYOL's, appendix B, without blur.
    "asym": (
        Augment(crop=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2),
        Augment(crop=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, solarize=0.2),
    ),
    # solo-learn's recipe for VICReg on CIFAR.
    "vicreg": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), grey=0.2, solarize=0.1),
    # SimSiam's, section 3: MoCo v2's, without blur as in its CIFAR experiment (appendix D).
    "simsiam": Augment(crop=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), grey=0.2),
}


@dataclass(frozen=True)
class View:
    """One view of the image: batch["image"] becomes float (N, C, H, W)."""

    augment: str = "crop_flip"
    columns: tuple = ("image",)

    def __call__(self, batch, seed, mean, std):
        key = _keys(batch, seed)
        return {**batch, "image": _views(batch["image"], key, self.augment, 1, mean, std)[:, 0], "key": key}


@dataclass(frozen=True)
class Views:
    """`count` independent views of the image: batch["image"] becomes float (N, count, C, H, W)."""

    count: int = 2
    augment: str = "simclr"
    columns: tuple = ("image",)

    def __call__(self, batch, seed, mean, std):
        key = _keys(batch, seed)
        return {**batch, "image": _views(batch["image"], key, self.augment, self.count, mean, std), "key": key}


@dataclass(frozen=True)
class MultiCrop:
    """Two large views and `small` ones of half their side, cheap and cut from less (Caron et al. 2020, section 3.2):
    batch["image"] becomes float (N, 2, C, H, W), batch["small"] (N, small, C, H/2, W/2). The paper's 96 of 224 pixels are
    a little less than half."""

    small: int = 4
    augment: str = "simclr"
    large_crop: tuple = (0.14, 1.0)  # shares of the area, SwAV's appendix A
    small_crop: tuple = (0.05, 0.14)
    columns: tuple = ("image",)

    def __call__(self, batch, seed, mean, std):
        key, image = _keys(batch, seed), batch["image"]
        large = _views(image, key, self.augment, 2, mean, std, crop=self.large_crop)
        small = _views(image, key, self.augment, self.small, mean, std, first=2, crop=self.small_crop, scale=0.5)
        return {**batch, "image": large, "small": small, "key": key}


@dataclass(frozen=True)
class Pair:
    """One view of the image, and a second column that belongs to it and stays as it is."""

    first: str = "image"
    second: str = "caption"
    augment: str = "crop_flip"

    @property
    def columns(self):
        return (self.first, self.second)

    def __call__(self, batch, seed, mean, std):
        return View(self.augment)(batch, seed, mean, std)


def _keys(batch, seed):
    """A random key (N,) for each sample and epoch."""
    return rng.key(seed, batch["epoch"], batch["index"])


@torch.no_grad()
def _views(images, key, name, count, mean, std, first=0, **changes):
    """Views number `first` and on, float (N, count, C, h, w), of images uint8 (N, C, H, W); changes to the Augment."""
    if name not in AUGMENTS:
        raise UserError(f'unknown augmentation "{name}"{nearest(name, AUGMENTS)}')
    specs = AUGMENTS[name] if isinstance(AUGMENTS[name], tuple) else (AUGMENTS[name],)
    specs = [replace(spec, **changes) for spec in specs]
    size = [round(specs[0].scale * side) for side in images.shape[2:]]
    views = torch.empty(len(images), count, images.shape[1], *size, device=images.device)
    for number in range(count):
        spec = specs[number % len(specs)]
        params = draw(rng.key(key, first + number), spec, *images.shape[2:])
        augment(images, params, spec, mean, std, out=views[:, number])
    return views


def draw(key, spec, height, width):
    """The random parameters of one view for each key (N,): a dict of tensors with N rows, see `augment`."""
    u = rng.uniform(key, 14)  # one column for each decision; columns never change their meaning
    p = {"flip": u[:, 0] < spec.flip}
    if spec.crop:
        p["box"] = _boxes(key, spec.crop, height, width)
    else:
        p["box"] = torch.tensor([0, 0, height, width], device=key.device).expand(len(key), 4)
    strength = torch.tensor(spec.jitter, device=key.device)
    low, high = (1 - strength).clamp(min=0), 1 + strength
    low[3], high[3] = -strength[3], strength[3]  # brightness, contrast and saturation are factors, the hue is a shift
    p["factors"] = low + u[:, 1:5] * (high - low)
    p["order"] = u[:, 5:9].argsort(1)
    p["jitter"] = u[:, 9] < (spec.jitter_p if any(spec.jitter) else 0)
    p["grey"] = u[:, 10] < spec.grey
    p["blur"] = u[:, 11] < spec.blur
    p["sigma"] = SIGMA[0] + u[:, 12] * (SIGMA[1] - SIGMA[0])
    p["solarize"] = u[:, 13] < spec.solarize
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


def augment(images, params, spec, mean, std, out):
    """Apply `draw`'s parameters to uint8 images (N, C, H, W); write float32, normalised, to `out` (N, C, h, w)."""
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=images.device).view(-1, 1, 1) for v in (mean, std))
    chunk = len(images) if images.is_cuda else max(1, CHUNK // (images.shape[2] * images.shape[3]))
    with torch.autocast(images.device.type, enabled=False):
        for start in range(0, len(images), chunk):
            rows = slice(start, start + chunk)
            p = {name: value[rows] for name, value in params.items()}
            x = images[rows].to(torch.float32, copy=True).mul_(1 / 255)
            if spec.crop or spec.flip:
                x = crop(x, p["box"], p["flip"], out.shape[2:])
            if any(spec.jitter):
                x = jitter(x, p["factors"], p["order"], p["jitter"])
            if spec.grey:
                x = _only(p["grey"], x, lambda x: _luma(x)[:, None].expand_as(x))
            if spec.blur:
                x = _only(p["blur"], x, blur, p["sigma"])
            if spec.solarize:
                x = _only(p["solarize"], x, lambda x: torch.where(x >= 0.5, 1 - x, x))
            torch.addcmul(-mean / std, x, 1 / std, out=out[rows])


def _only(on, x, function, *args):
    """`function(x, *args)` where `on` (N,), else x, perhaps in place. Picking rows on a GPU would stall the host."""
    if x.is_cuda:
        return torch.where(on.view(-1, 1, 1, 1), function(x, *args), x)
    rows = on.nonzero()[:, 0]
    if len(rows):
        x[rows] = function(x[rows], *(a[rows] for a in args))
    return x


def crop(x, box, flip, size=None):
    """Crop (N, C, H, W) to boxes (N, 4) of top, left, height, width, resize bilinearly to `size`, H × W if None, mirror
    where `flip` (N,).

    Two batched matrix products: at small sizes faster than `grid_sample`, which also looks beyond the crop's edge.
    """
    top, left, height, width = box.float().unbind(1)
    h, w = x.shape[2:] if size is None else size
    return _separable(x, _resize(top, height, x.shape[2], h), _resize(left, width, x.shape[3], w, flip))


def _resize(start, length, size, out, flip=None):
    """Matrices (N, out, size) that resize [start, start + length) of `size` pixels to `out`, linearly; its edge repeats."""
    pixel, at = (torch.arange(n, device=start.device) + 0.5 for n in (size, out))
    start, length = start[:, None], length[:, None]
    if flip is not None:
        at = torch.where(flip[:, None], at.flip(0), at)
    centre = torch.addcmul(start, at, length / out)
    if out >= size:  # a crop is then never made smaller
        centre = centre.maximum(start + 0.5).minimum(start + length - 0.5)
        return (centre[:, :, None] - pixel).abs_().neg_().add_(1).clamp_(min=0)
    reach = (length / out).clamp(min=1)[:, :, None]  # antialiased: a wider triangle where the crop shrinks
    weight = (1 - (centre[:, :, None] - pixel).abs() / reach).clamp(min=0)
    weight = weight * ((pixel > start[:, :, None]) & (pixel < (start + length)[:, :, None]))
    return weight / weight.sum(2, keepdim=True)


def _separable(x, rows, columns):
    """rows @ image @ columns.T for each image and channel; rows (N, h, H) and columns (N, w, W)."""
    n, c, height, width = x.shape
    h, w = rows.shape[1], columns.shape[1]
    x = torch.bmm(x.reshape(n, c * height, width), columns.mT)
    rows = rows[:, None].expand(n, c, h, height).reshape(n * c, h, height)
    return torch.bmm(rows, x.view(n * c, height, w)).view(n, c, h, w)


def jitter(x, factors, order, on):
    """Colour jitter of (N, C, H, W) in [0, 1], in place: brightness, contrast, saturation, hue (0-3), where `on` (N,).

    `factors` (N, 4) in that order, `order` (N, 4) the sequence in which a sample gets them. The first three are all
    x <- clamp(factor * x + (1 - factor) * base), base black, mean grey or the pixel's grey, so one expression does
    them: three turns, and the hue before one of them or after the last.
    """
    turn = (order == 3).int().argmax(1)  # of the hue
    order = order.gather(1, torch.arange(3, device=x.device) + (torch.arange(3, device=x.device) >= turn[:, None]))
    factor = torch.where(on[:, None], factors.gather(1, order), 1)
    contrast, saturation = ((1 - factor) * (order == which) for which in (1, 2))
    factor, contrast, saturation = (v.T[:, :, None, None] for v in (factor, contrast, saturation))  # (turn, N, 1, 1)
    for i in range(4):
        if x.shape[1] == 3:
            x = _only((turn == i) & on, x, hue, factors[:, 3])
        if i < 3:
            grey = _luma(x)
            mean = grey.mean((1, 2), keepdim=True)
            base = grey.mul_(saturation[i]).add_(mean.mul_(contrast[i]))
            x = x.mul_(factor[i][:, None]).add_(base[:, None]).clamp_(0, 1)
    return x


def _luma(x):
    """Grey (N, H, W) of (N, C, H, W)."""
    if x.shape[1] == 1:
        return x[:, 0].clone()
    return (x[:, 0] * LUMA[0]).add_(x[:, 1], alpha=LUMA[1]).add_(x[:, 2], alpha=LUMA[2])


def hue(x, shift):
    """Turn the hue of (N, 3, H, W) by `shift` (N,) of a full circle in -1/2 to 1/2; value and saturation of HSV stay.

    With m, M the least and largest channel and d = M - m, the hue in sixths of a circle, times d and signed by g - b,
    is g + b - r + M - 2m: along the hexagon first g rises, then r falls, then b rises. Each channel of the result is
    m + clamp(2d - its distance to the channel's own hue, 0, d). Nothing divides, so grey needs no special case.
    """
    r, g, b = x.unbind(1)
    low, high = torch.minimum(r, g), torch.maximum(r, g)
    torch.minimum(low, b, out=low), torch.maximum(high, b, out=high)
    d = high - low
    angle = (g + b).sub_(r).add_(high).sub_(low, alpha=2).copysign_(g - b)
    own = torch.tensor([0.0, 2.0, 4.0], device=x.device)
    turn = (shift[:, None] * 6 - own + 3) % 6 - 3  # in -3 to 3, so that |y| <= 6d: its distance to 0 is 3d - ||y| - 3d|
    y = torch.addcmul(angle[:, None], d[:, None], turn[:, :, None, None])
    y = y.abs_().sub_(d[:, None], alpha=3).abs_().add_((low - d)[:, None])
    return y.clamp_(low[:, None], high[:, None])


def blur(x, sigma):
    """Gaussian blur of (N, C, H, W), sigma (N,) in pixels; `reach` sets the kernel; edges mirror."""
    return _separable(x, _gauss(sigma, x.shape[2]), _gauss(sigma, x.shape[3]))


def reach(size):
    """Pixels the blur's kernel extends to each side: its width is a tenth of the image's, and at least 3."""
    return max(1, size // 20)


def _gauss(sigma, size):
    """Blur matrices (N, size, size)."""
    tap = torch.arange(-reach(size), reach(size) + 1, device=sigma.device)
    weight = (-0.5 * (tap / sigma[:, None]) ** 2).softmax(1)
    source = (torch.arange(size, device=sigma.device) + tap[:, None]).abs()  # (taps, size)
    source = size - 1 - (size - 1 - source).abs()
    hits = torch.nn.functional.one_hot(source, size).float()
    return (weight @ hits.flatten(1)).view(-1, size, size)
