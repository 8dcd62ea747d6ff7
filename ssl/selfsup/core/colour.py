"""CIE Lab, in which lightness (L) and colour (a, b) are separate and distances are about what the eye sees."""

import functools

import torch

from .precision import float32

WHITE = (0.95047, 1.0, 1.08883)  # D65
# Linear sRGB to XYZ, IEC 61966-2-1.
XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


@functools.cache
def _to_xyz(device):
    """Matrix (3, 3) from linear sRGB to XYZ relative to white; made once a device, as every copy to it waits."""
    with torch.inference_mode(False):
        return torch.tensor(XYZ, device=device) / torch.tensor(WHITE, device=device)[:, None]


@functools.cache
def _from_xyz(device):
    with torch.inference_mode(False):
        return torch.linalg.inv(_to_xyz(device).double().cpu()).to(device, torch.float32)


@float32
def rgb_to_lab(x):
    """sRGB (N, 3, H, W) in 0..1 -> L in 0..100, a and b in about -110..110, in float32, under autocast too."""
    x = x.float()
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055).clamp(min=0) ** 2.4, x / 12.92)
    xyz = torch.einsum("ij,njhw->nihw", _to_xyz(x.device), linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-8) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@float32
def lab_to_rgb(lab):
    """The inverse of `rgb_to_lab`; colours that a screen cannot show are clamped to 0..1."""
    lightness, a, b = lab.float().unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = torch.einsum("ij,njhw->nihw", _from_xyz(xyz.device), xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055, 12.92 * linear)
