"""DeeperCluster: clusters of the features, in two levels, and rotations, predicted together."""

import torch
import torch.nn as nn

from ..arguments import Clusters, Rounds, Width
from ..core import cluster, rng
from ..core.precision import cross_entropy
from ..errors import UserError
from ..inputs.views import View
from .base import Method


class DeeperCluster(Method):
    """Caron et al. 2019, "Unsupervised Pre-Training of Image Features on Non-Curated Data", eq. 5 and section 4.
    https://arxiv.org/abs/1905.01278

        ℓ(V f(x), y) + ℓ(W_y f(x), z)

    k-means cuts the data into `groups` (m), and each of these, whose sizes on uncurated data differ widely, into clusters
    again. A super-class y is a group and one of the four rotations of the image; the sub-class z is the cluster within
    the group, told apart by a classifier W_y of the super-class's own. So there are 4·m + 4·clusters outputs, of which
    an image meets 4·m + clusters / m.

    clusters: in all groups together (the paper's 320,000 of 96 million images); ten times the classes of the data unless
    given. A group has as many images or clusters / m of them, whichever is less.
    every: epochs between two clusterings, 3 in the paper; all classifiers then start anew.
    pca: as in DeepCluster.
    The authors draw as many images of each super-class, and within it uniformly over its sub-classes. Here, as in deepcluster,
    an image's loss is weighted so that it amounts to the same.
    Clusters are those of the upright images, shared by the four rotations. All four of an image are in the batch.
    Left out: the Sobel filter; features are standardised before the classifiers, both as in deepcluster.
    """

    inputs = View("crop_flip")
    held_out = False  # only training images have a cluster
    means = True
    sensitive = ("every", 1)  # of epochs, of which a short run has few

    def __init__(
        self,
        encoder,
        card,
        groups: Width = 4,
        clusters: Clusters | None = None,
        every: Rounds = 3,
        pca: Width = 64,
        iterations: Rounds = 20,
    ):
        super().__init__(encoder)
        images = card["counts"]["train"]
        clusters = clusters or 10 * len(card["classes"])
        if not groups <= clusters <= images:
            raise UserError(
                f"deepercluster cannot make {clusters} clusters in {groups} groups of {images} images: set args.clusters"
            )
        self.groups, self.clusters = groups, clusters // groups  # of each group
        self.every, self.pca, self.iterations = every, pca, iterations
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False)
        self.coarse = nn.Linear(encoder.dim, 4 * groups)  # V
        self.fine = nn.Linear(encoder.dim, 4 * groups * self.clusters)  # W_y, one below the other
        self.register_buffer("group", torch.full((images,), -1))  # of each training image, -1 before the first epoch
        self.register_buffer("label", torch.full((images,), -1))  # its cluster within the group
        self.register_buffer("weight", torch.ones(groups, self.clusters))  # of an image in it

    @torch.no_grad()
    def before_epoch(self, run):
        if run.epoch % self.every and self.group[0] >= 0:
            return
        key = rng.key(run.seed, run.epoch)
        features = cluster.whiten(run.embed().to(self.label.device), self.pca)
        before = self.group * self.clusters + self.label
        group, _ = cluster.kmeans(features, self.groups, seed=key, iterations=self.iterations)
        sizes = group.bincount(minlength=self.groups)
        for g in range(self.groups):
            inside = (group == g).nonzero()[:, 0]
            k = min(self.clusters, len(inside))
            if k:
                self.label[inside] = cluster.kmeans(features[inside], k, rng.key(key, g), self.iterations)[0]
        self.group.copy_(group)
        after = group * self.clusters + self.label
        self.weight.copy_(balanced(after.bincount(minlength=self.weight.numel()).view_as(self.weight)))
        run.log(clusters=len(after.unique()), smallest_group=int(sizes.min()), largest_group=int(sizes.max()))
        if before[0] >= 0:
            run.log(nmi=cluster.nmi(before, after))
        for salt, layer in enumerate((self.coarse, self.fine)):
            layer.weight.copy_(0.01 * rng.normal(key, *layer.weight.shape, salt=salt))  # the same on every rank
            layer.bias.zero_()
            run.restart(layer)

    def logits(self, x):
        """Over super-classes (N, 4·m), and over each one's sub-classes (N, 4·m, clusters), of images (N, C, S, S)."""
        features = self.norm(self.encoder(x))
        return self.coarse(features), self.fine(features).unflatten(1, (4 * self.groups, self.clusters))

    def forward(self, batch):
        x = batch["image"]
        turned = torch.cat([x.rot90(quarter, (2, 3)) for quarter in range(4)])
        quarters = torch.arange(4, device=x.device).repeat_interleave(len(x))
        group, below = self.group[batch["index"]].repeat(4), self.label[batch["index"]].repeat(4)
        above = 4 * group + quarters
        coarse, fine = self.logits(turned)
        fine = fine[torch.arange(len(fine), device=fine.device), above]
        accuracy = [(logits.argmax(1) == label).float().mean() for logits, label in ((coarse, above), (fine, below))]
        losses = cross_entropy(coarse, above, reduction="none") + cross_entropy(fine, below, reduction="none")
        loss = (self.weight[group, below] * losses).mean()
        return {"loss": loss, "accuracy_super": accuracy[0], "accuracy_sub": accuracy[1]}


def balanced(sizes):
    """Weights (m, k) of an image in each cluster, of which there are `sizes` (m, k): 1 on average over the images, of all
    groups that have some together the same, and so of the clusters within a group."""
    used = (sizes > 0).sum(1, keepdim=True)  # clusters of each group
    return sizes.sum() / ((used > 0).sum() * used * sizes).clamp(min=1)
