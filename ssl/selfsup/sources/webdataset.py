"""Existing WebDataset tars of any origin, which stay where they are."""

from pathlib import Path
from typing import Annotated

from selfsup.arguments import Count, Range, Share, Text
from selfsup.errors import UserError, nearest_path
from selfsup.sources import NAMES, Tars, by_ending, carve, inside_root, named, split_files


def source(root: Text, urls: Text | Annotated[list[Text], Range(min_length=1)], size: Count,
           val_share: Share, test_share: Share | None = None, limit: Count | None = None,
           columns: Annotated[list[Text], Range(min_length=1, distinct=True)] | None = None):
    """urls: a pattern such as "{000..009}.tar" or "*.tar", or a list of such, below `root` or with a scheme of their
    own. A word of a tar's name, or of a folder below `root`, says the split (train, val, test and the like), for all
    tars or for none. columns: of members NAME.npy, NAME.wav, NAME.cls … (selfsup.data.columns); by default image, label
    and caption, as far as there are such. Class names stand in root/classes.txt, one a line."""
    from braceexpand import braceexpand

    patterns = [urls] if isinstance(urls, str) else list(urls)
    files, folder = [], Path(root)
    for url in [url for pattern in patterns for url in braceexpand(pattern)]:
        if "://" in url:
            files.append(url)
            continue
        some = sorted(folder.glob(url)) if any(c in url for c in "*?[") else [folder / url]
        if not some:
            raise UserError(f"no file matches {folder / url}")
        for path in some:
            if not path.is_file():
                raise UserError(f"no such tar: {path}{nearest_path(path)}")
            inside_root(path.parent, root)
        files += map(str, some)
    files = list(dict.fromkeys(files))
    tars = split_files(files, "tars", root)
    return Tars(str(root), tars, carve(val_share, test_share, have={split for _, split in tars}), columns, limit,
                skipped=_beside(files), classes=named(folder), size=size)


def _beside(files):
    """In words what lies in the folders of local tars and is none of them."""
    local = {Path(file) for file in files if "://" not in file}
    every = {path for folder in {file.parent for file in local} for path in folder.iterdir() if path.is_file()}
    others = [str(path) for path in every - local if path.name not in NAMES]
    return [f"{words} that urls does not name" for words in by_ending(others)]
