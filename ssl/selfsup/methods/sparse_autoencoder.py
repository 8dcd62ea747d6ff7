"""Sparse autoencoder: an image from few of many features."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..errors import UserError
from ..nets import map_side
from ..views import View
from .base import Method, denormalise, rows

RMS = 0.2  # of an atom, in standard deviations of pixels


class SparseAutoencoder(Method):
    """Ranzato et al. 2007, section 2 (an encoder that predicts the code); the loss is Lee et al. 2006, eq. 3 and its L1:
    ‖x − x̂‖² + λ‖h‖₁. https://papers.nips.cc/paper/3112, https://papers.nips.cc/paper/2979; Le et al. 2012,
    https://arxiv.org/abs/1112.6209

    h (N, K, s, s) is the encoder's own map after a ReLU, so that what is made sparse is what is transferred. The decoder
    is a dictionary of K square atoms; each place of the map paints one patch, x̂ = Σₖ hₖ·atomₖ, and patches do not
    overlap. Atoms have a fixed length, Lee's constraint on the bases: else small h and large atoms would cost nothing and
    λ would do nothing. It is such that the coefficients of a normalised encoder at its start paint images of about the
    right contrast. Lee solves for each image's h; here the encoder gives it, as in Ranzato and Le.
    sparsity: λ, where ‖x − x̂‖² is the mean over an image's values (normalised) and ‖h‖₁ the mean over its patches.
    """

    inputs = View("none")

    def __init__(self, encoder, card, sparsity=0.02):
        super().__init__(encoder)
        side = map_side(encoder, card["size"])
        if card["size"] % side:
            raise UserError(f"sparse_autoencoder: images of {card['size']} pixels do not divide into {side} patches a side")
        if sparsity < 0:
            raise UserError(f"sparse_autoencoder: sparsity must not be negative, it is {sparsity}")
        self.sparsity, self.patch = sparsity, card["size"] // side
        self.directions = nn.Parameter(0.02 * torch.randn(encoder.dim, card["channels"], self.patch, self.patch))
        self.bias = nn.Parameter(torch.zeros(card["channels"]))

    @property
    def atoms(self):
        """The dictionary (K, C, patch, patch), each atom with a root mean square of RMS."""
        unit = F.normalize(self.directions.flatten(1), dim=1)
        return (RMS * unit.shape[1] ** 0.5 * unit).view_as(self.directions)

    def forward(self, batch):
        x = batch["image"]
        h = self.encoder.features(x).relu()
        error = (self.decode(h) - x).square().mean()
        penalty = h.sum(1).mean()
        zeros = (h < 1e-2).float().mean()  # 0.01 · RMS is not seen
        return {"loss": error + self.sparsity * penalty, "error": error.detach(), "zeros": zeros}

    def decode(self, h):
        return F.conv_transpose2d(h, self.atoms, self.bias, stride=self.patch)

    @torch.no_grad()
    def pictures(self, batch):
        """atoms: the 64 that these images use most, each stretched to 0..1."""
        x = batch["image"]
        h = self.encoder.features(x).relu()
        most = h.sum((0, 2, 3)).argsort(descending=True)[:64]
        atoms = torch.stack([denormalise(atom) for atom in self.atoms[most]])
        sheet = rows(atoms[: len(atoms) // 8 * 8].unflatten(0, (-1, 8)).transpose(0, 1))
        reconstruction = rows(denormalise(torch.stack([x[:8], self.decode(h[:8])], 1)))
        return {"atoms": sheet, "image_reconstruction": reconstruction}
