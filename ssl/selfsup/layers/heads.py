"""What methods put on an encoder: projection heads, decoders, critics."""

import torch
import torch.nn as nn

from ..errors import UserError
from .blocks import norm_layer


def linear(d_in, d_out, bias=True):
    """A named linear layer, so that an encoder folder can hold one as a part (N, d_in) -> (N, d_out)."""
    return nn.Linear(d_in, d_out, bias)


class Initial(nn.Linear):
    """A linear layer (N, d_in) -> (N, d_out) that new classes are learned from, by gradient descent at `rate`."""

    def __init__(self, d_in, d_out, rate):
        super().__init__(d_in, d_out)
        self.rate = rate


def standardised(d_in, d_out):
    """A linear layer (N, d_in) -> (N, d_out) on features of mean 0 and variance 1 over the batch, without a bias: what
    it gives depends on how a sample differs from others, and its mean over the batch is 0."""
    return nn.Sequential(nn.BatchNorm1d(d_in, affine=False), nn.Linear(d_in, d_out, bias=False))


def mlp(d_in, hidden, d_out, layers=2, norm=True):
    """Projection head (N, d_in) -> (N, d_out): `layers` linear layers with ReLU, and BatchNorm if `norm`, between."""
    widths = [d_in] + [hidden] * (layers - 1)
    steps = []
    for i, o in zip(widths, widths[1:]):
        steps += [nn.Linear(i, o, bias=not norm), *([nn.BatchNorm1d(o)] if norm else []), nn.ReLU(inplace=True)]
    return nn.Sequential(*steps, nn.Linear(widths[-1], d_out))


class Fusion(nn.Module):
    """Features of images (…, image) and of sounds (…, sound) -> logits (…, 2): they do not belong together, they do.

    Their concatenation through two linear layers with ReLU between; the first is written as a sum, so that shapes are
    broadcast: (N, 1, image) and (M, sound) give all pairs (N, M, 2)."""

    def __init__(self, image, sound, hidden):
        super().__init__()
        self.image = nn.Linear(image, hidden)
        self.sound = nn.Linear(sound, hidden, bias=False)
        self.out = nn.Linear(hidden, 2)

    def forward(self, image, sound):
        return self.out(torch.relu(self.image(image) + self.sound(sound)))


class Decoder(nn.Module):
    """Feature map (N, dim, start, start) -> image (N, channels, size, size): transposed convolutions double the side.

    size must be start · 2^n, or a UserError is raised. norm: "batch" or "group", as in ConvNet.
    """

    def __init__(self, dim, start, size, channels=3, norm="batch", smallest=32):
        super().__init__()
        first, steps = start, []
        while start < size:
            out = max(smallest, dim // 2)
            steps += [nn.ConvTranspose2d(dim, out, 4, 2, 1, bias=False), norm_layer(norm, out), nn.ReLU(inplace=True)]
            dim, start = out, 2 * start
        if start != size:
            raise UserError(
                f"a decoder doubles the encoder's map, which has a side of {first}, and so cannot reach {size} pixels; "
                f"choose another encoder or `size` of the data set"
            )
        self.net = nn.Sequential(*steps, nn.Conv2d(dim, channels, 3, 1, 1))

    def forward(self, x):
        return self.net(x)


def critic(side, width=64, channels=3):
    """DCGAN's critic: images (N, channels, side, side) -> logit (N, 1) that each is a true one.

    GroupNorm, not BatchNorm: no statistics for judging a second batch to disturb.
    """
    steps, first = [], channels
    while side > 3:
        norm = nn.Identity() if channels == first else norm_layer("group", width)
        steps += [nn.Conv2d(channels, width, 4, 2, 1), norm, nn.LeakyReLU(0.2)]
        channels, width, side = width, 2 * width, side // 2
    return nn.Sequential(*steps, nn.Flatten(), nn.Linear(channels * side**2, 1))


@torch.no_grad()
def map_shapes(encoder, size, channels=None):
    """(channels, side) of each of encoder.layers(x) for images of `size` pixels and its own number of channels. Raises
    UserError for images too small for it."""
    training = encoder.training
    try:
        maps = encoder.eval().layers(torch.zeros(1, channels or encoder.channels, size, size))
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the encoder cannot take images, or patches of them, of {size} pixels ({reason})") from None
    encoder.train(training)
    return [(m.shape[1], m.shape[3]) for m in maps]


def map_side(encoder, size, channels=None):
    """Side of encoder.features(x) for images of `size` pixels."""
    return map_shapes(encoder, size, channels)[-1][1]
