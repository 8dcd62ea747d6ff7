"""The tokenizer of a data set's texts."""

import os
from pathlib import Path

from selfsup.data import tars
from selfsup.errors import UserError

LONGEST = 64  # tokens a text, start and end included
VOCABULARY = 1000
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


def train(captions):
    """A small lower-case byte-pair `tokenizers.Tokenizer` that pads with 0 and cuts at LONGEST, and the number of
    tokens of the longest of `captions`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    model = Tokenizer(models.BPE(unk_token="[UNK]"))
    model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False,
                                  limit_alphabet=VOCABULARY // 2, initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"))
    model.train_from_iterator(captions, trainer)
    model.post_processor = processors.TemplateProcessing(single="[START] $A [END]",
                                                         special_tokens=[("[START]", 1), ("[END]", 2)])
    model.enable_truncation(LONGEST)
    longest = max(len(encoding.ids) for encoding in model.encode_batch(captions))
    model.enable_padding(pad_id=0, pad_token="[PAD]")
    return model, longest
