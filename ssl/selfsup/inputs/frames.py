"""What the frames of a video become for a method: all of them change alike, so that what moves is what moved."""

from dataclasses import dataclass

import torch

from ..core import rng
from .augment import Augment, apply, augmentation, draw
from .views import keys


@dataclass(frozen=True)
class Frames:
    """batch["frames"], uint8 (N, T, C, H, W), becomes float (N, T, C, h, w), by one random view for all frames of a
    sample: the same crop, flip and colours, which are those that `View` gives the sample's image. A crop or a flip
    changes what a motion is called; where that is asked for, `augment` has neither.
    """

    augment: str | dict | list | Augment = "none"
    columns: tuple = ("frames",)

    def __call__(self, batch, seed, mean, std):
        key, frames = keys(batch, seed), batch["frames"]
        spec, *_ = augmentation(self.augment)
        params = draw(rng.key(key, 0), spec, *frames.shape[3:])
        size = [round(spec.scale * side) for side in frames.shape[3:]]
        views = torch.empty(*frames.shape[:3], *size, device=frames.device)
        for number in range(frames.shape[1]):
            apply(frames[:, number], params, spec, mean, std, out=views[:, number])
        return {**batch, "frames": views, "key": key}
