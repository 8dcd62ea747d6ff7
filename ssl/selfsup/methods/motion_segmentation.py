"""Motion segmentation: from one frame, what moved."""

import torch
import torch.nn.functional as F

from .. import nets
from ..arguments import Proportion, Scale
from ..core import rng
from ..core.moving import CELLS, moving, window
from ..core.precision import float32
from ..inputs.frames import Frames
from ..inputs.operations import crop as cropped
from ..layers import map_side
from .base import Method, denormalise, rows

FOREGROUND, BACKGROUND = 0.7, 0.4  # what is likelier, and less likely, to move; what is between teaches nothing
PLACE, FLIP = 1, 2  # salts


class MotionSegmentation(Method):
    """Pathak et al. 2017, "Learning Features by Watching Objects Move", sections 3 and 4. https://arxiv.org/abs/1612.06370

    A single frame goes through the encoder, whose last map gives the mask: logistic regression of each pixel. The truth
    it is told is what was found to move by the film's optical flow, without any label (`core.moving`, in the manner of
    their uNLC): foreground above 0.7, background below 0.4, and what is between is ignored.

    crop: side of the square that is cut out around what moves, as a share of the image's; jitter: how far it is moved at
    random, as a share of its own side. The mask is of 16 × 16 cells, where theirs has 56 × 56 on crops of 224 pixels.
    still: pixels a frame that count one half as moving. `iou` is that with what was found, over pixels that are not
    ignored, and `iou_all_foreground` that of a guess that all moves; the truth of a scene is for judges
    (`evals/segmentation.py`).
    """

    inputs = Frames("none", columns=("frames", "flow"))
    means = True

    def __init__(self, encoder, card, crop: Proportion = 0.75, jitter: Proportion = 0.1, still: Scale = 0.4):
        super().__init__(encoder)
        self.side = max(1, round(crop * card["size"]))
        self.jitter, self.still = jitter, still
        self.mask = nets.build("mask", dim=encoder.dim, start=map_side(encoder, card["size"]), side=CELLS)

    @float32
    def cuts(self, batch):
        """Crops (N, C, S, S) of the first frames, and how likely each of their cells is to move (N, 1, CELLS, CELLS)."""
        image, key, size = batch["frames"][:, 0], batch["key"], batch["frames"].shape[-1]
        found = moving(batch["frames"], batch["flow"], self.still)
        corner, _ = window(found, self.side)
        if self.training:
            shift = (2 * rng.uniform(key, 2, salt=PLACE) - 1) * (self.jitter * self.side)
            corner = (corner + shift.round().long()).clamp(0, size - self.side)
        box = torch.cat([corner, torch.full_like(corner, self.side)], 1)
        flip = (rng.uniform(key, salt=FLIP) < 0.5) & self.training
        return cropped(image, box, flip), cropped(found[:, None], box, flip, (CELLS, CELLS))

    def forward(self, batch):
        image, found = self.cuts(batch)
        return trimap(self.mask(self.encoder.layers(image)), found)

    def parts(self):
        return {"encoder": self.encoder, "pixels": self.mask}

    @torch.no_grad()
    def pictures(self, batch):
        """image_found_predicted: A column is a frame of a film: from the top itself; what was found to move in it by
        the flow (white), which is what the network is taught; and what it takes for moving, from this frame alone
        (black for probability 0, white for 1)."""
        image, found = self.cuts({name: batch[name][:8] for name in ("frames", "flow", "key")})
        guess = self.mask(self.encoder.layers(image)).float().sigmoid()
        masks = [F.interpolate(x, image.shape[2:]).expand(-1, 3, -1, -1) for x in (found, guess)]
        return {"image_found_predicted": rows(torch.stack([denormalise(image)[:, :3], *masks], 1))}


@float32
def trimap(logits, found):
    """The loss of logits (N, 1, h, w) against what was found, in 0 to 1, alike; a mean over all pixels, those that are
    ignored counting 0."""
    front, certain = found > FOREGROUND, (found > FOREGROUND) | (found < BACKGROUND)
    loss = (F.binary_cross_entropy_with_logits(logits, front.float(), reduction="none") * certain).mean()

    def iou(guess):
        both, either = ((guess & front).flatten(1).sum(1), ((guess | front) & certain).flatten(1).sum(1))
        return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean()

    return {"loss": loss, "iou": iou(logits > 0), "iou_all_foreground": iou(torch.ones_like(front)),
            "ignored": 1 - certain.float().mean()}  # fmt: skip
