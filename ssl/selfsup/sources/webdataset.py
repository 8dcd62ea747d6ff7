"""Existing WebDataset tars of any origin, which stay where they are."""

from pathlib import Path
from typing import Annotated

from selfsup.arguments import Count, Range, Share, Text
from selfsup.errors import UserError, nearest_path
from selfsup.sources import Tars, carve, split_files


def source(root: Text, urls: Text | Annotated[list[Text], Range(min_length=1)], val_share: Share,
           test_share: Share | None = None, limit: Count | None = None,
           columns: Annotated[list[Text], Range(min_length=1, distinct=True)] | None = None):
    """urls: a pattern such as "{000..009}.tar" or "*.tar", or a list of such, below `root` or with a scheme of their
    own; a file name that starts with train, val or test says the split. columns: of members NAME.npy, NAME.wav,
    NAME.cls … (selfsup.data.columns); by default image, label and caption, as far as there are such."""
    from braceexpand import braceexpand

    patterns = [urls] if isinstance(urls, str) else list(urls)
    files = []
    for url in [url for pattern in patterns for url in braceexpand(pattern)]:
        if "://" in url:
            files.append(url)
            continue
        folder = Path(root)
        some = sorted(folder.glob(url)) if any(c in url for c in "*?[") else [folder / url]
        if not some:
            raise UserError(f"no file matches {folder / url}")
        for path in some:
            if not path.is_file():
                raise UserError(f"no such tar: {path}{nearest_path(path)}")
        files += map(str, some)
    tars = split_files(files, "tars")
    return Tars(str(root), tars, carve(val_share, test_share, have={split for _, split in tars}), columns, limit)
