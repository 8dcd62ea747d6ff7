"""SwAV: from one view predict the cluster of another, where clusters are assigned online and evenly."""

from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Proportion, Range, Temperature, Width
from ..core import cluster, distributed
from ..core.distributed import gather_rows
from ..core.precision import float32, normalize
from ..layers import mlp
from ..training.state import Queue
from ..inputs.views import MultiCrop
from .base import Method, denormalise, rows


class SwAV(Method):
    """Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", eqs. 1-6,
    sections 3.1 and 3.2, Algorithm 1. https://arxiv.org/abs/2006.09882

    prototypes: number of clusters, 3,000 in the paper for ImageNet; take fewer than a batch and the queue hold
    together, or samples cannot fill them evenly.
    temperature: of the predictions (τ). epsilon: smoothness of the codes; a loss that stays at log(prototypes) wants a
    smaller one, as the authors' README says, and a run of some hundred steps about 0.02.
    queue: earlier embeddings, of each large view, that help to fill the prototypes once they are as many; collected from
    the share `queue_from` of the budget on: epoch 15 of the paper's 200. 1 is without.
    sinkhorn: False takes the softmax of a sample's own scores for its code, with nothing to keep codes apart. It
    collapses.
    The paper does not move its prototypes in the first of its hundreds of epochs; runs here have few epochs, so they
    always do. The queue is of the global batch, of which each process assigns its share.
    """

    inputs = MultiCrop(6)
    sensitive = ("epsilon", 0.02)  # see above for short runs

    def __init__(
        self,
        encoder,
        hidden: Width = 2048,
        dim: Width = 128,
        prototypes: Width = 3000,
        temperature: Temperature = 0.1,
        epsilon: Annotated[float, Range(ge=0.003, le=1000)] = 0.05,
        queue: Width = 3840,
        queue_from: Proportion = 0.075,
        sinkhorn: bool = True,
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.queues = nn.ModuleList(Queue(queue, dim) for _ in range(2))
        for one in self.queues:
            one.keys.zero_()  # an empty place
        self.temperature, self.epsilon, self.queue_from, self.sinkhorn = temperature, epsilon, queue_from, sinkhorn
        self.register_buffer("queueing", torch.tensor(queue_from <= 0))

    def project(self, batch):
        """Unit vectors (N, V, dim) of all crops, the two large ones first; the only one of a tuple."""
        crops = batch["image"], batch["small"]  # (N, V, C, H, W), of a size each
        features = torch.cat([self.encoder(x.transpose(0, 1).flatten(0, 1)) for x in crops if x.shape[1]])
        return (normalize(self.projector(features), dim=1).unflatten(0, (-1, len(crops[0]))).transpose(0, 1),)

    @torch.no_grad()
    def codes(self, z, queue):
        """Codes (n, prototypes) of one large view's embeddings (n, dim), each row a distribution (section 3.1)."""
        if not self.sinkhorn:
            return (z @ self.prototypes.T / self.epsilon).softmax(1)
        earlier = queue.keys[distributed.rank() :: distributed.world()]
        scores = torch.cat([z, earlier]) @ self.prototypes.T
        full = queue.keys.any(1).all()  # until then they count for nothing, but stay: tensors keep their size
        unused = F.pad((~full).expand(len(earlier)), (len(z), 0))
        return cluster.sinkhorn(scores.masked_fill(unused[:, None], -torch.inf), self.epsilon)[: len(z)]

    @float32
    def objective(self, z):
        """Of unit vectors as `project` gives them."""
        z = z.transpose(0, 1)  # (V, N, dim)
        large = z[:2]
        codes = [self.codes(view, queue) for view, queue in zip(large, self.queues)]
        if self.training:
            for view, queue in zip(large, self.queues):
                queue.push(gather_rows(view) * self.queueing)
        predictions = (z @ self.prototypes.T / self.temperature).log_softmax(2)
        losses = [
            -(code * prediction).sum(1).mean()
            for number, code in enumerate(codes)
            for other, prediction in enumerate(predictions)
            if other != number
        ]
        used = distributed.mean(torch.cat(codes).mean(0))  # share of each prototype in the global batch
        effective = torch.special.entr(used).sum().exp()  # number of prototypes in use
        return {"loss": sum(losses) / len(losses), "used": effective, "embedding": large.flatten(0, 1)}

    @torch.no_grad()
    def after_step(self, progress):
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        self.queueing.fill_(progress >= self.queue_from)

    @torch.no_grad()
    def pictures(self, batch):
        """views: A column is an image of val: above its two large crops, below them its small ones, enlarged. All of
        them are to fall into the same cluster."""
        small = batch["small"][:8].repeat_interleave(2, 3).repeat_interleave(2, 4)
        return {"views": rows(denormalise(torch.cat([batch["image"][:8], small], 1)))}
