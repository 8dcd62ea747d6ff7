"""Point clouds and meshes: root/[train|val|test/][<class>/…/]name.npy, .ply, .obj. Class folders or none."""

import hashlib
import io
from pathlib import Path
from typing import Annotated

import numpy as np

from selfsup.arguments import Count, Range, Share, Text
from selfsup.core import rng
from selfsup.data import images
from selfsup.data.columns import Array, Number
from selfsup.data.files import content
from selfsup.data.images import Unreadable, blamed
from selfsup.errors import UserError
from selfsup.sources import Source
from selfsup.sources._layout import arranged, ends

MESHES = ("ply", "obj", "off", "stl")  # which the package trimesh reads, for it is optional
EXTENSIONS = ("npy", *MESHES)
MOST = 1 << 25  # points or corners of a file


def source(root: Text, val_share: Share, test_share: Share | None = None, class_level: Count = 1,
           points: Annotated[int, Range(ge=8, le=2**20)] = 256):
    """class_level: which of the folders below root (or below a split's) is the class. points: so many of each file are
    kept, at random, some more than once where there are fewer; of a mesh, points on its faces. x, y and z are counted
    from the middle of the points, and the side of the largest extent is 1. An .npy file holds an array (N, 3), or more
    of each point after x, y and z, which is left out."""
    found = arranged(root, EXTENSIONS, "point cloud", val_share, test_share, class_level)
    if any(ends(path, MESHES) for some in found.items.values() for *_, path in some):
        _trimesh()

    def sample(key, name, path):
        label = found.label(name)
        with blamed():
            return {"key": key, "points": _scaled(_loaded(content(Path(root, path)), path, key, points)), **label}

    def read(split, start, stop):
        for key, name, path in found.items[split][start:stop]:
            try:
                yield f"{root}/{path}", sample(key, name, path)
            except Unreadable as error:
                yield f"{root}/{path}", error

    kinds = [Array("points", (points, 3))] + [Number("label")] * (found.classes is not None)
    return Source(str(root), found.counts, read, kinds, found.classes, skipped=found.skipped, carved=found.carved)


def _trimesh():
    try:
        import trimesh
    except ImportError:
        raise UserError("point clouds and meshes in .ply, .obj, .off and .stl files need the package trimesh: "
                        "pip install trimesh") from None
    return trimesh


def _loaded(data, path, key, count):
    """Points (count, 3) of a file's bytes, float64. Raises Unreadable."""
    key = rng.key(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
    extension = path.rpartition(".")[2].lower()
    if extension == "npy":
        places, faces = images.load_npy(data), ()
    else:
        loaded = _trimesh().load(io.BytesIO(data), file_type=extension, process=False)
        loaded = loaded.to_geometry() if hasattr(loaded, "to_geometry") else loaded  # several things in one file
        places, faces = np.asarray(loaded.vertices), np.asarray(getattr(loaded, "faces", ()))
    if places.ndim != 2 or places.shape[1] < 3 or places.dtype.kind not in "fiu":
        raise Unreadable(f"{places.dtype} of shape {places.shape}, which is not x, y and z of some points")
    places = places[:, :3].astype(np.float64)
    if not len(places) or len(places) > MOST:
        raise Unreadable(f"{len(places):,} points, more than {MOST:,}" if len(places) else "no points")
    if not np.isfinite(places).all():
        raise Unreadable("points that are nowhere (not a number, or infinite)")
    return _on_faces(places[faces], key, count) if len(faces) else _some(places, key, count)


def _some(places, key, count):
    order = rng.uniform(key, len(places), salt=1).argsort(stable=True).numpy()
    return places[order[np.arange(count) % len(places)]]


def _on_faces(corners, key, count):
    """Points (count, 3) on triangles (F, 3, 3), as many a unit of area everywhere."""
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.cumsum(np.sqrt((np.cross(one, two) ** 2).sum(1)))
    if not areas[-1] > 0:
        raise Unreadable("faces without an area")
    u = rng.uniform(key, count, 3, salt=2).double().numpy()
    face = np.searchsorted(areas, u[:, 0] * areas[-1], side="right").clip(max=len(areas) - 1)
    root = np.sqrt(u[:, 1:2])
    return corners[face, 0] + one[face] * root * (1 - u[:, 2:]) + two[face] * root * u[:, 2:]


def _scaled(places):
    low, high = places.min(0), places.max(0)
    if not (high > low).any():
        raise Unreadable("points that are all in one place")
    return ((places - (low + high) / 2) / (high - low).max()).astype(np.float32)
