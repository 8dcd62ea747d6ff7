"""Another data set's samples, clustered."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np

from selfsup.arguments import Count, Range, Text
from selfsup.data import columns, tars
from selfsup.data import open as open_split
from selfsup.errors import UserError
from selfsup.sources import SPLITS, UNKNOWN, Source


def source(data: Text, root: Text, clusters: Annotated[int, Range(ge=2)], size: Count):
    """The samples of the data set `data`, with a column `cluster` beside what they have. What is clustered, `root` says.
    An encoder's folder: the unit-length features that it gives the images. data/shards/<data>, the data set itself: the
    statistics of its sounds (`statistics.py`). k-means is of the training samples; those of val and test get the
    nearest centroid.

    A sample's number is not known before all are embedded, so this happens here, at once, on the CPU."""
    folder = Path("data/shards") / data  # where `root` is an encoder no dependency of the stage: it was trained on it
    heard = Path(root) == folder
    card = tars.card_of(folder)
    vectors = of_sounds if heard else of_images(root, folder, card)
    if size != card["size"]:
        raise UserError(f"the images of {data} have {card['size']} pixels: size should be that, not {size}")
    if heard and "sound" not in card["columns"]:
        raise UserError(f"{folder} has no sound that could be clustered (it has {', '.join(card['columns'])}): name an "
                        "encoder as `root`")
    if clusters > card["counts"]["train"]:
        raise UserError(f"{card['counts']['train']} training images cannot make {clusters} clusters")
    splits = {name: open_split(folder, name, "streaming", columns=["sound" if heard else "image"])
              for name in SPLITS if card["counts"][name]}
    schema, numbers = columns.of(card), _clustered(vectors, splits, clusters)

    def read(split, start, stop):
        for entry in splits[split].entries:
            if entry["first"] + entry["count"] <= start or entry["first"] >= stop:
                continue
            for position, (key, group) in enumerate(tars.members(str(folder), entry), entry["first"]):
                if start <= position < stop:
                    sample = {name: column.parse(column.find(group)) for name, column in schema.items()}
                    meta = {"meta": json.loads(group["json"])} if "json" in group else {}
                    yield key, {"key": key, **sample, "cluster": numbers[split][position], **meta}

    kinds = [*schema.values(), columns.Number("cluster")]
    classes = card["classes"] if "label" in schema else None
    return Source(f"of {data} by {'its sound' if heard else root}", card["counts"], read, kinds, classes,
                  card.get("licence", UNKNOWN), {"clusters": clusters})


def of_images(root, folder, card):
    """splits -> {split: unit features of its images by the encoder in `root`}."""
    import torch

    from selfsup import encoder

    net = encoder.load(root)
    trained, data = net.info["data"], folder.name
    if trained["hash"] != card["hash"]:
        other = f"the data set {trained['name']}" if trained["name"] != data else f"another version of {data}"
        raise UserError(f"the encoder in {root} was trained on {other}, not on {folder} as it is now: name an encoder "
                        f"of {data}, or run `dvc repro`")
    return lambda splits: {name: torch.nn.functional.normalize(torch.cat(
        [net(net.prepare(part[net.takes])) for part in split.in_order(256)]), dim=1) for name, split in splits.items()}


def of_sounds(splits):
    """{split: the statistics of its sounds}, scaled as those of train ask for."""
    import torch

    from selfsup.sources.clusters.statistics import scales_of, statistics, together

    def groups(split):
        rate = columns.of(split.card)["sound"].rate
        parts = [statistics(part["sound"].numpy().mean(1) / 2**15, rate) for part in split.in_order(256)]
        return [np.concatenate(group) for group in zip(*parts)]

    found = {name: groups(split) for name, split in splits.items()}
    scales = scales_of(found["train"])
    return {name: torch.from_numpy(together(some, scales)) for name, some in found.items()}


def _clustered(vectors, splits, count):
    """{split: a cluster's number for each of its samples}."""
    import torch

    from selfsup.core import cluster

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in the same order, whatever the machine's number of cores
    try:
        with torch.no_grad():
            features = vectors(splits)
            found, centroids = cluster.kmeans(features["train"], count)
            return {name: (found if name == "train" else cluster.assign(x, centroids)).tolist()
                    for name, x in features.items()}
    finally:
        torch.set_num_threads(threads)
