"""DepthContrast: a view of a set of points finds the thing's other view, as points and as voxels, among queues of both."""

from typing import Annotated

import torch
import torch.nn as nn

from .. import nets
from ..arguments import Proportion, Range, Temperature, Width
from ..core.distributed import gather_rows, rank
from ..core.precision import cross_entropy, float32, normalize
from ..inputs.points import Points
from ..layers import mlp
from ..training.state import Ema, Queue, in_groups
from .base import Method, affinity


class DepthContrast(Method):
    """Zhang, Girdhar, Joulin & Misra 2021, "Self-Supervised Pretraining of 3D Features on any Point-Cloud", section 3.
    https://arxiv.org/abs/2101.02691

    Four of MoCo's losses, each with the keys of a slowly moving copy and a queue of them: within a format, of points by
    points and of voxels by voxels, and across, of points by voxels and the reverse. Each is halved, as in the authors'
    code (nce_loss_moco.py). The run's encoder takes the points; what takes the voxels is a second one, `voxel_convnet`,
    the part `voxels` of the encoder folder, dense where theirs is sparse.

    Two views are two random ones of one depth map, the data's first scan; with `scans: 2` each is of a scan of its own.
    hidden, hidden_voxels, dim: of the heads, as in the code, its queue, momentum and temperature, too. Between their
    layers is BatchNorm: the largest of many points is much the same for all things, and without it all embeddings were.
    queue: take less than the training set. group: as MoCo's. `retrieved` is the share of points that find the voxels of
    their thing's other view among those of the whole batch, `retrieved_chance` that of a guess.
    """

    inputs = Points(2, scans=1)
    sensitive = ("temperature", 0.2)  # MoCo v2's

    def __init__(
        self,
        encoder,
        hidden: Width = 512,
        hidden_voxels: Width = 256,
        dim: Width = 128,
        queue: Width = 131072,
        momentum: Proportion = 0.999,
        temperature: Temperature = 0.1,
        grid: Annotated[int, Range(ge=4, le=256)] = 24,
        width: Width = 16,
        group: Annotated[int, Range(ge=2)] = 32,
    ):
        super().__init__(encoder)
        self.voxels = nets.build("voxel_convnet", grid=grid, width=width)
        self.head = mlp(encoder.dim, hidden, dim)
        self.head_voxels = mlp(self.voxels.dim, hidden_voxels, dim)
        self.key, self.key_voxels = map(Ema, self.queries)
        self.queue, self.queue_voxels = Queue(queue, dim), Queue(queue, dim)
        self.momentum, self.temperature, self.group = momentum, temperature, group

    @property
    def queries(self):
        """The networks of both formats; built anew: registered, their weights would have two names."""
        return nn.Sequential(self.encoder, self.head), nn.Sequential(self.voxels, self.head_voxels)

    def embed(self, net, points):
        return normalize(in_groups(net, points, self.group), dim=1)

    def keys(self, points, key):
        """Unit vectors (N, dim) of both formats, in BatchNorm's groups of others than the queries'."""
        shuffle = key.argsort()
        return [self.embed(net, points[shuffle])[shuffle.argsort()] for net in (self.key, self.key_voxels)]

    def forward(self, batch):
        first, second = batch["points"].unbind(1)
        queries = [self.embed(net, first) for net in self.queries]
        with torch.no_grad():
            keys = self.keys(second, batch["key"])
        queues = self.queue, self.queue_voxels
        out = self.contrasted(queries, keys, [queue.keys.clone() for queue in queues])
        if self.training:
            for queue, key in zip(queues, keys):
                queue.push(gather_rows(key))  # only now: a batch's keys are never its own negatives
        return {**out, "embedding": queries[0]}

    @float32
    def contrasted(self, queries, keys, queues):
        """queries, keys: of points and of voxels, each (n, dim); queues: (size, dim) of each."""
        losses = {}
        for name, by in (("within", (0, 1)), ("across", (1, 0))):
            found = [self.one(queries[i], keys[j], queues[j]) for i, j in enumerate(by)]
            losses[name] = sum(found) / 2
        there = gather_rows(keys[1])
        mine = torch.arange(len(keys[0]), device=there.device) + rank() * len(keys[0])
        retrieved = ((queries[0] @ there.T).argmax(1) == mine).float().mean()
        chance = torch.ones_like(retrieved) / len(there)
        return {"loss": sum(losses.values()), **{f"loss_{name}": loss.detach() for name, loss in losses.items()},
                "retrieved": retrieved, "retrieved_chance": chance}  # fmt: skip

    def one(self, query, key, queue):
        """Of one query (n, dim) each its own key (n, dim) among all of a queue (size, dim): He et al. 2020, eq. 1."""
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], 1) / self.temperature
        return cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))

    def after_step(self, progress):
        for key, query in zip((self.key, self.key_voxels), self.queries):
            key.update(query, self.momentum)

    def parts(self):
        return {"encoder": self.encoder, "voxels": self.voxels}

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: A row is a thing as points, a column another view of a thing as voxels, each cell the cosine of
        their embeddings (black −1, opposite; white 1, the same). On the diagonal, which is to be the lightest, is
        the same thing."""
        first, second = batch["points"][:32].unbind(1)
        points, voxels = self.embed(self.queries[0], first), self.keys(second, batch["key"][:32])[1]
        return {"affinity": affinity(points, voxels)}
