"""A torchvision data set by its class name, from files that are already at `root` (or made by the class itself)."""

import inspect
import os

import numpy as np
from PIL import EpsImagePlugin

from selfsup.arguments import Count, Share, Text
from selfsup.data import columns
from selfsup.data.images import Unreadable
from selfsup.errors import UserError, nearest
from selfsup.sources import SPLITS, Source, divide, listed, numbered


SPLITTING = ("train", "split", "image_set")  # arguments of torchvision's classes that say which split
NAMED = {"train": ["train", "trainval", "train-standard"], "test": ["test"], "val": ["val", "valid"]}


def source(dataset: Text, root: Text, size: Count, val_share: Share, test_share: Share | None = None,
           unlabelled: bool = False):
    """dataset: the class. unlabelled: the images of its split `unlabeled` (STL-10) are for training, without a
    label."""
    EpsImagePlugin.gs_binary = False  # its classes open any format, and PostScript is a program
    if os.path.isdir(root):
        listed(root)  # for its errors
    made = splits(dataset, root, unlabelled=unlabelled)
    try:
        labelled = _is_label(made["train"][0][1])
        classes = _classes(made["train"]) if labelled else None
    except Exception as error:  # each class of torchvision reads its files in its own way
        raise UserError(f"torchvision's {dataset} in {root} gives no pairs of an image and what belongs to it "
                        f"({type(error).__name__}: {error})") from None
    keyed = {split: [(f"{split}-{i:07d}", (split, i)) for i in range(len(data))] for split, data in made.items()}
    items, carved = divide({split: some for split, some in keyed.items() if split in SPLITS}, val_share, test_share,
                   keyed.get("unlabeled", ()))

    def read(split, start, stop):
        for key, (part, i) in items[split][start:stop]:
            name = f"{dataset} {key}"
            try:
                image, target = made[part][i][:2]
            except Exception as error:  # each class of torchvision reads its files in its own way
                yield name, Unreadable(f"{type(error).__name__}: {error}")
                continue
            sample = {"key": key, "image": image}
            if labelled:
                sample["label"] = -1 if part == "unlabeled" else int(target) if _is_label(target) else target
            yield name, sample

    kinds = [columns.picture(size)] + [columns.Number("label")] * labelled
    return Source(dataset, {split: len(items[split]) for split in SPLITS}, read, kinds, classes,
                  licence="unknown; see torchvision's documentation", carved=carved)


def splits(name, root, download=False, unlabelled=False):
    """{split: data set} of a torchvision class; at least "train", the others where the class has them."""
    import torchvision.datasets

    base = torchvision.datasets.VisionDataset
    known = {key: kind for key, kind in vars(torchvision.datasets).items()
             if inspect.isclass(kind) and issubclass(kind, base) and kind is not base}
    if name not in known:
        raise UserError(f'torchvision has no data set "{name}"{nearest(name, known)}')
    make = known[name]
    takes = inspect.signature(make).parameters
    wants = [key for key, parameter in takes.items() if key not in ("root", *SPLITTING)
             and parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD]
    if wants:
        raise UserError(f"torchvision's {name} wants more than a root: {', '.join(wants)}; lay its images out in folders or tars "
                        "and take the source folder, parquet or webdataset")
    given = {"root": str(root)} if "root" in takes else {}
    if "download" in takes:
        given["download"] = download
    elif download and "root" in takes:
        raise UserError(f"torchvision cannot download {name}: put its files into {root} by hand")

    def attempt(**split):
        try:
            return make(**given, **split)
        except ValueError as error:
            if SPLITTING[0] in takes or not split:  # else torchvision's answer to a split that the class does not have
                raise UserError(f"could not read torchvision's {name} in {root}: {error}") from None
            raise
        except (ImportError, OSError, RuntimeError) as error:
            if download:
                raise UserError(f"could not download torchvision's {name}: {error}") from None
            raise UserError(f"could not read torchvision's {name} in {root}: {error} (to download it, name it under "
                            f"fetch in params.yaml, then run `dvc repro fetch@{name}`)") from None

    by, said = next((key for key in SPLITTING if key in takes), None), ""
    if unlabelled and by != "split":
        raise UserError(f"torchvision's {name} has no split of unlabelled images")
    if by == "train":
        return {"train": attempt(train=True), "test": attempt(train=False)}
    if by is None:
        return {"train": attempt()}
    made = {}
    for split, words in NAMED.items():
        for word in words:
            try:
                made[split] = attempt(**{by: word})
                break
            except ValueError as error:
                said = said or str(error)
    if "train" not in made:
        raise UserError(f"torchvision's {name} has no training split ({said}); lay its images out in folders or tars and take the "
                        "source folder, parquet or webdataset")
    if "test" not in made and "val" in made:
        made["test"] = made.pop("val")  # as ImageNet: the public "val" is what everybody tests on
    if unlabelled:
        try:
            made["unlabeled"] = attempt(split="unlabeled")
        except ValueError:
            raise UserError(f"torchvision's {name} has no split of unlabelled images") from None
    return made


def _is_label(target):
    return not isinstance(target, (str, tuple, list, dict)) and np.ndim(target) == 0 and float(target).is_integer()


def _classes(data):
    names = getattr(data, "classes", None)
    if names:
        return [name if isinstance(name, str) else ", ".join(map(str, name)) for name in names]
    for attribute in ("targets", "labels", "_labels"):
        labels = getattr(data, attribute, None)
        if labels is not None and len(labels) == len(data):
            break
    else:
        labels = [data[i][1] for i in range(len(data))]
    return numbered(max(int(label) for label in labels), len(data), type(data).__name__)
