"""Text files, root/[train|val|test/][<class>/…/]name.txt, cut into passages; or the help topics of Python."""

import hashlib
from pathlib import Path
from typing import Annotated

from selfsup.arguments import Range, Share, Text
from selfsup.data.columns import Number, Text as TextColumn
from selfsup.data.files import content
from selfsup.data.images import Unreadable
from selfsup.data.tars import fraction
from selfsup.errors import UserError
from selfsup.sources import SPLITS, UNKNOWN, Source, divide
from selfsup.sources._layout import arranged

EXTENSIONS = ("txt", "md", "rst")
CUT = 64  # most of a passage's characters that are left to the next one, so that no word is cut


def source(val_share: Share, test_share: Share | None = None, root: Text | None = None,
           passage: Annotated[int, Range(ge=16, le=10**6)] = 200):
    """root: a folder of text files in UTF-8; without it the texts are `pydoc_data.topics`, 79 pages on the language in
    every Python, whose content, which differs between Pythons, the card names by its hash. A text is cut into passages
    of at most so many characters, whole words where they are not longer than 64; all of a text are in one split.

    The tokenizer's own limit is 64 tokens: of pieces of words about 200 characters, of characters 62."""
    found = arranged(root, EXTENSIONS, "text", val_share, test_share) if root else None
    documents, carved = _topics(val_share, test_share) if root is None else (_read(root, found), found.carved)
    items = {split: [] for split in SPLITS}
    for split, some in documents.items():
        for key, where, label, text in some:
            if isinstance(text, Unreadable):
                items[split].append((key, where, text))
                continue
            items[split] += [(f"{key}-{i:05d}", where, {"text": part, **label})
                             for i, part in enumerate(passages(text, passage))]
        items[split].sort(key=lambda item: (fraction(item[0]), item[0]))

    def read(split, start, stop):
        for key, where, sample in items[split][start:stop]:
            yield where, sample if isinstance(sample, Unreadable) else {"key": key, **sample}

    counts, classes = {split: len(items[split]) for split in SPLITS}, found.classes if found else None
    kinds = [TextColumn("text")] + [Number("label")] * (classes is not None)
    facts = {} if root else {"text_sha256": _digest()}
    return Source(root or "pydoc_data.topics", counts, read, kinds, classes, licence=UNKNOWN if root else "PSF-2.0",
                  facts=facts, skipped=found.skipped if found else [], carved=carved)


def passages(text, most):
    """A text cut after white space into parts of at most so many characters; those that hold nothing else left out."""
    parts, start = [], 0
    while start < len(text):
        stop = min(start + most, len(text))
        if stop < len(text):
            stop = next((at for at in range(stop, max(stop - CUT, start), -1) if text[at - 1].isspace()), stop)
        parts.append(text[start:stop])
        start = stop
    return [part for part in parts if part.strip()]


def _topics(val_share, test_share):
    from pydoc_data.topics import topics

    items, carved = divide({"train": [(f"topic-{name.replace('.', '%2E')}", name) for name in sorted(topics)]},
                           val_share, test_share)
    return {split: [(key, name, {}, topics[name]) for key, name in items[split]] for split in SPLITS}, carved


def _digest():
    from pydoc_data.topics import topics

    return hashlib.sha256("\0".join(f"{name}\0{topics[name]}" for name in sorted(topics)).encode()).hexdigest()


def _read(root, found):
    """{split: [(key, where, {label}, text or why there is none)]}."""
    def one(name, path):
        try:
            label = found.label(name)
            text = content(Path(root, path)).decode("utf-8-sig")
        except UnicodeDecodeError:
            return {}, Unreadable("not UTF-8")
        except Unreadable as error:
            return {}, error
        return label, text if text.strip() else Unreadable("an empty text")

    return {split: [(key, f"{root}/{path}", *one(name, path)) for key, name, path in found.items[split]]
            for split in SPLITS}
