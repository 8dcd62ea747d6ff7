"""The tokenizer of a data set's texts."""

import os
from pathlib import Path

import numpy as np

from selfsup.data import tars
from selfsup.errors import UserError

LONGEST = 64  # tokens a text, start and end included
VOCABULARY = {"pieces": 1000, "words": 4000, "characters": 1000}  # most tokens, by what a token is
SPECIAL = ("[PAD]", "[START]", "[END]", "[UNK]")  # token ids 0 … 3


def tokenizer(shards_dir):
    """The `tokenizers.Tokenizer` that the shard stage trained on the training captions. It pads with 0, to the longest
    sentence of those it is given together, and cuts at 64 tokens."""
    path = Path(shards_dir) / "tokenizer.json"
    if not path.exists():
        tars.card_of(shards_dir)
        raise UserError(f"{shards_dir} has no captions, hence no tokenizer ({path} does not exist)")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UserError("captions need the package tokenizers: pip install tokenizers") from None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it warns at every fork otherwise
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more precise
        raise UserError(f"the tokenizer {path} is damaged ({error}); get it back with `dvc checkout`") from None


def train(captions, unit="pieces"):
    """A small `tokenizers.Tokenizer` that pads with 0 and cuts at LONGEST, the number of tokens of the longest of
    `captions`, and how often each token occurs in them.

    unit: "pieces" of words by byte-pair encoding, the most frequent "words", both in lower case, or "characters", as
    they are."""
    from tokenizers import processors

    model, trainer = (_pieces if unit == "pieces" else _wholes)(unit)
    model.train_from_iterator(captions, trainer)
    model.post_processor = processors.TemplateProcessing(single="[START] $A [END]",
                                                         special_tokens=[("[START]", 1), ("[END]", 2)])
    model.enable_truncation(LONGEST)
    encoded = [encoding.ids for encoding in model.encode_batch(captions)]
    model.enable_padding(pad_id=0, pad_token="[PAD]")
    counts = np.bincount(np.concatenate(encoded), minlength=model.get_vocab_size())
    return model, max(map(len, encoded)), counts.tolist()


def _pieces(unit):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    model = Tokenizer(models.BPE(unk_token="[UNK]"))
    model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    size = VOCABULARY[unit]
    return model, trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False,
                                      limit_alphabet=size // 2, initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"))


def _wholes(unit):
    """Tokens that are not put together of others."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    model = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    if unit == "words":
        model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        model.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        model.normalizer = normalizers.NFC()
        model.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        model.decoder = decoders.Fuse()
    return model, trainers.WordLevelTrainer(vocab_size=VOCABULARY[unit], special_tokens=list(SPECIAL),
                                            show_progress=False)
