"""LSTMs on the tokens of a text: one that reads forwards, or a second one beside it that reads backwards (ELMo's)."""

from typing import Literal

import torch
import torch.nn as nn

from ..arguments import Depth, Vocabulary, Width
from ..layers import as_map, pooled, reversed_texts


class TokenLSTM(nn.Module):
    """Token ids (N, L) -> features (N, directions · dim): the mean of the last states over the tokens that are not
    padding, those of both directions side by side.

    Peters et al. 2018 (ELMo), section 3.1, https://arxiv.org/abs/1802.05365: the directions share the embedding and
    nothing else, and from the second layer on a layer's input is added to its output. The paper's layers are 4096 wide
    and projected to 512, and its tokens are embedded from their characters; here a layer is as wide as its output, and
    each token has a vector of its own. vocabulary: the data's.
    """

    takes = "text"

    def __init__(
        self,
        vocabulary: Vocabulary = 1000,
        dim: Width = 128,
        depth: Depth = 2,
        directions: Literal[1, 2] = 1,
    ):
        super().__init__()
        self.dim, self.vocabulary, self.directions = directions * dim, vocabulary, directions
        self.embed = nn.Embedding(vocabulary, dim)
        self.forwards = nn.ModuleList(nn.LSTM(dim, dim, batch_first=True) for _ in range(depth))
        self.backwards = nn.ModuleList(nn.LSTM(dim, dim, batch_first=True) for _ in range(depth * (directions - 1)))

    def prepare(self, column):
        """Token ids as readers give them."""
        return column

    def read(self, tokens):
        """Token ids (N, L) -> for each direction the states (N, L, dim) of the embedding and of each layer. A state
        knows its own token and those that come before it in the direction, so that it may be asked for the next."""
        x = self.embed(tokens)
        found = [through(self.forwards, x)]
        if self.directions == 2:
            # Padding is at the end and so is read last: no state of a token has seen it.
            states = through(self.backwards, reversed_texts(x, tokens))
            found.append([reversed_texts(state, tokens) for state in states])
        return found

    def states(self, tokens):
        """Token ids (N, L) -> states (N, L, .dim) of both directions side by side, those of the embedding, twice the
        same, first."""
        return [torch.cat(layer, 2) for layer in zip(*self.read(tokens))]

    def layers(self, x):
        """Maps (N, .dim, 1, L), of which the mean over the places is that over the tokens; the embedding's first."""
        return [as_map(states, x) for states in self.states(x)]

    def features(self, x):
        return as_map(self.states(x)[-1], x)

    def forward(self, x):
        return pooled(self.states(x)[-1], x)


def through(layers, x):
    """The states before the first of the LSTMs and after each: [(N, L, dim), …]."""
    states = [x]
    for number, layer in enumerate(layers):
        out, _ = layer(states[-1])
        states.append(out + states[-1] if number else out)
    return states
