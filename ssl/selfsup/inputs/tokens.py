"""What becomes of the tokens of a text: read as they are, some hidden, or cut into windows.

Ids below WORDS are no words: 0 is padding, 1 and 2 are a text's start and end, 3 stands for what the vocabulary lacks
(data/text.py). All is drawn from samples' keys, in shapes that do not depend on what is drawn.
"""

from dataclasses import dataclass

import torch

from ..core import rng
from ..core.precision import wide
from .views import keys

PAD, START, END = range(3)
WORDS = 4  # the first id that is a word, or a piece or a character of one
MASK, REPLACE, WHICH, KEEP, REACH = range(1, 6)  # salts: each use of the random numbers has its own


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text as readers give them, int64 (N, L); what the method hides or picks of them it draws itself,
    by `masked` or `windows`, since that needs the vocabulary. `column`: the one that the run's encoder takes."""

    column: str = "text"

    @property
    def columns(self):
        return (self.column,)

    def __call__(self, batch, seed, mean, std):
        return {**batch, self.column: batch[self.column], "key": keys(batch, seed)}


def masked(tokens, key, vocabulary, share=0.15, most=20):
    """Tokens (N, L) of which some are hidden, and which ones those are, bool (N, L) (Devlin et al. 2019, section 3.1).

    Of a text's n words share · n, rounded, are chosen, at least 1 and at most `most`: never padding, start, end or what
    is unknown. A chosen word becomes the token number `vocabulary`, the mask, 8 times of 10, any word, perhaps itself,
    once of 10, and stays once of 10. As create_pretraining_data.py of the authors' code has it, where the masks of a
    text are drawn ten times in all; here once an epoch.
    """
    words, places = tokens >= WORDS, tokens.shape[1]
    count = words.sum(1, keepdim=True)
    count = torch.minimum((count.to(wide(count.device)) * share).round().long().clamp(1, most), count)
    order = rng.uniform(key, places, salt=MASK).masked_fill(~words, 2).argsort(1)
    chosen = order.argsort(1) < count
    what = rng.uniform(key, places, salt=REPLACE)
    other = WORDS + rng.randint(key, vocabulary - WORDS, places, salt=WHICH)
    hidden = torch.where(what < 0.8, vocabulary, torch.where(what < 0.9, other, tokens))
    return torch.where(chosen, hidden, tokens), chosen


def windows(tokens, key, keep, width=5):
    """Each word of a text and those around it: (N, L) and (N, L, 2 · width), 0 where there is none.

    As word2vec.c of Mikolov et al. 2013 has it (https://arxiv.org/abs/1310.4546): first each word stays with the
    probability keep[id], and the others close ranks, so that a window reaches farther; then each word's window is
    shrunk, to 1 … `width` on either side, all alike. keep: (vocabulary,), 0 for what is no word.
    """
    stays = rng.uniform(key, tokens.shape[1], salt=KEEP) < keep[tokens]
    order = (~stays).byte().argsort(dim=1, stable=True)
    centre = (tokens * stays).gather(1, order)
    reach = 1 + rng.randint(key, width, tokens.shape[1], salt=REACH)
    around = []
    for offset in (*range(-width, 0), *range(1, width + 1)):
        other = shifted(centre, offset)
        around.append(other * ((centre != 0) & (reach >= abs(offset))))
    return centre, torch.stack(around, 2)


def shifted(tokens, offset):
    """(N, L) whose place i has what stood at i + offset; 0 where nothing did."""
    n, places = tokens.shape
    offset = max(-places, min(places, offset))
    none = tokens.new_zeros(n, abs(offset))
    return torch.cat([tokens[:, offset:], none] if offset > 0 else [none, tokens[:, :places + offset]], 1)
