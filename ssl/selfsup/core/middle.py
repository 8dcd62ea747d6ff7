"""The middle of a stored image, which judges see where views have a size of their own."""

import torch.nn.functional as F

SHARE = 7 / 8  # of the side, as usual with ImageNet: 224 pixels of 256


def middle(stored, size):
    """(first pixel, length) of the part of a side of `stored` pixels that a view of `size` pixels shows: its middle
    SHARE, or more where that has fewer pixels than the view."""
    length = max(min(stored, size), round(SHARE * stored))
    return (stored - length) // 2, length


def middle_view(images, size, become):
    """Of images (N, C, H, W), H = W, the middle, (N, C, size, size): `become(part)` is what they are made of, floats."""
    first, length = middle(images.shape[-1], size)
    part = become(images[..., first:first + length, first:first + length])
    return part if length == size else F.interpolate(part, (size, size), mode="bilinear", antialias=length > size)
