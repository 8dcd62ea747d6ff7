"""Data: sources become shards with a card; `open` reads a split of them in one of two ways behind one interface."""

import os
import sys
from pathlib import Path

from selfsup.data import tars
from selfsup.errors import UserError, nearest

READERS = ("auto", "resident", "streaming")


def open(shards_dir, split, reader="auto", cache="data/cache"):
    """A Split of the shards in `shards_dir`.

    reader "resident": decoded once into a memory-mapped array under `cache`, shared by processes and runs. "streaming":
    read from the tars as one goes. "auto": resident, if the decoded split takes half the machine's memory or less."""
    card = tars.card_of(shards_dir)
    if reader not in READERS:
        raise UserError(f'there is no reader "{reader}"{nearest(reader, READERS)}')
    tars.entries_of(card, shards_dir, split)  # an unknown or empty split is an error now, not at the first batch
    if reader == "auto":
        # Not the free memory: a resumed run must choose the same reader, since their orders differ.
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        decoded = card["counts"][split] * card.get("channels", 3) * card["size"] ** 2
        reader = "resident" if decoded <= memory / 2 else "streaming"
    if reader == "resident":
        from selfsup.data.resident import Resident

        return Resident(shards_dir, card, split, cache)
    from selfsup.data.streaming import Streaming

    return Streaming(shards_dir, card, split)


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


class Split:
    """One split of a data set. `card` is its data card, `columns` what its samples have, `reader` how it is read."""

    reader = ""

    def __init__(self, shards_dir, card, split):
        self.folder, self.card, self.name = str(shards_dir), card, split
        self.entries = tars.entries_of(card, shards_dir, split)
        self.columns = list(card["columns"])
        self.tokenizer = None
        if "caption" in self.columns:
            try:
                self.tokenizer = tokenizer(shards_dir)
            except UserError as error:  # methods that want no captions still work
                self.columns.remove("caption")
                print(f"{shards_dir}: captions are left out: {error}", file=sys.stderr)

    def __len__(self):
        return self.card["counts"][self.name]

    def batches(self, seed, batch, images, rank=0, world=1, start=0, workers=0):
        """Iterate over this rank's part of the training steps `start` … images // batch - 1, each a dict of tensors

        image uint8 (n, C, H, W), label and cluster int64 (n,), caption int64 (n, L) token ids padded with 0, as far as
        there are such, index int64 (n,) position in the split, epoch int64 (n,); n = batch / world.

        Each pair (epoch, sample) comes once, nothing is dropped, a batch may span the border of two epochs. The samples
        are a pure function of seed, batch and step: `start` only says where to begin, rank and workers who reads."""
        if batch % world:
            raise UserError(f"train.batch: {batch} images cannot be split evenly over {world} processes")
        return self._batches(seed, batch, images // batch, rank, world, start, workers)

    def encode(self, captions):
        """Token ids, as many for each caption as the longest training caption has: cut, or padded with 0."""
        length = self.card["caption_length"]
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(length=length, pad_id=0, pad_token="[PAD]")
        return [encoding.ids for encoding in self.tokenizer.encode_batch(captions)]

    def in_order(self, batch=512):
        """All samples once, in the order of the split, as dicts like those of `batches` (epoch is 0)."""
        raise NotImplementedError

    def _batches(self, seed, batch, steps, rank, world, start, workers):
        raise NotImplementedError
