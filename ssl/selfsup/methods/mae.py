"""Masked autoencoder: the hidden patches from the few visible ones."""

from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Depth, Range, Width
from ..core import rng
from ..errors import UserError
from ..layers import Block, sincos
from ..inputs.views import View
from .base import Method, denormalise, rows


class MAE(Method):
    """He et al. 2022, section 3. https://arxiv.org/abs/2111.06377

    The encoder sees only the visible patches. The paper's decoder for ViT-L is 8 blocks of width 512, half of the
    encoder's; here it is 2 blocks, half as wide as the small ViT. `vit` has no class token, and of timm's transformers
    that have one it is encoded with the visible patches; features are the mean of the patches, as for every encoder.
    """

    inputs = View("crop_flip")
    means = True
    sensitive = ("mask", 0.5)  # figure 5

    def __init__(
        self,
        encoder,
        mask: Annotated[float, Range(gt=0, lt=1)] = 0.75,
        width: Width = 64,
        depth: Depth = 2,
        heads: Depth = 4,
    ):
        super().__init__(encoder)
        if not getattr(encoder, "patch", None):
            raise UserError("mae needs the encoder vit or a transformer of timm's, as vit_small_patch16_224, which can "
                            f"encode the visible patches alone, and not {encoder.config['name']}")
        self.mask, self.patch, count = mask, encoder.patch, encoder.grid**2
        self.embed = nn.Linear(encoder.dim, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("position", sincos(encoder.grid, encoder.grid, width), persistent=False)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)], nn.LayerNorm(width))
        self.predict = nn.Linear(width, encoder.channels * self.patch**2)
        if not 0 < self.visible(mask) < count:
            raise UserError(f"mae: mask {mask} of {count} patches leaves none visible or none hidden")

    def visible(self, mask):
        """Number of patches that the encoder sees."""
        return round((1 - mask) * len(self.position))

    def predicted(self, x, key, mask):
        """Predictions (N, hidden, pixels) of hidden patches, and the order (N, T) of patches: visible, then hidden."""
        order = rng.uniform(key, len(self.position)).argsort(1)
        seen = self.visible(mask)
        visible = self.embed(self.encoder.tokens(x, order[:, :seen]))
        hidden = self.mask_token.expand(len(x), order.shape[1] - seen, -1)
        # Positions tell the patches apart, so they can stay in this order: the paper's unshuffling changes nothing.
        tokens = self.blocks(torch.cat([visible, hidden], 1) + self.position[order])
        return self.predict(tokens[:, seen:]), order

    def patches(self, x):
        """Images (N, C, H, W) -> (N, patches, C·patch²)."""
        return F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)

    def forward(self, batch):
        x = batch["image"]
        prediction, order = self.predicted(x, batch["key"], self.mask)
        target = pick(self.patches(x), order[:, -prediction.shape[1] :])
        mean, deviation = statistics(target)
        return {"loss": (prediction - (target - mean) / deviation).square().mean()}

    @torch.no_grad()
    def pictures(self, batch):
        """masked_75, masked_85, masked_95: A column is an image of val: from the top what the encoder sees, the patches
        that are left when so many percent are hidden (grey); the same with what the decoder makes of the hidden
        ones, which get their true mean and contrast, as it is not asked for these; and the image."""
        x, key = batch["image"][:8], batch["key"][:8]
        original = self.patches(x)
        sheets = {}
        for mask in (0.75, 0.85, 0.95):
            prediction, order = self.predicted(x, key, mask)
            hidden = order[:, -prediction.shape[1] :]
            where = hidden[:, :, None].expand_as(prediction)
            # The network predicts patches without their mean and contrast; for the eye they get the true ones back.
            mean, deviation = statistics(pick(original, hidden))
            images = [
                original.scatter(1, where, 0),
                original.scatter(1, where, (prediction * deviation + mean).to(original.dtype)),
                original,
            ]
            images = [F.fold(p.transpose(1, 2), x.shape[2:], self.patch, stride=self.patch) for p in images]
            sheets[f"masked_{round(100 * mask)}"] = rows(denormalise(torch.stack(images, 1)))
        return sheets


def pick(patches, which):
    """(N, T, d) at indices (N, k) -> (N, k, d)."""
    return patches.gather(1, which[:, :, None].expand(-1, -1, patches.shape[2]))


def statistics(patches):
    """Mean and standard deviation (N, T, 1) of each patch."""
    return patches.mean(2, keepdim=True), (patches.var(2, keepdim=True) + 1e-6).sqrt()
