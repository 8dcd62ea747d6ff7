"""Relative patch: where does the second patch lie, seen from the first."""

from typing import Literal

import torch
import torch.nn.functional as F

from ..arguments import Pixels, Width
from ..core import rng
from ..core.precision import cross_entropy, float32
from ..errors import UserError
from ..layers import map_shapes, mlp
from ..training.patches import cut, jittered_grid
from ..inputs.views import View
from .base import Method, denormalise, rows

GREEN_MAGENTA = (-1.0, 2.0, -1.0)  # the axis along which lenses disperse: green shrinks towards the centre (section 3.1)


class RelativePatch(Method):
    """Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context Prediction", section 3.
    https://arxiv.org/abs/1505.05192

    Of nine patches on a jittered grid the encoder sees each by itself; a head on the features of the middle one and of
    one of its neighbours, concatenated, says in which of eight directions that lies. All eight pairs are in the batch.

    patch: side in pixels. Of 32 pixels a cell has 10, so that 8 leave a gap of 2 on average, jittered by up to 2; the
    paper's gap is half a patch of 96 pixels, jittered by 7.
    colour: what is done against chromatic aberration, which gives a patch's place in the image away. "projection" takes
    the green-magenta axis away; "drop" keeps one channel of each patch, drawn at random, and fills the others with noise
    of a hundredth of its deviation; "none" leaves the shortcut open, for the audit. The paper finds the two alike. Here
    whole images, in colour, are what the encoder is judged on, and only "projection" leaves most of that.
    A patch keeps its mean and contrast, by which neighbours are alike; the authors' code takes both away.
    Left out: the random down- and upsampling of patches, which have no pixels to spare here.
    """

    inputs = View("crop")
    means = True
    sensitive = ("colour", "drop")  # the remedies that the paper compares

    def __init__(
        self,
        encoder,
        card,
        patch: Pixels = 8,
        hidden: Width = 512,
        colour: Literal["projection", "drop", "none"] = "projection",
    ):
        super().__init__(encoder)
        if patch > card["size"] // 3:
            raise UserError(f"relative_patch: no 3 × 3 patches of {patch} pixels in images of {card['size']}")
        map_shapes(encoder, patch)  # raises where it cannot take them
        self.patch, self.colour = patch, colour
        self.head = mlp(2 * encoder.dim, hidden, 8)
        # Removes the axis from colours (..., 3) in 0..1, written for colours divided by the data's deviation.
        axis, std = F.normalize(torch.tensor(GREEN_MAGENTA), dim=0), torch.tensor(card["std"])
        removal = (torch.eye(3) - axis[:, None] * axis) * std / std[:, None]
        self.register_buffer("removal", removal, persistent=False)

    @float32
    def patches(self, batch):
        """(N, 9, C, patch, patch), row by row, as the encoder sees them."""
        x, key = batch["image"], batch["key"]
        x = cut(x, jittered_grid(key, x.shape[-1], 3, self.patch), self.patch)
        if self.colour == "projection":
            return torch.einsum("ij,npjhw->npihw", self.removal, x)
        if self.colour == "drop":
            kept = rng.randint(key, 3, 9, 1, 1, 1, salt=1)
            deviation = x.take_along_dim(kept, 2).flatten(2).std(2)[:, :, None, None, None]
            noise = 0.01 * deviation * rng.normal(key, *x.shape[1:], salt=2)
            return torch.where(kept == torch.arange(3, device=x.device).view(3, 1, 1), x, noise)
        return x

    def forward(self, batch):
        features = self.encoder(self.patches(batch).flatten(0, 1)).unflatten(0, (-1, 9))
        middle, around = features[:, 4:5], torch.cat([features[:, :4], features[:, 5:]], 1)
        pairs = torch.cat([middle.expand_as(around), around], 2)  # (N, 8, 2·dim)
        logits = self.head(pairs.flatten(0, 1))
        direction = torch.arange(8, device=logits.device).repeat(len(pairs))
        accuracy = (logits.argmax(1) == direction).float().mean()
        return {"loss": cross_entropy(logits, direction), "accuracy": accuracy}

    @torch.no_grad()
    def pictures(self, batch):
        """patches: A column is an image of val: its nine patches, three by three, row by row, with gaps between them;
        the fifth is the one in the middle. Of each of the others, beside that one, the network is to say in which of
        eight directions it lies."""
        batch = {name: batch[name][:8] for name in ("image", "key")}
        return {**super().pictures(batch), "patches": rows(denormalise(self.patches(batch)))}
