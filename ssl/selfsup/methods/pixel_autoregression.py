"""Pixel autoregression: each pixel's colour from those before it."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Depth
from ..core import rng
from ..core.cluster import counted
from ..core.distributed import total
from ..core.precision import cross_entropy
from ..errors import UserError
from ..layers import Block
from ..inputs.views import View
from .base import Method, rows


class PixelAutoregression(Method):
    """Chen et al. 2020, "Generative Pretraining from Pixels" (iGPT), section 2.1; van den Oord et al. 2016, eq. 1.
    https://proceedings.mlr.press/v119/chen20s.html, https://arxiv.org/abs/1601.06759

    −log p(x) = −Σ log p(x_t | x_<t) over the tokens of the encoder `pixel_transformer`, in raster order; the loss is
    its mean over tokens, in nats. The best features lie in the middle of the network (section 4.1), so the encoder is
    the lower half and `depth` more blocks of the same width, dropped afterwards, are the upper one.
    A token is one of levels³ colours on a grid, where the paper's 512 come from k-means over pixels. `bits` is the loss
    in bits per dimension, a token standing for three, so it cannot be compared with that of 8-bit channels;
    `bits_unigram` is the same of a model that knows how frequent each colour is in this very batch, and nothing else.
    Tokens start as N(0, 1), beside sines of the size 0.7 for their places; the paper's as 0.02 beside 0.01, about the same
    ratio. The output layer starts at random, the paper's at 0. Taking 0.02 or 0 without the rest was not seen to help: after
    150 steps on scenes (8 × 8 pixels, width 64) the loss on val was 1.80, with a layer of 0 1.99; of another seed with tokens
    of 0.02 2.19, with both 3.06.
    depth, heads: of the upper blocks.
    """

    inputs = View("crop_flip")
    sensitive = ("depth", 2)  # moves the features up in the whole: section 4.1

    def __init__(self, encoder, card, depth: Depth = 4, heads: Depth = 4):
        super().__init__(encoder)
        if not hasattr(encoder, "quantise"):
            raise UserError("pixel_autoregression needs the encoder pixel_transformer, which reads pixels in order")
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(card[name])[:, None, None], persistent=False)
        self.blocks = nn.ModuleList(Block(encoder.dim, heads) for _ in range(depth))
        self.predict = nn.Sequential(nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, encoder.colours))

    def logits(self, tokens):
        """Tokens (N, T) -> logits (N, T, colours) of each, from those before it."""
        h = self.encoder.hidden(tokens)[-1]
        for block in self.blocks:
            h = block(h, self.encoder.causal[: h.shape[1], : h.shape[1]])
        return self.predict(h)

    def forward(self, batch):
        tokens = self.encoder.quantise(batch["image"])
        loss = cross_entropy(self.logits(tokens).flatten(0, 1), tokens.flatten())
        count = total(counted(tokens.flatten(), self.encoder.colours)).float()
        unigram = torch.special.entr(count / count.sum()).sum()
        per_dimension = 3 * math.log(2)  # nats per token in a bit per dimension
        return {"loss": loss, "bits": loss.detach() / per_dimension, "bits_unigram": unigram / per_dimension}

    @torch.no_grad()
    def completed(self, tokens, start, key, salt):
        """Tokens (N, T) whose places from `start` on are drawn from the model, one after the other."""
        tokens, noise = tokens.clone(), rng.uniform(key, tokens.shape[1], salt=salt)
        for place in range(start, tokens.shape[1]):
            share = self.logits(tokens[:, : place + 1])[:, -1].float().softmax(1).cumsum(1)
            tokens[:, place] = (share < noise[:, place, None]).sum(1).clamp(max=self.encoder.colours - 1)
        return tokens

    @torch.no_grad()
    def pictures(self, batch):
        """half_samples_true: A column is an image of val, in few colours and large pixels as the network has it: from
        the top the half that it is given (black what is not), two ways in which it goes on, and the whole image."""
        x, key, middle = batch["image"][:8], batch["key"][:8], self.encoder.pixels // 2
        true = self.encoder.quantise(x)
        samples = [self.completed(true, middle * self.encoder.pixels, key, salt) for salt in (1, 2)]
        images = torch.stack([self.encoder.image(tokens) for tokens in (true, *samples, true)], 1)
        images = (images * self.std + self.mean).clamp(0, 1)  # (N, 4, 3, pixels, pixels)
        images[:, 0, :, middle:] = 0
        images = F.interpolate(images.flatten(0, 1), x.shape[2:], mode="nearest")
        return {"half_samples_true": rows(images.unflatten(0, (-1, 4)))}
