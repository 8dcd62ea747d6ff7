"""word2vec: a word's vector tells the words around it from words drawn at random."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Count, Positive
from ..core import rng
from ..core.precision import float32
from ..errors import UserError
from ..inputs.tokens import WORDS, Tokens, windows
from ..training.losses import mean_where
from .base import Method, affinity

POWER = 0.75  # of a word's frequency, in the noise: section 2.2
NOISE = 11  # salt: those of windows are others


class Word2Vec(Method):
    """Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", eq. 4, with
    the subsampling of section 2.3. https://arxiv.org/abs/1310.4546

    log σ(v'_O·v_I) + Σ log σ(−v'_w·v_I) over `negatives` words w drawn as often as count^¾ says, for each word and each
    one in its window; the loss is minus its mean over the pairs of a batch. As the authors' code has it where the paper
    does not say or differs: windows are shrunk at random; a word of frequency f stays with the probability √(t/f) +
    t/f, t = `subsample`; the context's word is the input and the word in the middle the output; a negative that is the
    very word is skipped; vectors start in ±1 / (2 · dim), those of the output at 0. The authors go by one pair after
    the other, rate 0.025; a mean over thousands of pairs wants a rate that is larger as much, or Adam. What is no word,
    a text's start, end and unknown words, is left out. The encoder is `word_vectors`.
    """

    inputs = Tokens()
    sensitive = ("width", 10)  # the authors' page: for skip-gram usually around 10

    def __init__(self, encoder, card, width: Count = 5, negatives: Count = 5, subsample: Positive = 1e-3):
        super().__init__(encoder)
        if not hasattr(encoder, "vocabulary") or not hasattr(encoder, "embed") or hasattr(encoder, "forwards"):
            raise UserError("word2vec needs the encoder word_vectors")
        if "token_counts" not in card:
            raise UserError("word2vec needs how often each token occurs, which these shards do not say: they are from "
                            "before that was counted; make them anew")
        self.width, self.negatives = width, negatives
        count = torch.tensor(card["token_counts"], dtype=torch.float64)
        count[:WORDS] = 0
        keep, noise = kept(count, subsample), count**POWER
        self.register_buffer("keep", keep.float(), persistent=False)
        self.register_buffer("noise", (noise.cumsum(0) / noise.sum().clamp(min=1e-9)).float(), persistent=False)
        self.output = nn.Embedding(len(count), encoder.dim)
        nn.init.zeros_(self.output.weight)

    def forward(self, batch):
        tokens = self.encoder.prepare(batch[self.encoder.takes])
        centre, around = windows(tokens, batch["key"], self.keep, self.width)
        drawn = self.drawn(batch["key"], *around.shape[1:])
        given, middle = self.encoder.embed(around), self.output(centre)
        return of_pairs(given, middle, self.output(drawn), around != 0, drawn != centre[:, :, None, None])

    def drawn(self, key, *shape):
        """Negatives (N, *shape, negatives), words drawn from the noise."""
        u = rng.uniform(key, *shape, self.negatives, salt=NOISE)
        return torch.searchsorted(self.noise, u, right=True).clamp(max=len(self.noise) - 1)

    @torch.no_grad()
    def pictures(self, batch):
        """affinity: Rows and columns are the first 40 words of the vocabulary, the most frequent ones; each cell is the
        cosine of their vectors (black −1, opposite; white 1, the same). The diagonal is a word with itself."""
        words = F.normalize(self.encoder.embed.weight[WORDS : WORDS + 40], dim=1)
        return {"affinity": affinity(words, words)}

    @torch.no_grad()
    def texts(self, batch, tokenizer):
        """The words that are nearest, by cosine, to some from the most frequent on."""
        share = self.noise.diff(prepend=self.noise.new_zeros(1))
        known = share.argsort(descending=True)[: int((share > 0).sum())]
        vectors = F.normalize(self.encoder.embed.weight[known].float(), dim=1)
        some = torch.linspace(0, (len(known) - 1) / 2, min(16, len(known)), device=known.device).long()
        near = (vectors[some] @ vectors.T).topk(min(6, len(known))).indices[:, 1:]  # the first is the word itself
        rows = [[tokenizer.id_to_token(word), ", ".join(map(tokenizer.id_to_token, others))]
                for word, others in zip(known[some].tolist(), known[near].tolist())]
        return {"nearest": (["word", "nearest words"], rows)}


def kept(count, subsample):
    """The probability (vocabulary,) that an occurrence stays, by counts: min(1, √(t/f) + t/f), 0 of what never is."""
    frequency = count / count.sum().clamp(min=1)
    rarer = subsample / frequency.clamp(min=1e-30)
    return torch.where(count > 0, (rarer.sqrt() + rarer).clamp(max=1), 0)


@float32
def of_pairs(given, middle, noise, pair, other):
    """The loss of vectors `given` (N, L, W, D) of the words around `middle` (N, L, D) beside those of noise (N, L, W,
    K, D): where `pair` (N, L, W) says that there is one, and of the noise where it is another word (N, L, W, K)."""
    right = (given @ middle[:, :, :, None])[..., 0]
    wrong = (noise @ given[..., None])[..., 0]
    loss = F.softplus(-right) + (F.softplus(wrong) * other).sum(3)
    return {"loss": mean_where(loss, pair), "accuracy": mean_where((right > 0).float(), pair)}
