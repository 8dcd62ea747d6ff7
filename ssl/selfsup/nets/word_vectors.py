"""A vector for each word, and nothing else: a text is the mean of its words', in whatever order."""

import torch.nn as nn

from ..arguments import Vocabulary, Width
from ..layers import as_map, pooled


class WordVectors(nn.Module):
    """Token ids (N, L) -> features (N, dim): the mean of the vectors of the tokens that are not padding.

    What word2vec trains (Mikolov et al. 2013, https://arxiv.org/abs/1310.4546), started as its code does, evenly in
    ±1 / (2 · dim); untrained it is a bag of words behind a random projection. vocabulary: the data's.
    """

    takes = "text"

    def __init__(self, vocabulary: Vocabulary = 1000, dim: Width = 100):
        super().__init__()
        self.dim, self.vocabulary = dim, vocabulary
        self.embed = nn.Embedding(vocabulary, dim)
        nn.init.uniform_(self.embed.weight, -0.5 / dim, 0.5 / dim)

    def prepare(self, column):
        """Token ids as readers give them."""
        return column

    def states(self, tokens):
        """The vectors (N, L, dim), the only layer there is."""
        return [self.embed(tokens)]

    def layers(self, x):
        """One map (N, dim, 1, L), of which the mean over the places is that over the tokens."""
        return [as_map(states, x) for states in self.states(x)]

    def features(self, x):
        return self.layers(x)[-1]

    def forward(self, x):
        return pooled(self.embed(x), x)
