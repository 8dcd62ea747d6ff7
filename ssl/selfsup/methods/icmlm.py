"""ICMLM: a word that is hidden in a caption is told from the other words and the image."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..arguments import Depth, Weight, Width
from ..core import rng
from ..core.precision import float32
from ..errors import UserError
from ..inputs.views import Pair
from ..layers import Block, TextTransformer, Tied
from ..training.losses import of_tokens
from .base import Method

WHICH = 21  # salt


class ICMLM(Method):
    """Sariyildiz, Perez & Larlus 2020, "Learning Visual Representations with Caption Annotations", the transformer head
    ("tfm"). https://arxiv.org/abs/2008.01392

    −log p(w | the caption without w, the image), one word w hidden in each caption, plus `tags` times −log p(which of
    the concepts stand in the caption | the image), a sum over the concepts. Hidden are concepts only: what an image does
    not show, as "of", would teach nothing about it. The paper takes the frequent nouns, adjectives and verbs; here they
    are those that the data set names as `concepts`. Its text encoder is a pretrained BERT, frozen; here it is a small
    transformer, learned along, so that nothing has to be downloaded. The weight of the tags was not looked up; at a 35th
    of it, the mean over as many concepts, features were below an untrained encoder's (40,960 scenes, width 16).
    dim, depth, heads: of that transformer, and of the layer that then sees words and the places of the image together.
    image: False hides the image from the guess, which shows what the words alone tell; the tags are then all that the
    encoder learns by.
    """

    inputs = Pair("image", "caption", augment="crop")

    def __init__(self, encoder, card, dim: Width = 128, depth: Depth = 2, heads: Depth = 4, tags: Weight = 1.0,
                 image: bool = True):
        super().__init__(encoder)
        if not card.get("concepts"):
            raise UserError("icmlm hides words of captions that say what is seen, and the data set names none: list "
                            "them as its `concepts`")
        self.mask, self.weight = card["vocabulary"], tags
        concepts = torch.tensor(card["concepts"])
        self.register_buffer("concepts", concepts, persistent=False)
        self.register_buffer("concept", torch.zeros(self.mask, dtype=torch.bool).index_fill(0, concepts, True),
                             persistent=False)
        self.reader = Reader(encoder.dim, self.mask, card["caption_length"], dim, depth, heads, image)
        self.tagger = Tagger(encoder.dim, len(concepts))

    def hidden(self, tokens, key):
        """Tokens (N, L) of which each text's one concept, drawn from its key, is the mask; its place (N,), and whether
        there is one at all."""
        could = self.concept[tokens]
        place = rng.uniform(key, tokens.shape[1], salt=WHICH).masked_fill(~could, 2).argmin(1)
        there = could.any(1)
        word = torch.where(there, self.mask, tokens.gather(1, place[:, None])[:, 0])
        return tokens.scatter(1, place[:, None], word[:, None]), place, there

    def guessed(self, batch):
        """Logits (N, vocabulary) of the hidden word, which it is, and whether there is one (N,); logits of the tags."""
        tokens, maps = batch["caption"], self.encoder.features(batch["image"])
        hidden, place, there = self.hidden(tokens, batch["key"])
        return self.reader(hidden, place, maps), tokens.gather(1, place[:, None])[:, 0], there, self.tagger(maps)

    def forward(self, batch):
        logits, target, there, tags = self.guessed(batch)
        loss, accuracy = of_tokens(logits, target, there)
        tag_loss = of_tags(tags, (batch["caption"][:, :, None] == self.concepts).any(1))
        return {"loss": loss + self.weight * tag_loss, "word_loss": loss.detach(), "tag_loss": tag_loss.detach(),
                "accuracy": accuracy}

    @torch.no_grad()
    def texts(self, batch, tokenizer):
        """What is guessed of the first captions' hidden words, of the images in the picture `views`."""
        first = {name: batch[name][:8] for name in ("image", "caption", "key")}
        logits, target, there, _ = self.guessed(first)
        rows = [[str(i), tokenizer.decode(text), *(tokenizer.id_to_token(word) if known else "" for word in words)]
                for i, (text, known, *words) in enumerate(zip(
                    first["caption"].tolist(), there.tolist(), target.tolist(), logits.argmax(1).tolist()), 1)]
        return {"hidden_words": (["view", "caption", "hidden", "guessed"], rows)}


class Reader(nn.Module):
    """The word at a place (N,) of tokens (N, L), as logits (N, vocabulary), from the other tokens and, if there is
    one, an image's map (N, d_image, h, w). The mask is number `vocabulary`."""

    def __init__(self, d_image, vocabulary, length, dim, depth, heads, image):
        super().__init__()
        self.text = TextTransformer(vocabulary + 1, length, dim, depth, heads)
        self.image = nn.Linear(d_image, dim) if image else None
        self.together = Block(dim, heads)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.output = Tied(vocabulary)

    def forward(self, tokens, place, maps):
        x, real = self.text.states(tokens)[-1], tokens != 0
        if self.image:
            seen = self.image(maps.flatten(2).transpose(1, 2))
            x, real = torch.cat([x, seen], 1), torch.cat([real, real.new_ones(seen.shape[:2])], 1)
        x = self.together(x, real[:, None, None, :])
        x = x.gather(1, place[:, None, None].expand(-1, -1, x.shape[2]))[:, 0]
        return self.output(self.head(x), self.text.embed.weight)


class Tagger(nn.Module):
    """Logits (N, concepts) of what is in an image, from its map (N, d_image, h, w)."""

    def __init__(self, d_image, concepts):
        super().__init__()
        self.linear = nn.Linear(d_image, concepts)

    def forward(self, maps):
        return self.linear(maps.mean((2, 3)))


@float32
def of_tags(logits, present):
    """The sum over concepts (N, concepts), in the mean over images."""
    return F.binary_cross_entropy_with_logits(logits, present.float(), reduction="none").sum(1).mean()
