"""Samples that are files, root/[train|val|test/][<class>/…/]name: class folders or none, splits or none. What sources
of images, videos, sounds, texts and points have in common."""

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from selfsup.data.images import Unreadable
from selfsup.errors import UserError, nearest, nearest_path
from selfsup.sources import ALIASES, SPLITS, by_ending, divide, listed, phrases, said

SPLIT = re.compile(rf"({'|'.join(ALIASES)})[\W\d_]*", re.IGNORECASE)  # a folder that is a split by all of its name


@dataclass
class Layout:
    """`items`: {split: [(key, name, path)]}, path below root, name the same without the folder that says the split.
    `classes`: names, None where there are none; `level`: which folder of a name is the class, counted from 1.
    `skipped`: what lies there besides, in words; `carved`: the splits that were carved."""

    items: dict
    classes: list | None
    level: int
    skipped: list
    carved: tuple

    @property
    def counts(self):
        return {split: len(self.items[split]) for split in SPLITS}

    def label(self, name, unlabelled=False):
        """{"label": number} of a name; {} where there are no classes. Raises Unreadable."""
        if self.classes is None:
            return {}
        own = group(name, self.level)
        if own is None and not unlabelled:
            raise Unreadable("lies in no class folder")
        if own is not None and own not in self.classes:
            raise Unreadable(f'the class "{own}" is not in the training split{nearest(own, self.classes)}')
        return {"label": -1 if own is None else self.classes.index(own)}


def arranged(root, extensions, what, val_share, test_share=None, level=1, unlabelled=False,
             beside=lambda names: (), new_classes=False):
    """The Layout of the files below `root` that end in one of `extensions` and are, in words, a `what` each. Files in
    no class folder are for training where `unlabelled`. `beside`: those of the names of all files that are
    read for something else. `new_classes`: val and test may have classes that train has not; what is carved is whole
    classes, by a hash of their names."""
    if not os.path.isdir(root):
        raise UserError(f"no such folder: {root}{nearest_path(root)}")
    every, others = listed(root)
    aside = set(beside(every))
    every = [name for name in every if name not in aside]
    names = [name for name in every if ends(name, extensions)]
    if not names:
        more = f" and found {', '.join(by_ending(every))}" if every else ""
        raise UserError(f"no {what}s in {root}: looked for files ending in {', '.join(extensions)}{more}")
    found, skipped = _split(names, root, what)
    naming = found if new_classes else ["train"]
    classes = sorted({group(name, level) for split in naming for name, _ in found[split]} - {None}) or None
    without = _folders(every) - _folders(names)
    without = sorted(folder for folder in without if folder.rpartition("/")[0] not in without)
    article = "an" if what[0] in "aeiou" else "a"
    others |= {f"folder{{s}} without {article} {what} ({', '.join(without[:5])})": len(without)} if without else {}
    skipped += by_ending(set(every) - set(names)) + phrases(others)
    keyed = {split: _keyed(some) for split, some in found.items()}
    loose = []
    if unlabelled and classes:
        loose = [item for item in keyed["train"] if group(item[1], level) is None]
        keyed["train"] = [item for item in keyed["train"] if group(item[1], level) is not None]
    by = {"by": lambda item: group(item[1], level) or item[0]} if new_classes else {}
    items, carved = divide(keyed, val_share, test_share, loose, **by)
    return Layout(items, classes, level, skipped, carved)


def ends(name, extensions):
    return name.rpartition(".")[2].lower() in extensions


# Splits


def _split(names, root, what):
    """{split: [(name, path)]} of the paths of samples below root, and in words what is in no split. `name` is the path
    without the folder that says the split.

    Splits are the folders of the first level that tells; or the files' names, where all say one. Raises UserError where
    the evidence is partial, or contradicts itself."""
    parts = [name.split("/") for name in names]
    levels = {level: _telling({path[level] for path in parts if len(path) > level + 1}, level)
              for level in range(max(map(len, parts)) - 1)}
    levels = {level: splits for level, splits in levels.items() if splits}
    if levels:
        return _by_folder(parts, levels, str(root), what)
    splits = [said(path[-1]) for path in parts]
    clear = [one for one in splits if len(one) == 1]
    if len(set().union(*clear)) > 1 and {"train"} in clear and 2 * len(clear) > len(names):
        if len(clear) < len(names):
            odd, example = (next(name for name, one in zip(names, splits) if (len(one) == 1) is says)
                            for says in (False, True))
            raise UserError(f"{root}: most files' names say a split, as {example} does, but {odd} says none or two: "
                            f"name all so, or put the splits into folders train, val and test")
        found = {split: [(name, name) for name, one in zip(names, splits) if split in one] for split in SPLITS}
        return {split: some for split, some in found.items() if some}, []
    return {"train": [(name, name) for name in names]}, []


def _telling(folders, level):
    """{folder: split} where the names of the folders of a level tell the splits apart; {} where they do not.

    At the top one folder that is called as a split is enough, or two splits among the words of all names. Deeper down,
    where classes have folders, two splits by all of their names."""
    sure = {folder: ALIASES[match[1].lower()] for folder in folders if (match := SPLIT.fullmatch(folder))}
    words = {folder: next(iter(said(folder))) for folder in folders if len(said(folder)) == 1}
    several = [len(set(some.values())) > 1 and "train" in some.values() for some in (sure, words)]
    if level == 0:
        return words if sure or several[1] else {}
    return sure if several[0] else {}


def _by_folder(parts, levels, root, what):
    """As `_split`, by folders: `levels` is {level: what `_telling` says of it}. The first decides, others agree."""
    top, splits = next(iter(levels.items()))
    found, beside, loose, called = {}, Counter(), 0, {}
    for path in parts:
        if len(path) == 1:
            loose += 1
            continue
        if len(path) <= top + 1 or path[top] not in splits:
            beside["/".join(path[:-1][:top + 1])] += 1
            continue
        split, path_ = splits[path[top]], "/".join(path)
        telling = {level for level in levels if level < len(path) - 1 and path[level] in levels[level]}
        if len({levels[level][path[level]] for level in telling}) > 1:
            raise UserError(f"{root}/{path_}: its folders say more than one split: make root the folder that holds the "
                            f"splits, or rename one")
        other = called.setdefault((*path[:top], split), path[top])
        if other != path[top]:
            raise UserError(f"{'/'.join([root, *path[:top]])}: the folders {other} and {path[top]} both say {split}: "
                            f"put all into one")
        name = "/".join(part for level, part in enumerate(path) if level not in telling)
        found.setdefault(split, []).append((name, path_))
    says, split = sorted(splits.items())[0]
    others = ", ".join(sorted(beside)[:5])
    if beside and (top or len(found) == 1):
        raise UserError(f"{root}: the folder {says} says {split}, but others beside it say no split ({others}): if "
                        f"{says} is a class, put all class folders into a folder train; if a split, take the others "
                        f"away")
    if "train" not in found:
        raise UserError(f"{root}: the folder {says} says {split}, but none says train: nothing is for training")
    skipped = Counter()
    if beside:
        skipped[f"folder{{s}} of no split ({others}: {sum(beside.values())} {what}s)"] = len(beside)
    if loose:
        skipped[what + "{s} in no split's folder"] = loose
    return found, phrases(skipped)


def _folders(names):
    """All folders that the files called so lie in."""
    parts = [name.split("/") for name in names]
    return {"/".join(path[:level]) for path in parts for level in range(1, len(path))}


# Classes and keys


def group(name, level):
    """The folder that is the class of a file, its accents composed (NFC); None where it lies less deep."""
    parents = name.split("/")[:-1]
    return unicodedata.normalize("NFC", parents[level - 1]) if len(parents) >= level else None


def _keyed(found):
    """(key, name, path) of (name, path) pairs. A WebDataset key ends at the first dot of the file's name, so dots
    within it are escaped; files that differ in the extension alone keep it, escaped."""
    def escape(name):
        parent, _, base = name.rpartition("/")
        base = base.replace("%", "%25").replace(".", "%2E")
        return f"{parent}/{base}" if parent else base

    stems = [name.rpartition(".")[0] for name, _ in found]
    times = Counter(stems)
    return [(escape(name if times[stem] > 1 else stem), name, path) for (name, path), stem in zip(found, stems)]
