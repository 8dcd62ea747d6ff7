"""A transformer on the tokens of a text, reading in both directions as BERT or forwards alone as GPT."""

from typing import Annotated

import torch.nn as nn

from ..arguments import Depth, Range, Vocabulary, Width
from ..layers import TextTransformer, as_map, pooled


class TokenTransformer(nn.Module):
    """Token ids (N, L) -> features (N, dim): the mean of the last states over the tokens that are not padding.

    causal: a state knows its own token and those before it, so that it may be asked for the next (GPT: Radford et al.
    2018, https://openai.com/index/language-unsupervised/); else those of both sides (BERT: Devlin et al. 2019,
    https://arxiv.org/abs/1810.04805). The embedding has a row more than there are tokens: the last one, number
    `vocabulary`, stands where a token is masked. There is no dropout: budgets here are an epoch or few.
    vocabulary, length: the data's.
    """

    takes = "text"

    def __init__(
        self,
        vocabulary: Vocabulary = 1000,
        length: Annotated[int, Range(ge=2, le=2**14)] = 64,
        dim: Width = 128,
        depth: Depth = 4,
        heads: Depth = 4,
        causal: bool = False,
    ):
        super().__init__()
        self.dim, self.vocabulary, self.causal = dim, vocabulary, causal
        self.text = TextTransformer(vocabulary + 1, length, dim, depth, heads)

    def prepare(self, column):
        """Token ids as readers give them, cut to `length`."""
        return column[:, : self.text.length]

    def states(self, tokens):
        """Token ids (N, L) -> states (N, L, dim), those of the embedding first."""
        return self.text.states(tokens, self.causal)

    def layers(self, x):
        """Maps (N, dim, 1, L), of which the mean over the places is that over the tokens; the embedding's first."""
        return [as_map(states, x) for states in self.states(x)]

    def features(self, x):
        return as_map(self.states(x)[-1], x)

    def forward(self, x):
        return pooled(self.states(x)[-1], x)
