"""Sound files of spoken digits, root/<digit>_<speaker>_<number>.wav, each paired with the picture of one."""

from collections import Counter
from pathlib import Path

import numpy as np

from selfsup.arguments import Count, Positive, Share, Text
from selfsup.data import columns, sound
from selfsup.data.files import content
from selfsup.data.images import Unreadable, blamed
from selfsup.sources import SPLITS, Source, divide
from selfsup.sources._layout import arranged

EXTENSIONS = ("wav", "flac")


def source(root: Text, size: Count, val_share: Share, test_share: Share | None = None, rate: Count = 8000,
           seconds: Positive = 0.5):
    """root: a folder of sound files whose class is the first part of their name, up to "_", as in the Free Spoken Digit
    Dataset (Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset), or the folder that they lie in. A
    sound becomes mono, of `rate` samples a second, cut after `seconds` or padded with silence.

    Pictures are those of scikit-learn, of the same split and class, in turn: which one goes with a sound means nothing
    but its class, as where de Sa 1993 pairs vowels."""
    from sklearn.datasets import load_digits

    found, digits = arranged(root, EXTENSIONS, "sound", val_share, test_share), load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    pictures, _ = divide({"train": [(f"digit-{i:04d}", i) for i in range(len(pixels))]}, val_share, test_share)
    classes = [str(name) for name in digits.target_names]
    by_class = {split: {name: [i for _, i in pictures[split] if digits.target[i] == number]
                        for number, name in enumerate(classes)} for split in SPLITS}
    length, items = round(rate * seconds), {}
    for split in SPLITS:  # which of its class in the split a sound is says which picture it gets
        turns = Counter()
        items[split] = []
        for key, name, path in found.items[split]:
            spoken = _spoken(name)
            items[split].append((key, path, spoken, turns[spoken]))
            turns[spoken] += 1

    def sample(split, key, path, name, turn):
        some = by_class[split].get(name)
        if not some:
            raise Unreadable(f'there is no picture of the class "{name}"')
        with blamed():
            pcm, own = sound.load(content(Path(root, path)))
            pcm = sound.fitted(sound.resampled(pcm, own, rate), 1, length)
        if not np.any(pcm):
            raise Unreadable("a silent sound")
        return {"key": key, "image": pixels[some[turn % len(some)]], "label": classes.index(name), "sound": pcm}

    def read(split, start, stop):
        for key, path, name, turn in items[split][start:stop]:
            try:
                yield f"{root}/{path}", sample(split, key, path, name, turn)
            except Unreadable as error:
                yield f"{root}/{path}", error

    kinds = [columns.picture(size), columns.Number("label"), columns.Sound("sound", (1, length), rate=rate)]
    return Source(f"{root}, with scikit-learn's digits", found.counts, read, kinds, classes,
                  skipped=found.skipped, carved=found.carved)


def _spoken(name):
    """The class of a file: the folder that it lies in, or the first part of its name."""
    folder, _, base = name.rpartition("/")
    return folder.rpartition("/")[2] or base.rpartition(".")[0].partition("_")[0]
