"""Egomotion: how the camera moved between two frames."""

from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Count, Range, Scale, Width
from ..core import rng
from ..core.distributed import total
from ..core.precision import cross_entropy, float32
from ..errors import UserError
from ..inputs.frames import Frames
from ..layers import Conv2d, map_side
from .base import Method, denormalise, rows

PAIR = 1  # salt: each use of the random numbers has its own


class Egomotion(Method):
    """Agrawal, Carreira & Malik 2015, "Learning to See by Moving". https://arxiv.org/abs/1505.01596

    Two frames go through the same network, their maps together through another one, which says in which bin each number
    of the camera's motion from the first to the second falls: a softmax for each, their losses added up. The column
    `pose` has the camera's pose in each frame, of which the difference is the motion. Frames are any two of a film that are
    `apart` so many or more, in either order.

    bins: of a number, evenly from -reach to reach; what is beyond falls into the outermost. The paper has 20 on KITTI; here
    it is an odd number, so that standing still lies in the middle of a bin, and exchanged frames are in the opposite one.
    reach: in the units of the poses; those of `scenes` go to 0.03 from frame to frame, and to 0.09 over a film.
    `accuracy_majority` is what a guess reaches that knows which bin is the fullest in this very batch, and sees nothing.
    """

    # A crop of both frames would change what a motion is called, and so would a flip.
    inputs = Frames("none", columns=("frames", "pose"))

    def __init__(
        self,
        encoder,
        card,
        bins: Annotated[int, Range(ge=3, le=1001)] = 21,
        reach: Scale = 0.09,
        apart: Count = 1,
        hidden: Width = 512,
    ):
        super().__init__(encoder)
        if bins % 2 == 0:
            raise UserError(f"egomotion: bins should be an odd number, so that standing still is in the middle of one, "
                            f"not {bins}")  # fmt: skip
        (frames, degrees), side = card["schema"]["pose"]["shape"], map_side(encoder, card["size"])
        if apart >= frames:
            raise UserError(f"egomotion: films of {frames} frames have no two that are {apart} apart")
        self.bins, self.reach, self.apart = bins, reach, apart
        self.top = nn.Sequential(
            Conv2d(2 * encoder.dim, hidden, 3, 1, 1), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(hidden * side**2, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, degrees * bins),
        )  # fmt: skip

    def pairs(self, batch):
        """Two frames of each film, (N, 2, C, H, W), and the bins (N, degrees) of the motion from one to the other."""
        frames, pose, key = (batch[name] for name in ("frames", "pose", "key"))
        far = torch.arange(frames.shape[1], device=key.device)
        far = ((far[:, None] - far).abs() >= self.apart).flatten()
        drawn = rng.uniform(key, len(far), salt=PAIR).masked_fill(~far, -1).argmax(1)
        which = torch.stack([drawn // frames.shape[1], drawn % frames.shape[1]], 1)
        two = frames.gather(1, which.view(-1, 2, 1, 1, 1).expand(-1, -1, *frames.shape[2:]))
        before, after = pose.gather(1, which[:, :, None].expand(-1, -1, pose.shape[2])).unbind(1)
        return two, self.binned(after - before)

    def binned(self, motion):
        half = self.bins // 2
        return (motion.float() * (self.bins / (2 * self.reach))).round().clamp(-half, half).long() + half

    def logits(self, frames):
        """(N, degrees, bins) of two frames each, (N, 2, C, H, W)."""
        maps = self.encoder.features(frames.flatten(0, 1))
        return self.top(maps.unflatten(0, (-1, 2)).flatten(1, 2)).unflatten(1, (-1, self.bins))

    def forward(self, batch):
        frames, motion = self.pairs(batch)
        return self.compared(self.logits(frames), motion)

    @float32
    def compared(self, logits, motion):
        loss = cross_entropy(logits.flatten(0, 1), motion.flatten()) * logits.shape[1]
        count = total(F.one_hot(motion, self.bins).float().sum(0))
        majority = (count.amax(1) / count.sum(1)).mean()
        return {"loss": loss, "accuracy": (logits.argmax(2) == motion).float().mean(), "accuracy_majority": majority}

    @torch.no_grad()
    def pictures(self, batch):
        """frames: A column is a pair of frames of one film, the first above the second.
        motion: Two rows for each pair, one below the other: what is guessed of the camera's motion, and the truth.
        From left to right each of its numbers, bin by bin (black for probability 0, white for 1); a guess is right
        where the two rows are light in the same places."""
        frames, motion = self.pairs({name: batch[name][:8] for name in ("frames", "pose", "key")})
        guess = self.logits(frames).float().softmax(2)
        both = torch.stack([guess, F.one_hot(motion, self.bins).float()], 1).flatten(2)  # (n, 2, degrees · bins)
        both = F.pad(both, (0, 0, 0, 1)).flatten(0, 1)
        return {"frames": rows(denormalise(frames)), "motion": both.repeat_interleave(6, 0).repeat_interleave(6, 1)}
