"""Sparse autoencoder: an image from few of many features."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Weight, Width
from ..core.precision import float32
from ..errors import UserError
from ..layers import map_side
from ..inputs.views import View
from .base import Method, denormalise, rows


class SparseAutoencoder(Method):
    """Ranzato et al. 2006 (an encoder that predicts the code); the loss is Lee et al. 2006's, ‖x − x̂‖² + λ‖h‖₁.
    https://papers.nips.cc/paper/3112, https://papers.nips.cc/paper/2979; Le et al. 2012,
    https://arxiv.org/abs/1112.6209

    h (N, K, s, s) is a 1×1 convolution of the encoder's map and a ReLU, so that K can be large where the map is not.
    The decoder is a dictionary of K square atoms; each place of the map paints one patch, x̂ = Σₖ hₖ·atomₖ, and
    patches do not overlap. Atoms have unit norm, which Lee bounds: else small h and large atoms would cost nothing and λ
    would do nothing. Lee solves for each image's h; here the encoder gives it, as in Le (in Ranzato it learns to predict
    what is solved for).
    sparsity: λ, of normalised images; the loss is divided by an image's number of values. An atom is worth using where
    its product with what is left to explain is above λ/2. atoms: K.
    """

    inputs = View("none")
    means = True
    sensitive = ("sparsity", 0.3)  # λ, by which more atoms are worth using

    def __init__(self, encoder, card, sparsity: Weight = 1.0, atoms: Width = 512):
        super().__init__(encoder)
        side = map_side(encoder, card["size"])
        if card["size"] % side:
            raise UserError(
                f"sparse_autoencoder: images of {card['size']} pixels do not divide into {side} patches a side"
            )
        self.sparsity, self.patch = sparsity, card["size"] // side
        self.code = nn.Sequential(nn.Conv2d(encoder.dim, atoms, 1), nn.ReLU())
        # Small against an optimiser's step, so that an atom does not keep the noise it starts as.
        self.directions = nn.Parameter(0.002 * torch.randn(atoms, card["channels"], self.patch, self.patch))
        self.bias = nn.Parameter(torch.zeros(card["channels"]))

    @property
    def atoms(self):
        """The dictionary (K, C, patch, patch) of unit vectors."""
        return F.normalize(self.directions.flatten(1), dim=1).view_as(self.directions)

    def forward(self, batch):
        x = batch["image"]
        h = self.code(self.encoder.features(x))
        error = (self.decode(h) - x).square().mean()
        penalty = float32(torch.sum)(h, (1, 2, 3)).mean() / x[0].numel()
        zeros = (h < 1e-2).float().mean()
        return {"loss": error + self.sparsity * penalty, "error": error.detach(), "zeros": zeros}

    def decode(self, h):
        return F.conv_transpose2d(h, self.atoms, self.bias, stride=self.patch)

    @torch.no_grad()
    def pictures(self, batch):
        """atoms: The 64 building blocks that these images use most: what one number of the code adds to an image. Each
        has a scale of its own: black is where it darkens most, white where it lightens most.
        image_reconstruction: A column is an image of val: above itself, below the sum of the few building blocks
        that its code names."""
        x = batch["image"]
        h = self.code(self.encoder.features(x))
        most = h.sum((0, 2, 3)).argsort(descending=True)[:64]
        atoms = torch.stack([denormalise(atom) for atom in self.atoms[most]])
        sheet = rows(atoms[: len(atoms) // 8 * 8].unflatten(0, (-1, 8)).transpose(0, 1))
        reconstruction = rows(denormalise(torch.stack([x[:8], self.decode(h[:8])], 1)))
        return {"atoms": sheet, "image_reconstruction": reconstruction}
