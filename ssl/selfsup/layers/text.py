"""A text encoder: what a method puts beside its encoder of images."""

import torch
import torch.nn as nn

from .blocks import Block


class TextTransformer(nn.Module):
    """Token ids (N, L), 0 is padding -> text features (N, dim): the mean over the tokens that are not padding.

    Captions longer than `length` tokens are cut.
    """

    def __init__(self, vocabulary, length=32, dim=128, depth=2, heads=4):
        super().__init__()
        self.length, self.dim = length, dim
        self.embed = nn.Embedding(vocabulary, dim)
        # CLIP's scales. Tokens of the size 1, PyTorch's, would drown their places, and the order of words with them.
        self.embed.weight.data.mul_(0.02)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.01)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens):
        tokens = tokens[:, : self.length]
        real = tokens != 0
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        # Every position attends to real tokens; the first one always counts, so that no row of the softmax is empty.
        mask = (real | (torch.arange(tokens.shape[1], device=tokens.device) == 0))[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        real = real[:, :, None].to(x.dtype)
        return (self.norm(x) * real).sum(1) / real.sum(1).clamp(min=1)
