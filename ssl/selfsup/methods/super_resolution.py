"""Super-resolution: the image again, from one of a quarter of its side."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Weight, Width
from ..errors import UserError
from ..core.precision import softplus
from ..layers import critic, map_shapes
from ..layers import norm_layer
from ..training.state import frozen
from ..inputs.views import View
from .base import Method, rows

FACTOR = 4


class SuperResolution(Method):
    """Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
    Network" (SRGAN), eqs. 2-4 and 6. https://arxiv.org/abs/1609.04802

    The encoder sees the image made four times smaller and brought back to its size, both bicubically, so that it is an
    encoder of whole images like all others; from all its maps, coarse to fine, comes what bicubic interpolation lacks.
    The paper's SRResNet has no coarser maps, but then no features of an image either. A sub-pixel convolution reaches
    full size, as two do in the paper (section 2.1); GroupNorm stands where it has BatchNorm.
    Left out: eq. 5, the distance in features of a VGG that has learnt ImageNet's labels, which cannot be had offline.
    The content loss is therefore eq. 4 (SRGAN-MSE), and both players start at random, not the generator from SRResNet.
    adversarial: weight of eq. 6 in eq. 3; 0 has no critic (SRResNet). width: channels of what is put on the
    encoder, and of the critic's first layer.
    """

    inputs = View("crop_flip")
    means = True
    sensitive = ("adversarial", 1e-2)  # SRGAN against SRResNet, 0, is the paper's comparison

    def __init__(self, encoder, card, adversarial: Weight = 1e-3, width: Width = 64):
        super().__init__(encoder)
        size, channels = card["size"], card["channels"]
        shapes = map_shapes(encoder, size, channels)
        up, rest = divmod(size, shapes[0][1])
        if size % FACTOR or rest:
            raise UserError(
                f"super_resolution: the side of images, {size} pixels, must be a multiple of {FACTOR} and of that of "
                f"the encoder's first map, {shapes[0][1]}"
            )
        self.adversarial = adversarial
        self.lateral = nn.ModuleList(nn.Conv2d(depth, width, 1) for depth, _ in shapes)
        # Without a norm it stays at bicubic: what is left to predict is small, and the units die on the way there.
        self.paint = nn.Sequential(
            *[norm_layer("group", width), nn.PReLU(), nn.Conv2d(width, width, 3, 1, 1)],
            *[norm_layer("group", width), nn.PReLU(), nn.Conv2d(width, channels * up**2, 3, 1, 1), nn.PixelShuffle(up)],
        )
        self.critic = critic(size, width, channels) if adversarial else None
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(card[name])[:, None, None], persistent=False)

    def enlarged(self, bicubic):
        """Images (N, C, S, S) that bicubic interpolation has enlarged -> the network's (N, C, S, S)."""
        maps = [lateral(features) for lateral, features in zip(self.lateral, self.encoder.layers(bicubic))]
        x = maps.pop()
        while maps:
            finer = maps.pop()
            x = finer + F.interpolate(x.relu(), finer.shape[2:], mode="nearest")
        return bicubic + self.paint(x)

    def psnr(self, image, truth):
        """Mean over images (N, C, S, S) of the peak signal-to-noise ratio in decibels, of pixels in 0..1."""
        image, truth = ((x * self.std + self.mean).clamp(0, 1) for x in (image, truth))
        # Flat images would be infinitely good; rounding to 8 bits alone leaves 59 dB.
        return -10 * (image - truth).square().mean((1, 2, 3)).clamp(min=1e-6).log10().mean()

    def forward(self, batch):
        truth = batch["image"]
        bicubic = resized(shrunk(truth), truth.shape[2:])
        ours = self.enlarged(bicubic)
        error = (ours - truth).square().mean()
        out = {"loss": error}
        if self.critic is not None:
            with frozen(self.critic):
                fooled = softplus(-self.critic(ours)).mean()  # softplus(-logit) = -log D(x)
            judging = softplus(-self.critic(truth)).mean() + softplus(self.critic(ours.detach())).mean()
            # The two players have no parameter in common, so one backward of the sum serves both.
            out["loss"] = error + self.adversarial * fooled + judging
            out |= {"generator": fooled.detach(), "critic": judging.detach()}
        with torch.no_grad():
            out |= {"error": error.detach(), "psnr": self.psnr(ours, truth), "psnr_bicubic": self.psnr(bicubic, truth)}
        return out

    @torch.no_grad()
    def pictures(self, batch):
        """low_bicubic_ours_true: A column is an image of val: from the top a quarter of its side, which is all that the
        network sees; enlarged by bicubic interpolation; by the network; and as it is."""
        truth = batch["image"][:8]
        low = shrunk(truth)
        bicubic = resized(low, truth.shape[2:])
        low = F.interpolate(low, truth.shape[2:], mode="nearest")
        sheet = torch.stack([low, bicubic, self.enlarged(bicubic).to(truth.dtype), truth], 1)
        return {"low_bicubic_ours_true": rows((sheet * self.std + self.mean).clamp(0, 1))}


def shrunk(x):
    """Images (N, C, S, S) at a quarter of their side, antialiased."""
    return resized(x, [side // FACTOR for side in x.shape[2:]])


def resized(x, size):
    return F.interpolate(x.float(), size, mode="bicubic", antialias=True)
