"""What is known of the samples of one split in one tar, counted while they are written or read."""

import hashlib
from collections import Counter

import numpy as np
from PIL import Image

SHOWN = 20  # unreadable samples that are named; all are counted


def part_of(split, file, schema):
    """The counts of one split in one tar, before the first sample. `schema`: {column: Column}."""
    part = {"split": split, "file": file, "count": 0, "bad": 0, "reasons": [], "texts": [], "labels": Counter(),
            "hashes": [], "images": 0, "left_out": 0}
    if "image" in schema:
        image = schema["image"]
        part["histogram"] = np.zeros((image.shape[0], np.iinfo(image.dtype).max + 1), np.int64)
    return part


def count_good(part, schema, values, leave=()):
    """values: {column: decoded value}, a text or number as it is. -> whether the sample stays: one of which the hash is
    in `leave` is counted as left out."""
    main = values[next(iter(schema))]
    main = np.ascontiguousarray(main) if isinstance(main, np.ndarray) else str(main).encode()
    found = int.from_bytes(hashlib.blake2b(main, digest_size=8).digest(), "big")
    if found in leave:
        part["left_out"] += 1
        return False
    part["count"] += 1
    part["hashes"].append(found)
    if "label" in schema:
        part["labels"][values["label"]] += 1
    if part["split"] == "train":
        if "image" in schema:
            part["histogram"] += histogram(values["image"])
        part["texts"] += [values[name] for name, column in schema.items() if column.kind == "text"]
    return True


def finish(part):
    """After the last sample."""
    part["hashes"] = np.array(part["hashes"], np.uint64)


def count_bad(part, where, error):
    part["bad"] += 1
    if len(part["reasons"]) < SHOWN:
        part["reasons"].append((where, str(error)))


def histogram(image):
    """(C, H, W), uint8 or uint16 -> how often each value occurs, int64 (C, 256 or 65,536)."""
    if image.dtype == np.uint8:  # Pillow takes half of numpy's time
        return np.array([Image.fromarray(plane).histogram() for plane in image], np.int64)
    return np.stack([np.bincount(plane.ravel(), minlength=np.iinfo(image.dtype).max + 1) for plane in image])


def moments(counts):
    """Per-channel mean and standard deviation, of values in 0 … 1."""
    values = np.arange(counts.shape[1]) / (counts.shape[1] - 1)
    weights = counts / counts.sum(1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.maximum(std, 1 / (counts.shape[1] - 1)).tolist()  # never 0, since images are divided by it
