"""Video files: root/[train|val|test/][<class>/…/]name.mp4. Class folders or none, splits or none."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from selfsup.arguments import Count, Range, Share, Text
from selfsup.data import flow, images, video
from selfsup.data.columns import VIDEOS, Array, Frames, Number, picture
from selfsup.data.files import content
from selfsup.data.images import Unreadable, blamed
from selfsup.sources import Source
from selfsup.sources._layout import arranged


def source(root: Text, size: Count, val_share: Share, test_share: Share | None = None, class_level: Count = 1,
           frames: Annotated[int, Range(ge=2, le=1000)] = 4, apart: Count | None = None,
           columns: Annotated[list[Literal["flow"]], Range(distinct=True)] = []):
    """class_level: which of the folders below root (or below a split's) is the class. frames: how many are kept of a
    video; from the first on, each `apart` so many from the next, or unless that is said evenly spaced up to the last.
    The image is the first of them. columns: flow, estimated from each two (data/flow.py)."""
    video.needed()
    if "flow" in columns:
        flow.needed()
    found = arranged(root, VIDEOS, "video", val_share, test_share, class_level)

    def sample(key, name, path):
        label = found.label(name)
        with blamed():
            some = _kept(video.frames(content(Path(root, path))), frames, apart)
            some = [np.asarray(images.square(frame, size)) for frame in some]
        more = {"flow": flow.estimated(np.stack(some))} if "flow" in columns else {}
        return {"key": key, "image": some[0], **label, "frames": some, **more}

    def read(split, start, stop):
        for key, name, path in found.items[split][start:stop]:
            try:
                yield f"{root}/{path}", sample(key, name, path)
            except Unreadable as error:
                yield f"{root}/{path}", error

    kinds = [picture(size)] + [Number("label")] * (found.classes is not None)
    kinds += [Frames("frames", (frames, 3, size, size))]
    kinds += [Array("flow", (frames - 1, 2, size, size), "int16")] * ("flow" in columns)
    return Source(str(root), found.counts, read, kinds, found.classes, skipped=found.skipped, carved=found.carved)


def _kept(every, count, apart):
    needed = count if apart is None else (count - 1) * apart + 1
    if len(every) < needed:
        raise Unreadable(f"a video of {len(every)} frame{'s' * (len(every) > 1)}, fewer than {needed}")
    at = np.linspace(0, len(every) - 1, count).round().astype(int) if apart is None else np.arange(count) * apart
    return [every[i] for i in at]
