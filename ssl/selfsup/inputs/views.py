"""What a sample becomes for a method: batched augmentation on the device, with parameters of each sample's own.

A view is a pure function of (seed, epoch, sample index, view number), see `rng`: batch, process, worker and resume
point do not matter. A method declares its inputs with `View`, `Views`, `MultiCrop`, `Pair` or `Taken`, and those of
other signals with what `tokens`, `sound`, `frames` and `points` beside this file have; the trainer calls them on each
batch. `augment` is a name, an Augment, a mapping of its fields, or a list of these for the views in turn, see
`augment.augmentation`. `size`: pixels a side of a view, those of the stored image unless said; a random crop is cut from
all of the image, and where there is none a view shows its middle (core/middle.py), as judges then see it.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch

from ..arguments import Count, Crop, Range, Side
from ..core import rng
from ..core.middle import middle
from . import mix
from .augment import Augment, apply, augmentation, draw


@dataclass(frozen=True)
class View:
    """One view of the image: batch["image"] becomes float (N, C, H, W)."""

    augment: str | dict | list | Augment = "crop_flip"
    columns: tuple = ("image",)
    size: Side | None = None

    def __call__(self, batch, seed, mean, std):
        key = keys(batch, seed)
        views = _views(batch["image"], key, self.augment, 1, mean, std, size=self.size)
        return {**batch, "image": views[:, 0], "key": key}


@dataclass(frozen=True)
class Views:
    """`count` independent views of the image: batch["image"] becomes float (N, count, C, H, W)."""

    count: Count = 2
    augment: str | dict | list | Augment = "simclr"
    columns: tuple = ("image",)
    size: Side | None = None

    def __call__(self, batch, seed, mean, std):
        key = keys(batch, seed)
        views = _views(batch["image"], key, self.augment, self.count, mean, std, size=self.size)
        return {**batch, "image": views, "key": key}


@dataclass(frozen=True)
class MultiCrop:
    """Two large views and `small` ones of half their side, cheap and cut from less (Caron et al. 2020, section 3.2):
    batch["image"] becomes float (N, 2, C, H, W), batch["small"] (N, small, C, H/2, W/2). The paper's 96 of 224 pixels are
    a little less than half."""

    small: Annotated[int, Range(ge=0, le=100)] = 4
    augment: str | dict | list | Augment = "simclr"
    large_crop: Crop = (0.14, 1.0)  # shares of the area, SwAV's appendix A
    small_crop: Crop = (0.05, 0.14)
    columns: tuple = ("image",)
    size: Side | None = None  # of the large ones

    def __call__(self, batch, seed, mean, std):
        key, image = keys(batch, seed), batch["image"]
        large = _views(image, key, self.augment, 2, mean, std, size=self.size, crop=self.large_crop)
        cut = {"crop": self.small_crop, "scale": 0.5}
        small = _views(image, key, self.augment, self.small, mean, std, first=2, size=self.size, **cut)
        return {**batch, "image": large, "small": small, "key": key}


@dataclass(frozen=True)
class Pair:
    """One view of the image, and a second column that belongs to it and stays as it is."""

    first: str = "image"
    second: str = "caption"
    augment: str | dict | list | Augment = "crop_flip"
    size: Side | None = None

    @property
    def columns(self):
        return (self.first, self.second)

    def __call__(self, batch, seed, mean, std):
        return View(self.augment, size=self.size)(batch, seed, mean, std)


@dataclass(frozen=True)
class Taken:
    """The column that the run's encoder takes, whichever it is: of images one view, another one as readers give it."""

    column: str = "image"
    augment: str | dict | list | Augment = "crop_flip"
    more: tuple = ()  # columns that belong to it and stay as they are
    size: Side | None = None  # of an image's view

    @property
    def columns(self):
        return (self.column, *self.more)

    def __call__(self, batch, seed, mean, std):
        if self.column == "image":
            return View(self.augment, size=self.size)(batch, seed, mean, std)
        return {**batch, self.column: batch[self.column], "key": keys(batch, seed)}


def taken(batch, encoder):
    """Of a batch that went through `Taken` what the encoder's `forward` takes."""
    column = batch[encoder.takes]
    return column if encoder.takes == "image" else encoder.prepare(column)


def trained_on(batch, encoder, seed, augment="crop_flip"):
    """What a judge that trains the encoder feeds it: batch[encoder.takes] becomes one augmented view of images; any other
    column is as the encoder prepares it."""
    if encoder.takes == "image":
        return View(augment, size=encoder.size)(batch, seed, encoder.mean, encoder.std)
    return {**batch, encoder.takes: encoder.prepare(batch[encoder.takes])}


def keys(batch, seed):
    """A random key (N,) for each sample and epoch."""
    return rng.key(seed, batch["epoch"], batch["index"])


def _views(images, key, augment, count, mean, std, first=0, size=None, **changes):
    """Views number `first` and on, float (N, count, C, h, w), of integer images (N, C, H, W), of `size` times the
    augmentation's scale; changes to Augment."""
    specs = [replace(spec, **changes) for spec in augmentation(augment)]
    sides = [round(specs[0].scale * (size or side)) for side in images.shape[2:]]
    views = torch.empty(len(images), count, images.shape[1], *sides, device=images.device)
    for number in range(count):
        spec = specs[number % len(specs)]
        own = rng.key(key, first + number)
        params = draw(own, spec, *images.shape[2:], sides)
        if size and not spec.crop:
            for axis, side in enumerate(images.shape[2:]):
                params["box"][:, axis], params["box"][:, 2 + axis] = middle(side, size)
        apply(images, params, spec, mean, std, out=views[:, number])
        if spec.mixup:
            share = mix.shares(own, spec.mixup)
            views[:, number] = mix.mixed(views[:, number], mix.partners(own), share.maximum(1 - share))
    return views
