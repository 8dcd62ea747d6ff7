"""DeepCluster: cluster the features, learn to predict the clusters, again and again."""

import torch
import torch.nn as nn

from ..arguments import Clusters, Rounds, Width
from ..core import cluster, rng
from ..core.precision import cross_entropy
from ..errors import UserError
from ..inputs.views import View
from .base import Method, denormalise, rows


class DeepCluster(Method):
    """Caron et al. 2018, "Deep Clustering for Unsupervised Learning of Visual Features", eqs. 1 and 2, section 3.3.
    https://arxiv.org/abs/1807.05520

    Before each epoch: PCA to `pca` dimensions, whitening, unit length, k-means; the clusters are the epoch's labels, and
    the classifier starts anew, since a cluster's number means nothing from one epoch to the next.
    clusters: ten times the classes of the data unless given, the paper's ratio (10,000 on ImageNet).
    pca: the paper keeps 256 of AlexNet's 4,096 dimensions. It must be well below the encoder's: whitening all of them
    makes their noise as large as the rest.
    The paper draws images uniformly over the clusters, which it says amounts to weighting an image's loss by the inverse
    of the size of its cluster: so it is done here. Its Sobel filter is left out, so
    that the encoder takes the same images as everybody's; crops have at least 20 % of an image's area, the authors' 8 %.
    Features are standardised before the classifier: on small data
    an epoch has few steps, and a fresh classifier learns nothing in them from features of any mean and scale.
    """

    inputs = View(augment="crop_flip")
    held_out = False  # only training images have a cluster
    means = True
    sensitive = ("clusters", 30)  # the paper varies their number; of few images few clusters

    def __init__(self, encoder, card, clusters: Clusters | None = None, pca: Width = 64, iterations: Rounds = 20):
        super().__init__(encoder)
        images = card["counts"]["train"]
        self.clusters = clusters or 10 * len(card["classes"])
        if not 1 < self.clusters <= images:
            raise UserError(f"deepcluster cannot make {self.clusters} clusters of {images} images: set args.clusters")
        self.pca, self.iterations = pca, iterations
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False)
        self.classifier = nn.Linear(encoder.dim, self.clusters)
        self.register_buffer("label", torch.full((images,), -1))  # cluster of each training image, -1 before the first epoch
        self.register_buffer("weight", torch.ones(self.clusters))

    @torch.no_grad()
    def before_epoch(self, run):
        features = cluster.whiten(run.embed().to(self.label.device), self.pca)
        label, _ = cluster.kmeans(features, self.clusters, seed=rng.key(run.seed, run.epoch), iterations=self.iterations)
        sizes = label.bincount(minlength=self.clusters)
        used = int((sizes > 0).sum())
        run.log(clusters=used)
        if self.label[0] >= 0:
            run.log(nmi=cluster.nmi(self.label, label))
        self.label.copy_(label)
        self.weight.copy_(len(label) / (used * sizes.clamp(min=1)))  # 1 on average over the images
        fresh = rng.normal(rng.key(run.seed, run.epoch), *self.classifier.weight.shape)  # the same on every rank
        self.classifier.weight.copy_(0.01 * fresh)
        self.classifier.bias.zero_()
        run.restart(self.classifier)

    def logits(self, x):
        return self.classifier(self.norm(self.encoder(x)))

    def forward(self, batch):
        label = self.label[batch["index"]]
        logits = self.logits(batch["image"])
        # Not cross_entropy's own weight: it divides by the weights of the batch, which are other ones on every rank.
        loss = (self.weight[label] * cross_entropy(logits, label, reduction="none")).mean()
        return {"loss": loss, "accuracy": (logits.argmax(1) == label).float().mean()}

    @torch.no_grad()
    def pictures(self, batch):
        """clusters: A row is a cluster, the most frequent one on top, with up to eight images that the network puts
        into it; white where there are no more. Images of a row are to be alike."""
        x = denormalise(batch["image"])
        label = self.logits(batch["image"]).argmax(1)
        sheet = x.new_ones(8, 8, *x.shape[1:])  # (column, row, C, H, W)
        for row, most in enumerate(label.bincount().argsort(descending=True)[:8]):
            members = x[label == most][:8]
            sheet[: len(members), row] = members
        return {**super().pictures(batch), "clusters": rows(sheet)}
