"""PointContrast: a point of a thing finds the same point as seen from another side."""

import torch
import torch.nn as nn

from ..arguments import Count, Temperature, Width
from ..core import rng
from ..core.distributed import gather, gather_rows, rank
from ..core.precision import cross_entropy, float32, normalize
from ..errors import UserError
from ..inputs.points import Scans
from ..training.losses import mean_where
from .base import Method, affinity

ORDER = 21  # salt: those of views are others


class PointContrast(Method):
    """Xie et al. 2020, "PointContrast: Unsupervised Pre-training for 3D Point Cloud Understanding", section 3.3, eq. 2.
    https://arxiv.org/abs/2007.10985

    PointInfoNCE: of two partial views, turned at random each for itself, a matched point of one finds its match in the
    other among the matches of all pairs of the batch, of which those of other things are some. Which points match is
    said by the column `transform`, before anything is turned (`inputs.points.Scans`): of each point one of those near it,
    at random. Where nothing matches there is no pair.

    temperature: 0.4 is that of the run whose figures are published (ddp_launch.sh); the code's default is 0.07. dim: as
    there. pairs: most of them of one sample; there 4,096 of a batch of 32. The encoder is `pointnet`, whose features of
    each point are compared, in place of their sparse convolutions. `distance` is that of matched points, and
    `distance_unmatched` that of points of the other view that are matched with another one, in the mean.
    """

    inputs = Scans()
    sensitive = ("temperature", 0.07)  # the code's own default

    def __init__(self, encoder, pairs: Count = 128, dim: Width = 32, temperature: Temperature = 0.4):
        super().__init__(encoder)
        if not hasattr(encoder, "points"):
            raise UserError("point_contrast needs an encoder that has features of each point: pointnet")
        self.pairs, self.temperature = pairs, temperature
        self.head = nn.Linear(encoder.dim, dim)

    def matched(self, batch):
        """Unit vectors (N, K, dim) of points of the first view and of their matches in the second, and whether (N, K)
        there is a pair."""
        match, key = batch["match"], batch["key"]
        order = rng.uniform(key, match.shape[1], salt=ORDER) + (match < 0)
        chosen = order.argsort(1)[:, : self.pairs]
        where = match.gather(1, chosen)
        first, second = (self.head(self.encoder.points(view)) for view in batch["points"].unbind(1))
        first, second = (x.gather(1, i[:, :, None].expand(-1, -1, x.shape[2]))
                         for x, i in ((first, chosen), (second, where.clamp(min=0))))
        return normalize(first, dim=2), normalize(second, dim=2), where >= 0

    def forward(self, batch):
        first, second, pair = self.matched(batch)
        return {**self.compared(first, second, pair), **distances(first.detach(), second.detach(), pair)}

    @float32
    def compared(self, first, second, pair):
        """Eq. 2: its softmax is over the second points of all pairs."""
        query, there = first.flatten(0, 1), pair.flatten()
        logits = query @ gather(second.flatten(0, 1)).T / self.temperature
        mine = torch.arange(len(query), device=query.device) + rank() * len(query)
        own = mine[:, None] == torch.arange(logits.shape[1], device=query.device)
        logits = logits.masked_fill(~gather_rows(there) & ~own, -torch.inf)  # own: no row shall be empty
        loss = cross_entropy(logits, mine, reduction="none")
        return {"loss": mean_where(loss, there), "accuracy": mean_where((logits.argmax(1) == mine).float(), there)}

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: Of one thing: a row is a point of one scan, a column a point of the other, from the top of the
        thing downwards; each cell is the cosine of their embeddings (black −1, opposite; white 1, the same). On the
        diagonal, which is to be the lightest, are points that match."""
        batch = {name: batch[name][:1] for name in ("points", "match", "key")}
        first, second, pair = self.matched(batch)
        return {"affinity": affinity(first[0, :40], second[0, :40])}


@float32
def distances(first, second, pair):
    """How far (N, K, dim) unit vectors are from their matches, and from the matches of others of the same thing."""
    apart = (2 - 2 * first @ second.transpose(1, 2)).clamp(min=0).sqrt()
    own = torch.eye(pair.shape[1], dtype=torch.bool, device=pair.device)
    both = pair[:, :, None] & pair[:, None]
    matched = mean_where(apart.diagonal(dim1=1, dim2=2), pair)
    return {"distance": matched, "distance_unmatched": mean_where(apart, both & ~own)}
