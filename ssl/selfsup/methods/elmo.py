"""ELMo: two language models, one that reads forwards and one that reads backwards."""

import math

import torch

from .. import nets
from ..errors import UserError
from ..inputs.tokens import Tokens
from ..training.losses import of_tokens
from .base import Method, likely


class ELMo(Method):
    """Peters et al. 2018, "Deep contextualized word representations", section 3.1. https://arxiv.org/abs/1802.05365

    Σ log p(t_k | t_<k) + log p(t_k | t_>k), each of the two as a mean over the tokens of a batch, by the encoder
    `token_lstm` with `directions: 2`; both directions share the embedding and the softmax layer. A text's start is
    guessed by the one that reads backwards and its end by the other, padding by neither. What becomes of the layers for
    a task, eq. 1, is the protocol `layer_mix`. Left out: dropout, and the sampled softmax, for which vocabularies here are too
    small. `bits` is half the loss in bits, the mean of both directions.
    """

    inputs = Tokens()
    sensitive = None

    def __init__(self, encoder, card):
        super().__init__(encoder)
        if getattr(encoder, "directions", 1) != 2:
            raise UserError("elmo needs the encoder token_lstm with `directions: 2`")
        self.predict = nets.build("linear", d_in=encoder.dim // 2, d_out=card["vocabulary"])

    def tokens(self, batch):
        return self.encoder.prepare(batch[self.encoder.takes])

    def logits(self, tokens):
        """Token ids (N, L) -> logits (N, L - 1, vocabulary) of the tokens from the second on, of those before them, and
        of the tokens up to the last but one, of those after them."""
        forwards, backwards = self.encoder.read(tokens)
        return self.predict(forwards[-1][:, :-1]), self.predict(backwards[-1][:, 1:])

    def forward(self, batch):
        tokens = self.tokens(batch)
        later, earlier = self.logits(tokens)
        real = tokens[:, 1:] != 0
        ahead, accuracy = of_tokens(later, tokens[:, 1:], real)
        behind, accuracy_back = of_tokens(earlier, tokens[:, :-1], real)
        bits = (ahead + behind).detach() / (2 * math.log(2))
        return {"loss": ahead + behind, "bits": bits, "accuracy": accuracy, "accuracy_back": accuracy_back}

    def parts(self):
        return {"encoder": self.encoder, "predict": self.predict}

    @torch.no_grad()
    def pictures(self, batch):
        """forwards, backwards: A row is a text, a cell one of its tokens, from left to right, as light as the network
        thought it likely (black for probability 0, or no token, white for 1): forwards from those before it,
        backwards from those after it."""
        tokens = self.tokens(batch)[:16]
        later, earlier = self.logits(tokens)
        real = tokens[:, 1:] != 0
        return {"forwards": likely(later, tokens[:, 1:], real), "backwards": likely(earlier, tokens[:, :-1], real)}
