"""SimCLR: two views of an image find each other among all other views of the batch."""

from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Range, Temperature, Width
from ..core.precision import normalize
from ..inputs.views import Views
from ..layers import mlp
from ..training.losses import nt_xent
from .base import Method, affinity


class SimCLR(Method):
    """Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", Algorithm 1 and eq. 1.
    https://arxiv.org/abs/2002.05709

    layers: of the projector; 1 is linear, 0 leaves it out (section 4.2, figure 8). BatchNorm stands between them and not
    after the last, which has a bias; the authors' code has one after each and no bias, the paper names none.
    The temperature is the paper's best for CIFAR-10 (appendix B.9); for ImageNet it is 0.1.
    The views' crops, from 8 % of the area on, take for granted that the object fills the image; where it does not,
    `augment: moco_v1` keeps more of it.
    """

    inputs = Views(2, augment="simclr")
    sensitive = ("temperature", 0.1)  # the best of table 5

    def __init__(
        self,
        encoder,
        hidden: Width = 2048,
        dim: Width = 128,
        temperature: Temperature = 0.5,
        layers: Annotated[int, Range(ge=0, le=16)] = 2,
    ):
        super().__init__(encoder)
        self.projector = mlp(encoder.dim, hidden, dim, layers) if layers else nn.Identity()
        self.temperature = temperature

    def project(self, batch):
        """Unit vectors (2N, dim), as the only one of a tuple; the views of image i are the rows 2i and 2i + 1."""
        return (normalize(self.projector(self.encoder(batch["image"].flatten(0, 1))), dim=1),)

    def objective(self, z):
        """Of unit vectors as `project` gives them; accuracy: the share of views that find their other one."""
        loss, accuracy = nt_xent(z, self.temperature)
        return {"loss": loss, "accuracy": accuracy, "embedding": z}

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: Rows and columns are the same views, two of each image after each other; each cell is the cosine of
        two embeddings (black −1, opposite; white 1, the same). The diagonal is a view with itself; what is learned
        are squares of two by two along it that are lighter than the rest: the views of one image."""
        (z,) = self.project({"image": batch["image"][:32]})
        return {**super().pictures(batch), "affinity": affinity(z, z)}
