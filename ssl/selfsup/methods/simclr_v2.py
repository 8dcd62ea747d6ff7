"""SimCLR v2, the first of three runs: pretraining with a deeper projector, which is kept."""

from typing import Annotated

import torch

from .. import nets
from ..arguments import Range, Temperature, Width
from ..core.precision import normalize
from ..inputs.views import Views
from ..training.losses import nt_xent
from .base import Method, affinity


class SimCLRv2(Method):
    """Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners", section 2.
    https://arxiv.org/abs/2006.10029

    SimCLR with a projector of three layers that is as wide as the encoder's features (`hidden`) unless given, and the
    encoder folder holds it: a run of `simclr_v2_finetune` that names this one by `from` goes on from its first layer,
    and one of `simclr_v2_distil` teaches with that. As in simclr no BatchNorm stands after the last layer; the authors'
    code has one. The temperature is SimCLR's for ImageNet.
    """

    inputs = Views(2, augment="simclr")
    sensitive = ("temperature", 0.2)

    def __init__(
        self,
        encoder,
        hidden: Width | None = None,
        dim: Width = 128,
        temperature: Temperature = 0.1,
        layers: Annotated[int, Range(ge=2, le=16)] = 3,
    ):
        super().__init__(encoder)
        widths = {"d_in": encoder.dim, "hidden": hidden or encoder.dim, "d_out": dim}
        self.projector = nets.build("mlp", **widths, layers=layers)
        self.temperature = temperature

    def project(self, batch):
        """Unit vectors (2N, dim), as the only one of a tuple; the views of image i are the rows 2i and 2i + 1."""
        return (normalize(self.projector(self.encoder(batch["image"].flatten(0, 1))), dim=1),)

    def objective(self, z):
        loss, accuracy = nt_xent(z, self.temperature)
        return {"loss": loss, "accuracy": accuracy, "embedding": z}

    def parts(self):
        return {"encoder": self.encoder, "projector": self.projector}

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: Rows and columns are the same views, two of each image after each other; each cell is the cosine of
        two embeddings (black −1, opposite; white 1, the same). The diagonal is a view with itself; what is learned
        are squares of two by two along it that are lighter than the rest: the views of one image."""
        (z,) = self.project({"image": batch["image"][:32]})
        return {**super().pictures(batch), "affinity": affinity(z, z)}
