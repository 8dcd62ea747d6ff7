"""What a set of points becomes for a method: seen in part, turned, larger or smaller, each point a little elsewhere."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F

from ..arguments import Count, Crop, Positive, Proportion, Range, Scale, Share
from ..core import rng
from ..errors import UserError
from .views import keys

CROP, CENTRE, ASIDE, ORDER, AXIS, ANGLE, SIZE, MIRROR, NOISE, MATCH = range(1, 11)  # salts: each use has its own
Sizes = Annotated[list[Scale], Range(min_length=2, max_length=2, ascending=True)]


@dataclass(frozen=True)
class Points:
    """`count` independent views of a set of points: batch["points"], (N, P, C) with x, y, z first, becomes (N, count,
    P, C), and batch["which"], int64 (N, count, P), the place that each point had.

    Of (N, S, P, C), S scans of one thing, of which the first `scans` are taken, view number v is one of scan v modulo S. What comes after x, y, z is left
    as it is but for `normals`: then numbers 3 to 5 turn with the points. The first four are those of DepthContrast
    (Zhang et al. 2021, section 3.3 and its code's point_vox_template.yaml). crop: only a box stays, of sides that are
    such shares of the whole's; drop: a box of this share of each side goes; the points that stay are repeated to fill
    up. Where neither is done, points keep their places. turn: by any angle about one of the axes at random, or about
    any axis (PointContrast: Xie et al. 2020). scale: by such a factor. mirror: the probability of x becoming -x.
    jitter: standard deviation of what is added to each place, cut at three of them.
    """

    count: Count = 2
    crop: Crop = (0.5, 1.0)
    drop: Share = 0.2
    turn: Literal["none", "axis", "any"] = "axis"
    scale: Sizes = (0.8, 1.2)
    mirror: Proportion = 0.5
    jitter: Annotated[float, Range(ge=0, le=1e3)] = 0.0
    normals: bool = False
    scans: Count = 2
    columns: tuple = ("points",)

    def __call__(self, batch, seed, mean, std):
        key, scans = keys(batch, seed), batch["points"].float()
        scans = scans[:, None] if scans.dim() == 3 else scans[:, : self.scans]
        if self.normals and scans.shape[3] < 6:
            raise UserError(f"normals: points have {scans.shape[3]} numbers each; with a normal after x, y, z there are six")
        views = [self.view(scans[:, number % scans.shape[1]], rng.key(key, number)) for number in range(self.count)]
        points, which = (torch.stack(column, 1) for column in zip(*views))
        return {**batch, "points": points, "which": which, "key": key}

    def view(self, points, key):
        """One view of points (N, P, C), and where (N, P) each of its points was."""
        which = torch.arange(points.shape[1], device=points.device).expand(points.shape[:2])
        if tuple(self.crop) != (1, 1) or self.drop:
            which = kept(points[:, :, :3], key, *self.crop, self.drop)
            points = points.gather(1, which[:, :, None].expand_as(points))
        turn = turned(key, self.turn) * mirrored(key, self.mirror)[:, None]
        place = points[:, :, :3] @ turn
        low, high = self.scale
        place = place * (low + (high - low) * rng.uniform(key, 1, 1, salt=SIZE))
        if self.jitter:
            place = place + self.jitter * rng.normal(key, *place.shape[1:], salt=NOISE).clamp(-3, 3)
        others = [points[:, :, 3:6] @ turn, points[:, :, 6:]] if self.normals else [points[:, :, 3:]]
        return torch.cat([place, *others], 2), which


@dataclass(frozen=True)
class Scans(Points):
    """Two views, of the two scans of a thing, and which of their points are the same one: batch["match"], int64 (N, P),
    for each point of the first view the place in the second of one that lies within `radius` of it, at random among all
    that do, or -1. They are compared as the scanner saw them, before the views are turned: the column `transform` (N, 3,
    4), p -> R p + t, brings the first scan to the second.

    As PointContrast has it (Xie et al. 2020, section 4.1, and its code): views are turned about any axis, each for
    itself, and larger or smaller, and the radius is 1.5 voxels of 2.5 cm.
    """

    crop: Crop = (1.0, 1.0)
    drop: Share = 0.0
    turn: Literal["none", "axis", "any"] = "any"
    mirror: Proportion = 0.0
    radius: Positive = 0.0375
    columns: tuple = ("points", "transform")

    def __call__(self, batch, seed, mean, std):
        out, move = super().__call__(batch, seed, mean, std), batch["transform"].float()
        scans, which = batch["points"][..., :3].float(), out["which"][..., None]
        first, second = (scans[:, v].gather(1, which[:, v].expand(-1, -1, 3)) for v in (0, 1))
        moved = first @ move[:, :, :3].mT + move[:, None, :, 3]
        near = torch.cdist(moved, second, compute_mode="donot_use_mm_for_euclid_dist") <= self.radius
        count = near.cumsum(2)
        chosen = (rng.uniform(out["key"], near.shape[1], salt=MATCH) * count[:, :, -1]).long() + 1
        match = ((count == chosen[:, :, None]) & near).byte().argmax(2)
        return {**out, "match": torch.where(count[:, :, -1] > 0, match, -1)}


def kept(place, key, least, most, drop):
    """Where the points (N, P) of a view stand among `place` (N, P, 3): those inside one box and outside another, in a
    random order, from the beginning again until there are P. The boxes are about two of the points; where that leaves
    none, it is the point that comes first."""
    extent = place.amax(1, keepdim=True) - place.amin(1, keepdim=True)
    middle = (rng.uniform(key, 2, salt=CENTRE) * place.shape[1]).long()
    crop, aside = place.gather(1, middle[:, :, None].expand(-1, -1, 3))[:, :, None].unbind(1)
    sides = least + (most - least) * rng.uniform(key, 1, 3, salt=CROP)
    stays = ((place - crop).abs() <= extent * sides / 2).all(2) | (least == 1)
    if drop:
        stays &= ((place - aside).abs() > extent * drop / 2).any(2)
    order = (rng.uniform(key, place.shape[1], salt=ORDER) + (~stays)).argsort(1)
    count = stays.sum(1, keepdim=True).clamp(min=1)
    return order.gather(1, torch.arange(place.shape[1], device=place.device) % count)


def turned(key, how):
    """Rotations (N, 3, 3): none, about x, y or z at random, or about any axis, by any angle (Rodrigues' formula)."""
    if how == "none":
        return torch.eye(3, device=key.device).expand(*key.shape, 3, 3)
    if how == "axis":
        axis = (rng.randint(key, 3, 1, salt=AXIS) == torch.arange(3, device=key.device)).float()
    else:
        axis = F.normalize(rng.normal(key, 3, salt=AXIS), dim=1)
    angle = rng.uniform(key, 1, 1, salt=ANGLE) * (2 * math.pi)
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    same = torch.eye(3, device=key.device)
    return same + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def mirrored(key, probability):
    """Factors (N, 3) of x, y and z: x is negated with this probability."""
    sign = 1 - 2 * (rng.uniform(key, salt=MIRROR) < probability).float()
    return torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], 1)
