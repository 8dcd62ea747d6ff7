"""VirTex: an image's caption is written from its features, once forwards and once backwards."""

import torch
import torch.nn as nn

from ..arguments import Count, Depth, Width
from ..core.precision import float32
from ..errors import UserError
from ..inputs.tokens import END, PAD, START
from ..inputs.views import Pair
from ..layers import Tied, reversed_texts
from ..training.losses import of_tokens
from .base import Method


class VirTex(Method):
    """Desai & Johnson 2021, "VirTex: Learning Visual Representations from Textual Annotations", section 3
    ("bicaptioning"). https://arxiv.org/abs/2006.06666

    Σ log p(c_t | c_<t, image) + Σ log p(c_t | c_>t, image), each of the two as a mean over the tokens of a batch,
    padding apart. Two transformer decoders look at the encoder's whole last map; they share its projection, the
    embedding of the words, and the output layer, whose weights are the embedding's. width, depth, heads: of a
    decoder. beams: of the search for the captions that the report shows. The authors train the encoder at a rate of
    its own, 200 times the decoders', which SGD needs and AdamW does not, and with dropout 0.1, which budgets of a few
    epochs do not need. They flip images and exchange "left" and "right"; the view here is a crop without a flip, as
    clip's.
    """

    inputs = Pair("image", "caption", augment="crop")

    def __init__(self, encoder, card, width: Width = 1024, depth: Depth = 1, heads: Depth = 16, beams: Count = 5):
        super().__init__(encoder)
        if width % heads:
            raise UserError(f"virtex.width: a multiple of its heads, {heads}, not {width}")
        self.head = Bicaptioner(encoder.dim, card["vocabulary"], card["caption_length"], width, depth, heads)
        self.beams = beams

    def forward(self, batch):
        seen, text = self.head.projected(self.encoder.features(batch["image"])), batch["caption"]
        ahead, accuracy = guessed(self.head(seen, text[:, :-1], self.head.forwards), text)
        turned = reversed_texts(text, text)  # before padding, which stays at the end
        behind, accuracy_back = guessed(self.head(seen, turned[:, :-1], self.head.backwards), turned)
        return {"loss": ahead + behind, "accuracy": accuracy, "accuracy_back": accuracy_back}

    @torch.no_grad()
    def captions(self, images):
        """The caption (N, T) that a search with `beams` beams finds likeliest for each image, read forwards."""
        seen = self.head.projected(self.encoder.features(images)).repeat_interleave(self.beams, 0)

        def following(tokens):
            return self.head(seen, tokens, self.head.forwards)[:, -1].float().log_softmax(1)

        return beam_search(following, len(images), self.beams, len(self.head.position), images.device)

    def texts(self, batch, tokenizer):
        """What is written of the first images, those of the picture `views`."""
        written = self.captions(batch["image"][:8])
        rows = [[tokenizer.decode(ours), tokenizer.decode(theirs)]
                for ours, theirs in zip(written.tolist(), batch["caption"].tolist())]
        return {"captions": (["view", "written", "its caption"], [[str(i), *row] for i, row in enumerate(rows, 1)])}


@float32
def guessed(logits, text):
    """Loss and accuracy of the tokens (N, L) of `text` but the first, each by logits (N, L - 1, vocabulary)."""
    return of_tokens(logits, text[:, 1:], text[:, 1:] != PAD)


class Bicaptioner(nn.Module):
    """The authors' textual head (virtex/modules/textual_heads.py): post-norm decoders of words that attend to an
    image's places and to the words before. Weights start at N(0, 0.02), as theirs, where it is 1,024 wide; of
    narrower ones they are larger, for sums of as much: else little of the image would reach the words."""

    def __init__(self, d_image, vocabulary, length, width, depth, heads):
        super().__init__()
        self.image = nn.Linear(d_image, width)
        self.embed = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.empty(length, width))
        self.norm = nn.LayerNorm(width)
        self.forwards, self.backwards = (
            nn.ModuleList(nn.TransformerDecoderLayer(width, heads, 4 * width, 0, "gelu", batch_first=True)
                          for _ in range(depth))
            for _ in range(2)
        )
        self.output = Tied(vocabulary)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02 * (1024 / width) ** 0.5)

    def projected(self, maps):
        """Maps (N, d_image, h, w) -> (N, h · w, width)."""
        return self.image(maps.flatten(2).transpose(1, 2))

    def forward(self, seen, tokens, decoder):
        """Logits (N, L, vocabulary) of what comes after each of tokens (N, L), in the order in which they stand."""
        x = self.norm(self.embed(tokens) + self.position[: tokens.shape[1]])
        later = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        for layer in decoder:
            x = layer(x, seen, tgt_mask=later, tgt_key_padding_mask=tokens == PAD)
        return self.output(x, self.embed.weight)


def beam_search(following, count, beams, longest, device=None):
    """The likeliest texts found, tokens (count, longest) from START to END, with padding behind.

    Of each text the `beams` likeliest beginnings are kept and gone on with. following: those (count · beams, t), the
    beams of a text one after the other, -> log-probabilities (count · beams, vocabulary) of what comes next.
    """
    tokens = torch.full((count, beams, 1), START, device=device)
    score = torch.zeros(count, beams, device=device).index_fill(1, torch.arange(1, beams, device=device), -torch.inf)
    for _ in range(longest - 1):
        log = following(tokens.flatten(0, 1)).unflatten(0, (count, beams)).clone()
        log[..., (PAD, START)] = -torch.inf
        over = (tokens[:, :, -1] == END) | (tokens[:, :, -1] == PAD)
        log[over] = -torch.inf
        log[..., PAD][over] = 0  # what has ended stays as likely as it was
        score, best = (score[:, :, None] + log).flatten(1).topk(beams)
        source, word = best // log.shape[2], best % log.shape[2]
        tokens = torch.cat([tokens.gather(1, source[:, :, None].expand(-1, -1, tokens.shape[2])), word[:, :, None]], 2)
    return tokens[:, 0]
