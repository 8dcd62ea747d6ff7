"""Next-token prediction: each word or character of a text from those before it."""

import math

import torch

from .. import nets
from ..core import rng
from ..errors import UserError
from ..inputs.tokens import END, PAD, Tokens
from ..training.losses import of_tokens
from .base import Method, likely

GIVEN = 8  # tokens of a text that `texts` goes on with


class NextToken(Method):
    """Bengio et al. 2003, "A Neural Probabilistic Language Model", eq. 1 without its penalty; Radford et al. 2019,
    "Language Models are Unsupervised Multitask Learners", eq. 1. https://www.jmlr.org/papers/v3/bengio03a.html
    Schmidhuber & Heil 1996, "Sequential Neural Text Compression", section 3. https://doi.org/10.1109/72.478398

    −(1/T) Σ log p(w_t | w_<t) over the tokens of a batch, those of padding apart; a text's end is one, its start is
    not. Whether they are characters, pieces or words is the data set's `tokens`. The network is the run's encoder:
    `token_transformer` with `causal: true`, or `token_lstm`, which reads each text from its start; of 1996 and 2003 the
    networks see a window of a few tokens. The output layer has weights of its own, as in 2003; GPT-2's are those of the
    embedding. `bits` is the loss in bits a token, of characters that a character: what n-gram models
    (`core.ngram.KneserNey`) of the same vocabulary can be held against.
    """

    inputs = Tokens()
    sensitive = None

    def __init__(self, encoder, card):
        super().__init__(encoder)
        if not hasattr(encoder, "states") or not getattr(encoder, "causal", getattr(encoder, "directions", 2) == 1):
            raise UserError("next_token needs an encoder of tokens that reads forwards alone: token_transformer with "
                            "`causal: true`, or token_lstm")
        self.predict = nets.build("linear", d_in=encoder.dim, d_out=card["vocabulary"])

    def tokens(self, batch):
        return self.encoder.prepare(batch[self.encoder.takes])

    def logits(self, tokens):
        """Token ids (N, L) -> logits (N, L, vocabulary) of what comes after each."""
        return self.predict(self.encoder.states(tokens)[-1])

    def forward(self, batch):
        tokens = self.tokens(batch)
        loss, accuracy = of_tokens(self.logits(tokens[:, :-1]), tokens[:, 1:], tokens[:, 1:] != 0)
        return {"loss": loss, "bits": loss.detach() / math.log(2), "accuracy": accuracy}

    def parts(self):
        return {"encoder": self.encoder, "predict": self.predict}

    @torch.no_grad()
    def pictures(self, batch):
        """guessed: A row is a text, a cell one of its tokens, from left to right, as light as the network thought it
        likely from those before it (black for probability 0, or no token, white for 1)."""
        tokens = self.tokens(batch)[:16]
        return {"guessed": likely(self.logits(tokens[:, :-1]), tokens[:, 1:], tokens[:, 1:] != 0)}

    @torch.no_grad()
    def texts(self, batch, tokenizer):
        """Beginnings of texts, and what is drawn to follow."""
        tokens = self.tokens(batch)[:6]
        drawn = self.continued(tokens[:, :GIVEN], batch["key"][:6], tokens.shape[1])
        rows = [[tokenizer.decode(row[:GIVEN]), tokenizer.decode(row[GIVEN:])] for row in drawn.tolist()]
        return {"generated": (["begins with", "goes on"], rows)}

    def continued(self, tokens, key, length):
        """Texts (N, length) that begin with tokens (N, l): each next one is drawn as likely as it is told to be, from
        the text's key (N,), until the end."""
        for place in range(tokens.shape[1], length):
            uniform = rng.uniform(key, self.predict.out_features, salt=place)
            word = (self.logits(tokens)[:, -1].float() - (-uniform.log()).log()).argmax(1)  # Gumbel's way to draw
            word = torch.where((tokens == END).any(1), PAD, word)
            tokens = torch.cat([tokens, word[:, None]], 1)
        return tokens
