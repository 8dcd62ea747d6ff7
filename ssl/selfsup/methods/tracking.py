"""Tracking: a patch that was followed through a film is nearer to where it came from than any other one."""

from typing import Annotated

import torch

from ..arguments import Proportion, Range, Weight, Width
from ..core import rng
from ..core.distributed import gather, gather_rows, rank
from ..core.moving import carried, moving, window
from ..core.precision import float32, normalize
from ..inputs.frames import Frames
from ..inputs.operations import crop
from ..layers import mlp
from ..training.losses import mean_where
from .base import Method, denormalise, rows

ANY, CLOSEST, FURTHER, COLOUR = 1, 2, 3, 4  # salts
MOVING = 0.25  # of a patch, at least: else nothing was found to follow


class Tracking(Method):
    """Wang & Gupta 2015, "Unsupervised Learning of Visual Representations using Videos", section 4.
    https://arxiv.org/abs/1505.00687

    A ranking loss: the first and the last patch of a track shall be nearer to each other than to patches of other
    tracks by a margin, distances being 1 − cosine. As in the authors' code (rank_hard_loss_layer.cpp) the same
    `negatives` are those of both patches, the sum is divided by their number whether they violate the margin or not, and
    after a first part of the training they are chosen by the first patch: half of them at random among the so many
    closest that violate it, the rest among all others that do. hard_from: where that part ends, as a share of the
    training; there after about 150 of 400 thousand steps. margin, hidden, dim: theirs.

    Tracks are found by the film's optical flow (`core.moving`): the square that holds most of what moves by itself,
    carried through the film by the median of its flow, where they box moving SURF points and follow them with
    KCF. patch: its side as a share of the image's, there 227 of 448 pixels. Films in which nothing moves are left out.
    jitter: by what share at most each channel of each patch is made stronger or weaker, and twice that many deviations it
    is shifted, at random and each for itself: in films as short and as clean as ours colours alone tell a track's
    patches. The paper has none.
    Weight decay is the optimiser's. `distance` is that of a track's patches, `distance_random` that of patches of two
    tracks, and `accuracy` the share of patches of other tracks that are farther.
    """

    inputs = Frames("none", columns=("frames", "flow"))
    sensitive = ("margin", 1.0)  # the code's example; its README says 0.5 or 0.1

    def __init__(
        self,
        encoder,
        card,
        hidden: Width = 4096,
        dim: Width = 1024,
        margin: Weight = 0.5,
        negatives: Annotated[int, Range(ge=2, le=1024)] = 4,
        hard_from: Proportion = 0.375,
        patch: Annotated[float, Range(ge=0.1, le=1)] = 0.5,
        jitter: Proportion = 0.0,
    ):
        super().__init__(encoder)
        self.head = mlp(encoder.dim, hidden, dim, norm=False)
        self.margin, self.negatives, self.hard_from = margin, negatives, hard_from
        self.side, self.jitter = max(1, round(patch * card["size"])), jitter
        self.register_buffer("hard", torch.zeros((), dtype=torch.bool))

    @float32
    def tracks(self, batch):
        """First and last patch of each film, (N, 2, C, S, S), and whether (N,) there is something to follow."""
        frames, flow = batch["frames"], batch["flow"]
        found = moving(frames, flow)
        corner, held = window(found, self.side)
        corners = carried(corner, self.side, flow, found)
        ends = torch.stack([corners[:, 0], corners[:, -1]], 1).flatten(0, 1)
        both = torch.stack([frames[:, 0], frames[:, -1]], 1).flatten(0, 1)
        box = torch.cat([ends, torch.full_like(ends, self.side)], 1)
        patches = crop(both, box, torch.zeros_like(box[:, 0], dtype=torch.bool)).unflatten(0, (-1, 2))
        change = self.jitter * (2 * rng.uniform(batch["key"], 2, 2, patches.shape[2], 1, 1, salt=COLOUR) - 1)
        return patches * (1 + change[:, 0]) + 2 * change[:, 1], held > MOVING

    def forward(self, batch):
        patches, there = self.tracks(batch)
        z = normalize(self.head(self.encoder(patches.flatten(0, 1))), dim=1)
        return {**self.ranked(z.unflatten(0, (-1, 2)), there, batch["key"]), "embedding": z}

    @float32
    def ranked(self, z, there, key):
        """z (n, 2, dim), unit vectors of the patches of each track, of those (n,) that are `there`."""
        everyone = gather(z).flatten(0, 1)
        mine = torch.arange(len(z), device=z.device) + rank() * len(z)
        track = torch.arange(len(everyone), device=z.device) // 2
        other = (track != mine[:, None]) & gather_rows(there).repeat_interleave(2)
        near, far = (z[:, 0] * z[:, 1]).sum(1), z @ everyone.T  # (n,), (n, 2, M)
        violation = self.margin + far - near[:, None, None]  # of D(x, x⁺) − D(x, x⁻) + margin
        chosen, negative = self.chosen(violation[:, 0].detach(), other, key)
        hinge = violation.gather(2, chosen[:, None].expand(-1, 2, -1)).clamp(min=0) * negative[:, None]
        loss = mean_where(hinge.sum((1, 2)) / (2 * self.negatives), there)
        far, counted = far.detach(), (other & there[:, None])[:, None].expand_as(far)
        accuracy = mean_where((far < near.detach()[:, None, None]).float(), counted)
        distance, at_random = mean_where(1 - near.detach(), there), mean_where(1 - far, counted)
        return {"loss": loss, "accuracy": accuracy, "distance": distance, "distance_random": at_random}

    def chosen(self, violation, other, key):
        """Negatives (n, K) of each first patch, places among all M patches, and whether (n, K) there is one, by how much
        (n, M) each violates its margin, of those (n, M) that are of an`other` track."""
        count = min(self.negatives, violation.shape[1])  # of a tiny batch all
        at_random = rng.uniform(key, violation.shape[1], salt=ANY).masked_fill(~other, -1).topk(count, 1)
        violating, half = other & (violation > 0), count // 2
        closest = violation.masked_fill(~violating, -torch.inf).topk(count, 1)
        order = rng.uniform(key, count, salt=CLOSEST).masked_fill(closest.values == -torch.inf, -1).topk(half, 1)
        first = closest.indices.gather(1, order.indices)
        left = violating & ~torch.zeros_like(violating).scatter(1, first, True)
        rest = rng.uniform(key, violation.shape[1], salt=FURTHER).masked_fill(~left, -1).topk(count - half, 1)
        places = torch.where(self.hard, torch.cat([first, rest.indices], 1), at_random.indices)
        return places, torch.where(self.hard, torch.cat([order.values, rest.values], 1), at_random.values) >= 0

    @torch.no_grad()
    def after_step(self, progress):
        self.hard.fill_(progress >= self.hard_from)

    @torch.no_grad()
    def pictures(self, batch):
        """tracks: A column is a film: above the patch that is followed through it where it was first, below where it
        was last. The network is to find them more alike than patches of other films."""
        patches, _ = self.tracks({name: batch[name][:8] for name in ("frames", "flow", "key")})
        return {"tracks": rows(denormalise(patches))}
