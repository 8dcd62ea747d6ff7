"""BiGAN: an encoder that learns to invert a generator, because a critic sees both sides of the pair."""

import torch
import torch.nn as nn

from ..arguments import Norm, Scale, Width
from ..layers import Decoder, critic, map_side
from ..core import rng
from ..core.precision import softplus
from ..training.state import frozen
from ..inputs.views import View
from .base import Method, denormalise, rows


class BiGAN(Method):
    """Donahue et al. 2017, eq. 1-3, with Goodfellow et al. 2014's game for images alone inside it.
    https://arxiv.org/abs/1605.09782, https://arxiv.org/abs/1406.2661

    The critic tells pairs (x, E(x)) of an image and its code from pairs (G(z), z) of a code and its image; E and G
    learn to make them alike, and at the optimum E inverts G. Codes z are uniform on (-1, 1), 200 numbers, as for
    ImageNet in the authors' code, from which also come the swapped labels for E and G instead of the minimax loss, one
    step of all three together, and Adam's β₁ = 0.5. The loss of E and G is the sum of the two, the authors' their mean.
    All else is small; the critic is DCGAN's with GroupNorm where
    theirs has BatchNorm.
    critic_lr: times the learning rate of E and G. width: channels of the critic's first layer. norm: the generator's.
    """

    inputs = View("none")
    means = True
    sensitive = ("critic_lr", 4.0)  # two time-scales (Heusel et al. 2017), at the ratio of Zhang et al. 2019

    def __init__(
        self,
        encoder,
        card,
        code: Width = 200,
        critic_lr: Scale = 1.0,
        width: Width = 32,
        norm: Norm = "batch",
    ):
        super().__init__(encoder)
        size, channels, side = card["size"], card["channels"], map_side(encoder, card["size"])
        area = encoder.dim * side**2
        self.code, self.critic_lr = code, critic_lr
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(area, code))
        start = nn.Sequential(nn.Linear(code, area), nn.ReLU(inplace=True), nn.Unflatten(1, (encoder.dim, side, side)))
        self.generator = nn.Sequential(start, Decoder(encoder.dim, side, size, channels, norm))
        self.critic = PairCritic(size, code, width, channels)

    def encode(self, x):
        """E: images (N, C, S, S) -> codes (N, code)."""
        return self.head(self.encoder.features(x))

    def draw(self, batch, *count):
        """Codes (N, *count, code) of each sample's own."""
        return 2 * rng.uniform(batch["key"], *count, self.code) - 1

    def forward(self, batch):
        x, z = batch["image"], self.draw(batch)
        encoded, generated = (x, self.encode(x)), (self.generator(z), z)
        with frozen(self.critic):
            # Each player wants its pairs taken for the other's:
            # softplus(logit) = -log(1 - D), softplus(-logit) = -log D.
            encoder = softplus(self.critic(*encoded)).mean()
            generator = softplus(-self.critic(*generated)).mean()
        logits = [self.critic(image.detach(), code.detach()) for image, code in (encoded, generated)]
        critic = (softplus(-logits[0]).mean() + softplus(logits[1]).mean()) / 2
        # The critic has no parameter in common with the others, so one backward of the sum serves all.
        players = {"encoder": encoder.detach(), "generator": generator.detach(), "critic": critic.detach()}
        return {"loss": encoder + generator + critic, **players}

    def param_groups(self):
        players = [p for name, p in self.named_parameters() if p.requires_grad and not name.startswith("critic.")]
        judge = {"params": list(self.critic.parameters()), "lr_scale": self.critic_lr}
        return [{**group, "betas": (0.5, 0.999)} for group in ({"params": players}, judge)]

    @torch.no_grad()
    def pictures(self, batch):
        """samples: Images that the generator makes of random codes: no image of the data is behind them.
        image_again: A column is an image of val: above itself, below what the generator makes of the code that the
        encoder gives it. That need not be the same image, since no loss compares them: it is to be one alike."""
        batch = {name: batch[name][:8] for name in ("image", "key")}
        x, z = batch["image"], self.draw(batch, 4)
        samples = self.generator(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        again = self.generator(self.encode(x))
        return {"samples": rows(denormalise(samples)), "image_again": rows(denormalise(torch.stack([x, again], 1)))}


class PairCritic(nn.Module):
    """Images (N, C, size, size), codes (N, code) -> logits (N, 1) that the code is made from the image."""

    def __init__(self, size, code, width, channels):
        super().__init__()
        *trunk, last = critic(size, width, channels)
        self.trunk = nn.Sequential(*trunk)
        self.judge = nn.Sequential(nn.Linear(last.in_features + code, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))

    def forward(self, x, z):
        return self.judge(torch.cat([self.trunk(x), z], 1))
