"""A network on sets of points: whatever their order, the features are the same."""

from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Norm, Range, Width
from ..core.precision import float32
from ..layers import Conv2d, norm_layer


class PointNet(nn.Module):
    """Points (N, P, coordinates), x, y, z and whatever else is known of each -> features (N, 8·width).

    Qi et al. 2017 (PointNet), figure 2, https://arxiv.org/abs/1612.00593: the same layers for each point, and the
    largest over all points. Before that each point looks at its `neighbours` nearest ones, as an edge convolution does
    (Wang et al. 2019, eq. 8, https://arxiv.org/abs/1801.07829), without which a point knows nothing of the surface it
    lies on; and there are no networks that turn the points. Distances are those of x, y, z, which are counted from the
    middle of the points. `points(x)` gives features of each point, which know the whole as well. coordinates: the
    data's.
    """

    takes = "points"

    def __init__(
        self,
        coordinates: Annotated[int, Range(ge=3, le=64)] = 3,
        width: Width = 32,
        neighbours: Annotated[int, Range(ge=1, le=256)] = 16,
        norm: Norm = "batch",
    ):
        super().__init__()
        self.neighbours, self.dim = neighbours, 8 * width
        self.edge = shared(2 * coordinates, 2 * width, norm)
        self.local = nn.Sequential(shared(2 * width, 4 * width, norm), shared(4 * width, 8 * width, norm))
        self.whole = shared(16 * width, 8 * width, norm)

    def prepare(self, column):
        """Points as readers give them; of several scans of a thing, (N, S, P, coordinates), the first, since each is from
        a place of its own."""
        return (column[:, 0] if column.dim() == 4 else column).float()

    def layers(self, x):
        """Maps (N, C, 1, P) of each point alone, with its neighbours and with the whole; the last is (N, dim, 1, 1),
        the largest over the points."""
        near, local, whole = self.steps(x)
        return [near, local, whole, whole.amax(3, keepdim=True)]

    def features(self, x):
        return self.layers(x)[-1]

    def points(self, x):
        """Points (N, P, coordinates) -> features (N, P, dim) of each, in their order."""
        return self.steps(x)[-1][:, :, 0].transpose(1, 2)

    def forward(self, x):
        return self.features(x)[:, :, 0, 0]

    def steps(self, x):
        x = centred(x)
        edges = edges_of(x, nearest(x, min(self.neighbours, x.shape[1])))
        near = self.edge(edges).amax(2, keepdim=True)
        local = self.local(near)
        return near, local, self.whole(torch.cat([local, local.amax(3, keepdim=True).expand_as(local)], 1))


def shared(d_in, d_out, norm):
    """The same layer for each point: (N, d_in, K, P) -> (N, d_out, K, P)."""
    return nn.Sequential(Conv2d(d_in, d_out, 1, bias=False), norm_layer(norm, d_out), nn.ReLU(inplace=True))


@float32
def centred(x):
    """Points (N, P, C) with x, y, z counted from their mean."""
    return torch.cat([x[:, :, :3] - x[:, :, :3].mean(1, keepdim=True), x[:, :, 3:]], 2)


@torch.no_grad()
@float32
def nearest(x, k):
    """Which k points (N, P, k) are nearest to each of x (N, P, C), itself among them."""
    place = x[:, :, :3]
    return torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist").topk(k, 2, largest=False).indices


def edges_of(x, near):
    """What each point sees of those near it (N, P, k): (N, 2·C, k, P), itself and how far they are away."""
    n, p, k = near.shape
    others = x.gather(1, near.flatten(1)[:, :, None].expand(-1, -1, x.shape[2])).view(n, p, k, -1)
    own = x[:, :, None].expand_as(others)
    return torch.cat([own, others - own], 3).permute(0, 3, 2, 1)
