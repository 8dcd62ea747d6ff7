"""What moves by itself in a film, by its optical flow and its colours alone: nobody says where anything is."""

import torch
import torch.nn.functional as F

from .precision import float32

UNIT = 16  # flow is kept in whole numbers of so many a pixel
FITS = 8  # rounds in which the motion of the whole image is found
BORDER = 1 / 8  # of the side, where flow is worst: nothing is found there, as in uNLC's code
CELLS, VOTES = 16, 5  # a side, and rounds, in which cells that look alike vote
ALIKE, NEAR = 0.2, 0.4  # standard deviations of their weights: of colours, as normalised, and of places, in sides
LEAST = 0.3  # the best cell's vote, below which votes are not scaled up


@torch.no_grad()
@float32
def moving(frames, flow, still=0.4):
    """How likely it is that what the first frame shows moves by itself, (N, H, W) in 0 to 1, by frames (N, T, C, H, W),
    normalised, and flow (N, T - 1, 2, H, W) in 1/UNIT pixel, from each to the next.

    In the manner of uNLC (Pathak et al. 2017, https://arxiv.org/abs/1612.06370, section 4.1; its code, videoseg): saliency
    is how much the flow differs, squared, from the one that dominates the frame, 0 at the border; then all that looks
    alike votes together, each time by the mean of its neighbours' votes, and each time votes are scaled to a largest one
    of 1. What differs: the dominant motion is an affine one, since the camera rolls and zooms, where theirs is none or a
    translation; differences are averaged over the film, along the flow, before they are squared; a difference of
    `still` pixels a frame counts one half, and no vote below LEAST is scaled to 1, so that where nothing moves nothing is
    found; who votes are the cells of a grid, by their mean colour, not superpixels with histograms.
    """
    height, width = flow.shape[3:]
    saliency = smoothed(own(flow)).square().sum(1)
    saliency = saliency / (saliency + still**2)
    edge = [max(1, round(BORDER * side)) for side in (height, width)]
    saliency = F.pad(saliency[:, edge[0] : -edge[0], edge[1] : -edge[1]], (edge[1], edge[1], edge[0], edge[0]))
    votes = voted(F.adaptive_avg_pool2d(saliency[:, None], CELLS), F.adaptive_avg_pool2d(frames[:, 0], CELLS))
    return F.interpolate(votes, (height, width), mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
@float32
def own(flow):
    """How what each pixel of the first frame shows moves by itself, in pixels a frame, (N, 2, H, W): the flow (N, T, 2, H, W),
    in 1/UNIT pixel, less the image's own motion, in the mean over the film along the flow."""
    flow = flow.float() / UNIT
    return along(apart(flow.flatten(0, 1)).view_as(flow), flow)


def apart(flow):
    """What of flow (N, 2, H, W), in pixels, an affine motion of the whole image does not explain.

    It is fitted by least squares to the means of cells, each weighted by how well the last fit explains it, more strictly
    from round to round. Things stand in the middle, so the first fit is to the image's outer half.
    """
    few = F.adaptive_avg_pool2d(flow, CELLS)
    y, x, u = *places(CELLS, CELLS, flow.device), few.flatten(2)
    weight = (x.abs().maximum(y.abs()) > 0.5).float().expand(len(flow), -1)
    for number in range(FITS):
        motion = affine(x, y, u, weight)
        scale = max(0.25, 2.0 * 0.6**number)  # pixels
        weight = (1 + (u - at(motion, x, y)).square().sum(1) / scale**2) ** -2  # what is far off hardly counts
    y, x = places(*flow.shape[2:], flow.device)
    return flow - at(motion, x, y).view_as(flow)


def places(height, width, device):
    """y and x, each (H·W,), of the middle of each pixel, -1 and 1 the image's borders."""
    y, x = (((torch.arange(side, device=device) + 0.5) / side * 2 - 1) for side in (height, width))
    return y[:, None].expand(height, width).flatten(), x.expand(height, width).flatten()


def affine(x, y, u, weight):
    """The affine function of x, y (P,) nearest to u (N, 2, P) by weights (N, P): its value at 0 and slopes, (N, 2, 3)."""
    share = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
    mx, my = (share * x).sum(1, keepdim=True), (share * y).sum(1, keepdim=True)
    dx, dy, mean = x - mx, y - my, (share[:, None] * u).sum(2)
    xx, xy, yy = ((share * a * b).sum(1, keepdim=True) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    ux, uy = (((share * d)[:, None] * (u - mean[:, :, None])).sum(2) for d in (dx, dy))
    area = (xx * yy - xy * xy).clamp(min=1e-6)
    a, b = (ux * yy - uy * xy) / area, (uy * xx - ux * xy) / area
    return torch.stack([mean - a * mx - b * my, a, b], 2)


def at(motion, x, y):
    """Values (N, 2, P) of affine functions (N, 2, 3) at x, y (P,)."""
    return motion[:, :, :1] + motion[:, :, 1:2] * x + motion[:, :, 2:] * y


def along(values, flow):
    """Means (N, 2, H, W) of values (N, T, 2, H, W) over what each pixel of the first frame becomes, by the flow (N, T, 2,
    H, W) in pixels."""
    n, count, _, height, width = flow.shape
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None].expand(n, height, width)
    x = torch.arange(width, device=flow.device, dtype=flow.dtype).expand(n, height, width)
    total = torch.zeros_like(flow[:, 0])
    for number in range(count):
        place = y.round().clamp(0, height - 1) * width + x.round().clamp(0, width - 1)
        place = place.long().flatten(1)[:, None].expand(-1, 2, -1)
        total = total + values[:, number].flatten(2).gather(2, place).view_as(total)
        step = flow[:, number].flatten(2).gather(2, place).view_as(total)
        x, y = x + step[:, 0], y + step[:, 1]
    return total / count


def smoothed(x):
    """Means over 3 × 3 pixels."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def voted(votes, colours):
    """Votes (N, 1, CELLS, CELLS) after VOTES rounds among cells, weighted by how alike their colours (N, C, CELLS, CELLS)
    are and how near they lie."""
    place = torch.stack(places(CELLS, CELLS, votes.device), 1).expand(len(votes), -1, -1) / 2
    what = torch.cat([colours.flatten(2).transpose(1, 2) / ALIKE, place / NEAR], 2)
    half = what.square().sum(2) / 2
    weight = torch.baddbmm(-half[:, :, None] - half[:, None], what, what.mT).clamp_(max=0).exp_()
    share = 1 / weight.sum(2, keepdim=True)
    found = share * (weight @ votes.flatten(2).mT)
    most = (found.amax(1, keepdim=True) / LEAST).clamp(max=1)  # what the largest is scaled to
    for _ in range(VOTES - 1):
        found = share * (weight @ (found * (most / found.amax(1, keepdim=True).clamp(min=1e-6))))
    return (found * (most / found.amax(1, keepdim=True).clamp(min=1e-6))).mT.view_as(votes)


@torch.no_grad()
def window(mask, side):
    """The square of `side` pixels that holds most of mask (N, H, W): its upper left corner, int64 (N, 2), top and left,
    and the mask's mean in it (N,)."""
    held = F.avg_pool2d(mask[:, None], side, 1)[:, 0]
    most, place = held.flatten(1).max(1)
    return torch.stack([place // held.shape[2], place % held.shape[2]], 1), most


@torch.no_grad()
@float32
def carried(corner, side, flow, mask):
    """Where a square with that corner (N, 2) in the first frame is in each frame: corners int64 (N, T, 2) by flow (N, T -
    1, 2, H, W) in 1/UNIT pixel. Each time it moves by the median of the flow of those of its pixels that are likely to
    move, by mask (N, H, W), and that move with it; where none is, of all. It stays within the image."""
    height, width = flow.shape[3:]
    y, x = torch.arange(height, device=flow.device)[:, None], torch.arange(width, device=flow.device)
    top, left = corner[:, :1, None], corner[:, 1:, None]
    inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
    thing = inside & (mask > 0.5)
    thing = (thing | (inside & ~thing.any(2, keepdim=True).any(1, keepdim=True))).flatten(1)
    place, found = corner.float(), [corner]
    for number in range(flow.shape[1]):
        down, across = (found[-1] - corner)[:, :, None, None].unbind(1)
        there = (y - down >= 0) & (y - down < height) & (x - across >= 0) & (x - across < width)
        was = (y - down).clamp(0, height - 1) * width + (x - across).clamp(0, width - 1)
        here = there.flatten(1) & thing.gather(1, was.flatten(1))
        step = torch.where(here[:, None], flow[:, number].flatten(2).float() / UNIT, torch.nan).nanmedian(2).values
        place = place + step.nan_to_num(0).flip(1)
        place = torch.stack([place[:, 0].clamp(0, height - side), place[:, 1].clamp(0, width - side)], 1)
        found.append(place.round().long())
    return torch.stack(found, 1)
