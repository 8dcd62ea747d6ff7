"""Another data set's samples, clustered."""

import json
from pathlib import Path
from typing import Annotated

from selfsup.arguments import Count, Range, Text
from selfsup.data import columns, tars
from selfsup.errors import UserError
from selfsup.sources import SPLITS, UNKNOWN, Source


def source(data: Text, root: Text, clusters: Annotated[int, Range(ge=2)], size: Count):
    """The samples of the data set `data`, with a column `cluster` beside what they have: k-means on the unit-length
    features that the encoder in `root` gives the training images; val and test images get the nearest centroid.

    A sample's number is not known before all are embedded, so this happens here, at once, on the CPU."""
    from selfsup import encoder
    from selfsup.data import open

    folder = Path("data/shards") / data  # no dependency of the stage: `root` depends on it, and was trained on it
    teacher = encoder.load(root)
    card = tars.card_of(folder)
    trained = teacher.info["data"]
    if trained["hash"] != card["hash"]:
        other = f"the data set {trained['name']}" if trained["name"] != data else f"another version of {data}"
        raise UserError(f"the encoder in {root} was trained on {other}, not on {folder} as it is now: name an encoder "
                        f"of {data}, or run `dvc repro`")
    if size != card["size"]:
        raise UserError(f"the images of {data} have {card['size']} pixels: size should be that, not {size}")
    if clusters > card["counts"]["train"]:
        raise UserError(f"{card['counts']['train']} training images cannot make {clusters} clusters")
    splits = {name: open(folder, name, "streaming", columns=["image"]) for name in SPLITS if card["counts"][name]}
    schema, numbers = columns.of(card), _clustered(teacher, splits, clusters)

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
    return Source(f"of {data} by {root}", card["counts"], read, kinds, card["classes"] if "label" in schema else None,
                  card.get("licence", UNKNOWN), {"clusters": clusters})


def _clustered(net, splits, count):
    """{split: a cluster's number for each of its samples}."""
    import torch

    from selfsup.core import cluster

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in the same order, whatever the machine's number of cores
    try:
        with torch.no_grad():
            features = {name: torch.nn.functional.normalize(torch.cat(
                [net(net.prepare(part[net.takes])) for part in split.in_order(256)]), dim=1)
                for name, split in splits.items()}
            found, centroids = cluster.kmeans(features["train"], count)
            return {name: (found if name == "train" else cluster.assign(x, centroids)).tolist()
                    for name, x in features.items()}
    finally:
        torch.set_num_threads(threads)
