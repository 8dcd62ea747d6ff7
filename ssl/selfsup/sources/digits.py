"""scikit-learn's handwritten digits: 1,797 real grey images of 8x8 pixels."""

import numpy as np

from selfsup.arguments import Count, Share
from selfsup.data import columns
from selfsup.sources import SPLITS, Source, divide


def source(size: Count, val_share: Share, test_share: Share | None = None):
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)
    items, carved = divide({"train": [(f"digit-{i:04d}", i) for i in range(len(pixels))]}, val_share, test_share)

    def read(split, start, stop):
        for key, i in items[split][start:stop]:
            yield key, {"key": key, "image": pixels[i], "label": int(data.target[i])}

    kinds = [columns.picture(size), columns.Number("label")]
    return Source("", {split: len(items[split]) for split in SPLITS}, read, kinds, [str(n) for n in data.target_names],
                  licence="CC BY 4.0; Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI",
                  carved=carved)
