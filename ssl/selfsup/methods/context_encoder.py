"""Context encoder: fill a removed region from what surrounds it."""

from typing import Literal

import torch
import torch.nn as nn

from ..arguments import Norm, Scale, Weight
from ..core import rng
from ..core.precision import float32, softplus
from ..layers import Decoder, critic, map_side
from ..training.patches import cut
from ..training.state import frozen
from ..inputs.views import View
from .base import Method, denormalise, rows


class ContextEncoder(Method):
    """Pathak et al. 2016, eq. 1-3. https://arxiv.org/abs/1604.07379

    A square of half the side is replaced by the mean colour, at a place of each sample's own: the paper found that
    learning from one fixed place makes poorer features (section 3.3); `region: central` is its inpainting set-up. The
    critic judges the region alone, as in the authors' code for the central one (with random regions, which there are no
    squares, it judges the whole image), and learns at a tenth of the rate (section 5.1);
    `adversarial: 0` has none. It has GroupNorm where theirs has BatchNorm: no statistics for a second use to disturb.
    Left out: the heavier weight on a border of overlap.
    norm: the decoder's, "batch" or "group".
    """

    inputs = View("crop_flip")
    means = True
    sensitive = ("region", "central")  # compared in section 3.3

    def __init__(
        self,
        encoder,
        card,
        reconstruction: Weight = 0.999,
        adversarial: Weight = 0.001,
        region: Literal["random", "central"] = "random",
        critic_lr: Scale = 0.1,
        norm: Norm = "batch",
    ):
        super().__init__(encoder)
        self.weights, self.region, self.critic_lr = (reconstruction, adversarial), region, critic_lr
        size, start = card["size"], map_side(encoder, card["size"])
        self.side = size // 2
        self.channelwise = ChannelwiseLinear(encoder.dim, start)
        self.mix = nn.Conv2d(encoder.dim, encoder.dim, 1)
        self.decoder = Decoder(encoder.dim, start, size, norm=norm)
        self.critic = critic(self.side) if adversarial else None

    def corner(self, batch):
        """The upper left corners (N, 2) of the removed squares: top, left."""
        room = batch["image"].shape[-1] - self.side
        if self.region == "random":
            return rng.randint(batch["key"], room + 1, 2)
        return torch.full_like(batch["key"], room // 2)[:, None].expand(-1, 2)

    def hole(self, image, corner):
        """The removed squares as a mask (N, 1, S, S) of bools."""
        offset = torch.arange(image.shape[-1], device=corner.device) - corner[:, :, None]
        inside = (0 <= offset) & (offset < self.side)
        return inside[:, 0, None, :, None] & inside[:, 1, None, None, :]

    def painted(self, image, hole):
        """The network's image (N, C, S, S), from the context alone; zero is the mean colour of normalised images."""
        features = self.encoder.features(image.masked_fill(hole, 0))
        return self.decoder(self.mix(self.channelwise(features)))

    def region_of(self, image, corner):
        """The squares, cut out: (N, C, side, side)."""
        return cut(image, corner[:, None], self.side)[:, 0]

    def forward(self, batch):
        image, corner = batch["image"], self.corner(batch)
        hole = self.hole(image, corner)
        fill, truth = self.region_of(self.painted(image, hole), corner), self.region_of(image, corner)
        error = (fill - truth).square().mean()
        reconstruction, adversarial = self.weights
        out = {"loss": reconstruction * error}
        if self.critic is not None:
            with frozen(self.critic):
                fooled = softplus(-self.critic(fill)).mean()  # softplus(-logit) = -log D(x)
            real, fake = softplus(-self.critic(truth)).mean(), softplus(self.critic(fill.detach())).mean()
            judging = (real + fake) / 2
            # The two players have no parameter in common, so one backward of the sum serves both.
            out["loss"] = out["loss"] + adversarial * fooled + judging
            out |= {"generator": fooled.detach(), "critic": judging.detach()}
        with torch.no_grad():
            mean_colour = image.masked_fill(hole, 0).sum((2, 3), keepdim=True) / (~hole).sum((2, 3), keepdim=True)
            out["error"], out["error_mean_colour"] = error.detach(), (truth - mean_colour).square().mean()
            out["gradient_energy"], out["gradient_energy_true"] = gradient_energy(fill), gradient_energy(truth)
        return out

    def param_groups(self):
        judge = [] if self.critic is None else list(self.critic.parameters())
        others = [p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("critic.")]
        return [{"params": others}, *([{"params": judge, "lr_scale": self.critic_lr}] if judge else [])]

    @torch.no_grad()
    def pictures(self, batch):
        """masked_filled_true: A column is an image of val: from the top without the region that is removed (grey), with
        what the network fills it with, and as it is."""
        batch = {name: batch[name][:8] for name in ("image", "key")}
        image, hole = batch["image"], self.hole(batch["image"], self.corner(batch))
        filled = torch.where(hole, self.painted(image, hole).to(image.dtype), image)
        return {"masked_filled_true": rows(denormalise(torch.stack([image.masked_fill(hole, 0), filled, image], 1)))}


class ChannelwiseLinear(nn.Module):
    """Each channel of a map (N, C, S, S) fully connected to itself: context reaches the hole's place (section 3.1)."""

    def __init__(self, channels, side):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, side**2, side**2) / side)

    def forward(self, x):
        return torch.einsum("ncp,cpq->ncq", x.flatten(2), self.weight).view_as(x).relu()


@float32
def gradient_energy(x):
    """Mean square of the differences between neighbouring pixels: low for a blurred image."""
    return x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()
