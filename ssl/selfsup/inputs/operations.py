"""Operations on batches of images (N, C, H, W), float32 in 0 to 1, each image with parameters of its own.

All agree with torchvision.transforms.v2.functional on float images, per image, to 1e-5 (its functions on 8-bit images,
like PIL's, also round after each step). Colour is three channels, red, green, blue; images with any other number have
none, and what needs it leaves them alone.
"""

import torch
import torch.nn.functional as F

# Pixels of an image from which on a CPU is faster with one after the other: products with matrices grow with the cube of
# the side. Measured by `python -m bench views`.
CROP_EACH, JITTER_EACH, BLUR_EACH = 96**2, 96**2, 128**2
BAND = 56  # pixels
TAIL = 4.5  # sigmas of a Gaussian beyond which less than 1e-5 of it lies
LUMA = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue in grey


def only(on, x, function, *args):
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
    h, w = x.shape[2:] if size is None else size
    if not (x.is_cuda or box.is_floating_point()) and x.shape[2] * x.shape[3] >= CROP_EACH:
        return _crop_each(x, box, flip, h, w)
    top, left, height, width = box.float().unbind(1)
    return _separable(x, _resize(top, height, x.shape[2], h), _resize(left, width, x.shape[3], w, flip))


def _crop_each(x, box, flip, h, w):
    out = x.new_empty(*x.shape[:2], h, w)
    for own, image, (top, left, height, width), mirrored in zip(out, x, box.tolist(), flip.tolist()):
        part = image[None, :, top:top + height, left:left + width]
        shrinks = height > h or width > w  # where nothing does, antialiasing changes nothing and takes time
        part = F.interpolate(part, (h, w), mode="bilinear", antialias=shrinks)[0]
        own.copy_(part.flip(2) if mirrored else part)
    return out


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


def shift(x, by):
    """Move (N, C, H, W) by whole pixels `by` (N, 2), down and to the right; what comes in mirrors what is beside the
    edge, which is not repeated."""
    for axis, amount in zip((2, 3), by.unbind(1)):
        last = x.shape[axis] - 1
        source = (torch.arange(last + 1, device=x.device) - amount[:, None]).abs()
        source = last - (last - source).abs()
        x = x.gather(axis, source[:, None, :, None].expand_as(x) if axis == 2 else source[:, None, None].expand_as(x))
    return x


def jitter(x, factors, order, on):
    """Colour jitter of (N, C, H, W) in [0, 1], in place: brightness, contrast, saturation, hue (0-3), where `on` (N,).

    `factors` (N, 4) in that order, `order` (N, 4) the sequence in which a sample gets them. The first three are all
    x <- clamp(factor * x + (1 - factor) * base), base black, mean grey or the pixel's grey, so one expression does
    them: three turns, and the hue before one of them or after the last.
    """
    colour = x.shape[1] == 3
    if not x.is_cuda and x.shape[2] * x.shape[3] >= JITTER_EACH:
        return _jitter_each(x, factors, order, on, colour)
    turn = (order == 3).int().argmax(1)  # of the hue
    order = order.gather(1, torch.arange(3, device=x.device) + (torch.arange(3, device=x.device) >= turn[:, None]))
    factor = torch.where(on[:, None] & (colour | (order != 2)), factors.gather(1, order), 1)
    contrast, saturation = ((1 - factor) * (order == which) for which in (1, 2))
    factor, contrast, saturation = (v.T[:, :, None, None, None] for v in (factor, contrast, saturation))  # (turn, N…)
    for i in range(4):
        if colour:
            x = only((turn == i) & on, x, hue, factors[:, 3])
        if i < 3:
            own = grey(x)
            base = own.mean((2, 3), keepdim=True).mul_(contrast[i])
            if colour:
                base = own.mul_(saturation[i]).add_(base)
            x = x.mul_(factor[i]).add_(base).clamp_(0, 1)
    return x


def _jitter_each(x, factors, order, on, colour):
    """What each image has drawn and no more: small images take longer to be called for one by one than to be changed."""
    for image, own, turns, changed in zip(x.split(1), factors.tolist(), order.tolist(), on.tolist()):
        for which in turns if changed else ():
            if which == 3 and colour:
                image.copy_(hue(image, image.new_tensor(own[3:])))
            elif which == 0:
                image.mul_(own[0]).clamp_(0, 1)
            elif which == 1 or which == 2 and colour:
                base = grey(image).mean((2, 3), keepdim=True) if which == 1 else grey(image)
                image.mul_(own[which]).add_(base, alpha=1 - own[which]).clamp_(0, 1)
    return x


def grey(x):
    """Colour (N, 3, H, W) -> its grey (N, 1, H, W); other images are returned as they are."""
    if x.shape[1] != 3:
        return x
    return (x[:, :1] * LUMA[0]).add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def solarize(x, threshold=None):
    """Values of (N, C, H, W) from `threshold` (N,) on, or from one half, the other way round."""
    threshold = 0.5 if threshold is None else threshold.view(-1, 1, 1, 1)
    return torch.where(x >= threshold, 1 - x, x)


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
    own = torch.arange(0.0, 6.0, 2.0, device=x.device)
    turn = (shift[:, None] * 6 - own + 3) % 6 - 3  # in -3 to 3, so that |y| <= 6d: its distance to 0 is 3d - ||y| - 3d|
    y = torch.addcmul(angle[:, None], d[:, None], turn[:, :, None, None])
    y = y.abs_().sub_(d[:, None], alpha=3).abs_().add_((low - d)[:, None])
    return y.clamp_(low[:, None], high[:, None])


def blur(x, sigma):
    """Gaussian blur of (N, C, H, W), sigma (N,) in pixels; `reach` sets the kernel; edges mirror."""
    if not x.is_cuda and x.shape[2] * x.shape[3] >= BLUR_EACH:
        out = torch.empty_like(x)
        for image, width, own in zip(x, sigma.tolist(), out):
            _blur_one(image, width, own)
        return out
    return _separable(x, _gauss(sigma, x.shape[2]), _gauss(sigma, x.shape[3]))


def reach(size):
    """Pixels the blur's kernel extends to each side: its width is a tenth of the image's, and at least 3."""
    return max(1, size // 20)


def _blur_one(image, sigma, out):
    """Of (C, H, W), to `out`: products with a matrix for BAND pixels at a time, which sees as far as the kernel's tail is worth it."""
    channels, height, width = image.shape
    (up, down), (left, right) = (_band(sigma, reach(side)) for side in (height, width))
    image = F.pad(image, (right, right, down, down), mode="reflect")
    tall = torch.empty(channels, height, width + 2 * right)
    for start in range(0, height, BAND):
        size = min(BAND, height - start)
        for own, part in zip(tall, image):
            torch.mm(up[:size, :size + 2 * down], part[start:start + size + 2 * down], out=own[start:start + size])
    for start in range(0, width, BAND):
        size = min(BAND, width - start)
        part = tall.flatten(0, 1)[:, start:start + size + 2 * right]
        torch.mm(part, left[:size, :size + 2 * right].T, out=out.view(-1, width)[:, start:start + size])


def _band(sigma, far):
    """Blur matrix (BAND, BAND + 2 far) of what it makes of BAND pixels and those beside them, and how far that is."""
    far = min(far, int(TAIL * sigma) + 1)
    weight = (-0.5 * (torch.arange(-far, far + 1) / sigma) ** 2).softmax(0)
    matrix = torch.zeros(BAND, BAND + 2 * far)
    matrix.as_strided((BAND, 2 * far + 1), (BAND + 2 * far + 1, 1)).copy_(weight.expand(BAND, -1))
    return matrix, far


def _gauss(sigma, size):
    """Blur matrices (N, size, size)."""
    tap = torch.arange(-reach(size), reach(size) + 1, device=sigma.device)
    weight = (-0.5 * (tap / sigma[:, None]) ** 2).softmax(1)
    source = (torch.arange(size, device=sigma.device) + tap[:, None]).abs()  # (taps, size)
    source = size - 1 - (size - 1 - source).abs()
    hits = torch.nn.functional.one_hot(source, size).float()
    return (weight @ hits.flatten(1)).view(-1, size, size)


def square(at, share, height, width):
    """Where (N, 1, height, width) a rectangle of `share` of each side lies, its middle at `at` (N, 2) of 0 to 1; what
    lies outside is cut off."""
    inside = []
    for place, side in zip(at.unbind(1), (height, width)):
        length = round(share * side)
        start = (place * side).long()[:, None] - length // 2
        pixel = torch.arange(side, device=at.device)
        inside.append((pixel >= start) & (pixel < start + length))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
