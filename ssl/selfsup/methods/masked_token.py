"""Masked tokens: the hidden words of a text from those on both sides."""

import math
from typing import Annotated

import torch
import torch.nn as nn

from ..arguments import Count, Range
from ..core.cluster import counted
from ..core.distributed import total
from ..errors import UserError
from ..inputs.tokens import Tokens, masked
from ..layers import Tied
from ..training.losses import of_tokens
from .base import Method, likely


class MaskedToken(Method):
    """Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", section
    3.1, task 1. https://arxiv.org/abs/1810.04805

    Cross-entropy on the chosen tokens of a batch, those that stayed as they were among them (`inputs.tokens.masked`).
    The output is run_pretraining.py's of the authors' code: a layer as wide as the encoder, GELU, LayerNorm, the
    weights of the embedding, and a bias. Masks are drawn anew each epoch, as RoBERTa's (Liu et al. 2019, section 4.1),
    which also found the paper's second task, whether two sentences follow each other, not to help; it is left out.
    share, most: of a text's words, those that are chosen at least one. `bits_unigram` and `accuracy_unigram` are those
    of a guess that knows how often each token was chosen in this very batch, and nothing else.
    """

    inputs = Tokens()
    sensitive = ("share", 0.4)  # Wettig et al. 2023 (arXiv 2202.08005): 40 % taught larger BERTs more

    def __init__(self, encoder, card, share: Annotated[float, Range(gt=0, lt=1)] = 0.15, most: Count = 20):
        super().__init__(encoder)
        if not hasattr(encoder, "text") or encoder.causal:
            raise UserError("masked_token needs the encoder token_transformer, reading in both directions, without "
                            "`causal: true`")
        self.share, self.most, self.vocabulary = share, most, card["vocabulary"]
        self.head = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.LayerNorm(encoder.dim))
        self.output = Tied(card["vocabulary"])

    def guessed(self, batch):
        """Logits (N, K, vocabulary) of the tokens (N, K) that are chosen of each text, and whether (N, K) they are: of
        a short text fewer are than the K that a text has at most."""
        tokens = self.encoder.prepare(batch[self.encoder.takes])
        hidden, chosen = masked(tokens, batch["key"], self.vocabulary, self.share, self.most)
        most = min(self.most, max(1, math.ceil(self.share * tokens.shape[1])))
        where = (~chosen).byte().argsort(dim=1, stable=True)[:, :most]
        states = self.encoder.states(hidden)[-1]
        states = states.gather(1, where[:, :, None].expand(-1, -1, states.shape[2]))
        logits = self.output(self.head(states), self.encoder.text.embed.weight)
        return logits, tokens.gather(1, where), chosen.gather(1, where)

    def forward(self, batch):
        logits, target, chosen = self.guessed(batch)
        loss, accuracy = of_tokens(logits, target, chosen)
        # What is not chosen counts as the token 0, which is never chosen.
        count = total(counted((target * chosen).flatten(), self.vocabulary)).float()
        count = torch.where(torch.arange(self.vocabulary, device=count.device) == 0, 0, count)
        share = count / count.sum().clamp(min=1)
        unigram = {"bits_unigram": torch.special.entr(share).sum() / math.log(2), "accuracy_unigram": share.amax()}
        return {"loss": loss, "bits": loss.detach() / math.log(2), "accuracy": accuracy, **unigram}

    @torch.no_grad()
    def pictures(self, batch):
        """guessed: A row is a text, a cell one of its hidden tokens, from left to right, as light as the network
        thought it likely (black for probability 0, or not hidden, white for 1)."""
        logits, target, chosen = (value[:16] for value in self.guessed(batch))
        return {"guessed": likely(logits, target, chosen)}
