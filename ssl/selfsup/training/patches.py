"""Square patches out of a batch of images."""

import torch

from ..core import rng


def cut(x, corners, side):
    """Patches (N, P, C, side, side) of images (N, C, H, W), their upper left corners (N, P, 2) in pixels: top, left."""
    offset = torch.arange(side, device=x.device)
    rows = (corners[..., 0, None] + offset)[:, :, None, :, None]  # (N, P, 1, side, 1)
    columns = (corners[..., 1, None] + offset)[:, :, None, None, :]
    sample = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, 1, -1, 1, 1)
    return x[sample, channel, rows, columns]


def jittered_grid(key, size, cells, side):
    """Corners (N, cells², 2), row by row, of one patch in each cell of a grid over `size` pixels, at a place of each
    sample's and cell's own, drawn from key (N,). Patches of neighbouring cells then have a gap that varies, so that
    neither lines that run on nor touching edges tell how they lie (Doersch 2015, section 3.1; Noroozi 2016, 3.2)."""
    cell = size // cells
    if side > cell:
        raise ValueError(f"patches of {side} pixels do not fit into cells of {cell}")
    origin = torch.arange(cells, device=key.device) * cell + (size - cells * cell) // 2
    origin = torch.cartesian_prod(origin, origin)  # (cells², 2)
    return origin + rng.randint(key, cell - side + 1, cells**2, 2)


def regular_grid(n, size, side, stride, device=None):
    """Corners (n, P, 2), row by row, of overlapping patches every `stride` pixels, the same for each of n images."""
    start = torch.arange(0, size - side + 1, stride, device=device)
    return torch.cartesian_prod(start, start).expand(n, -1, -1)
