"""Encoders of tokens: what a method puts beside its encoder of images, and what the encoders of text are built of."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .blocks import Block


class TextTransformer(nn.Module):
    """Token ids (N, L), 0 is padding -> text features (N, dim): the mean over the tokens that are not padding.

    Captions longer than `length` tokens are cut.
    """

    takes = "caption"

    def __init__(self, vocabulary, length=32, dim=128, depth=2, heads=4):
        super().__init__()
        self.length, self.dim = length, dim
        self.embed = nn.Embedding(vocabulary, dim)
        # CLIP's scales. Tokens of the size 1, PyTorch's, would drown their places, and the order of words with them.
        self.embed.weight.data.mul_(0.02)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.01)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def prepare(self, tokens):
        return tokens

    def states(self, tokens, causal=False):
        """Token ids (N, L), L at most `length` -> states (N, L, dim): the embedding with its place, and what each block
        gives, the last one normalised. causal: the state at a place knows this token and those before it alone."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        # Every position attends to real tokens; the first one always counts, so that no row of the softmax is empty.
        mask = ((tokens != 0) | (places == 0))[:, None, None, :]
        if causal:
            mask = mask & (places <= places[:, None])
        states = [x]
        for block in self.blocks:
            states.append(block(states[-1], mask))
        states[-1] = self.norm(states[-1])
        return states

    def forward(self, tokens):
        tokens = tokens[:, : self.length]
        return pooled(self.states(tokens)[-1], tokens)


def pooled(states, tokens):
    """The mean (N, dim) of states (N, L, dim) over the tokens (N, L) that are not padding; 0 where all are."""
    real = (tokens != 0)[:, :, None].to(states.dtype)
    return (states * real).sum(1) / real.sum(1).clamp(min=1)


def as_map(states, tokens):
    """States (N, L, dim) as a map (N, dim, 1, L) for those who average maps: 0 at padding, and the rest so much larger
    that the mean over all places is `pooled`."""
    real = (tokens != 0)[:, :, None].to(states.dtype)
    share = real.mean(1, keepdim=True).clamp(min=1 / tokens.shape[1])
    return (states * real / share).transpose(1, 2)[:, :, None]


def reversed_texts(values, tokens):
    """values (N, L, …) with those of each text, its tokens (N, L) that are not padding, in reverse order; what stands
    at padding, which comes after them, stays. Its own inverse."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    length = (tokens != 0).sum(1, keepdim=True)
    index = torch.where(places < length, length - 1 - places, places)
    return values.gather(1, index.view(*index.shape, *[1] * (values.dim() - 2)).expand_as(values))


class Tied(nn.Module):
    """Logits (…, vocabulary) of vectors (…, dim) by an embedding's weights, of which the first rows are the tokens'."""

    def __init__(self, vocabulary):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x, embedding):
        return F.linear(x, embedding[: len(self.bias)], self.bias)
