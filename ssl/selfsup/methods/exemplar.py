"""Exemplar: each training image is a class, its augmented copies are the examples."""

import torch
import torch.nn as nn

from ..arguments import Clusters
from ..core.precision import cross_entropy
from ..errors import UserError
from ..inputs.views import Views
from .base import Method


class Exemplar(Method):
    """Dosovitskiy et al. 2014, "Discriminative Unsupervised Feature Learning with Convolutional Neural Networks", eq. 1.
    https://arxiv.org/abs/1406.6909 (first version)

    A linear layer has a row for each of N seed images: parameters and cost of a step grow with N, which is why later
    methods put a memory bank or the batch's other images in its place. `last_layer` records its parameters.

    exemplars: N, the first images of the training split, all of them unless given; the paper tries up to 32,000.
    Images beyond have no class and no part in the loss, which stays a mean over the N. Where N is to be small, a
    smaller data set is cheaper.
    The views of an image are its copies in a batch. The paper makes up to some hundred once; here they are new ones each
    time, so two suffice. They are SimCLR's crops, flips and colours, not the paper's shifts, scales, rotations, contrasts
    and colours. Its seeds are patches of 32 pixels, here they are whole images.
    Features are standardised before the classifier, as in DeepCluster: few steps to a class leave none for their scale.
    """

    inputs = Views(2, augment="simclr")
    held_out = False  # only training images have a class
    means = True
    sensitive = ("augment", "moco_v1")  # the paper varies how strong its transformations are

    def __init__(self, encoder, card, exemplars: Clusters | None = None):
        super().__init__(encoder)
        images = card["counts"]["train"]
        self.exemplars = exemplars or images
        if not 1 < self.exemplars <= images:
            raise UserError(f"exemplar: {self.exemplars} exemplars cannot be taken from {images} training images")
        self.share = self.exemplars / images
        self.norm = nn.BatchNorm1d(encoder.dim, affine=False)
        self.classifier = nn.Linear(encoder.dim, self.exemplars)

    def forward(self, batch):
        x = batch["image"]  # (N, copies, C, H, W)
        label = batch["index"].repeat_interleave(x.shape[1])
        seed = label < self.exemplars
        logits = self.classifier(self.norm(self.encoder(x.flatten(0, 1))))
        losses = cross_entropy(logits, label.where(seed, 0), reduction="none")
        right = (logits.argmax(1) == label).float()
        # Divided by the number of seeds to be expected: the number in the batch would be another one on every rank.
        loss, accuracy = ((value * seed).mean() / self.share for value in (losses, right))
        last_layer = torch.full((), float(sum(p.numel() for p in self.classifier.parameters())), device=x.device)
        return {"loss": loss, "accuracy": accuracy, "last_layer": last_layer}
