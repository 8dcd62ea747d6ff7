"""Small image folders and tars for the tests of data."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def picture(seed, size=(8, 8), mode="RGB"):
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_folder(root, count=40, classes=("cat", "dog"), kind="PNG"):
    for i in range(count):
        path = root / classes[i % len(classes)] / f"{i:03d}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(i), kind))
    return root


def folder_spec(root, **changes):
    return {"source": "folder", "root": str(root), "size": 8, "val_share": 0.2, "test_share": 0.2, "max_bad": 0.0,
            **changes}


def tar_spec(root, urls="*.tar", **changes):
    return folder_spec(root, source="webdataset", urls=urls, **changes)


def write_tar(path, samples):
    """samples: (key, {extension: bytes})."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples:
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def img2dataset(root, tars=2, each=20, start=0):
    """Tars as the tool img2dataset lays them out."""
    root.mkdir(exist_ok=True)
    for t in range(tars):
        keys = [f"{t:05d}{i:04d}" for i in range(each)]
        write_tar(root / f"{t:05d}.tar", [(key, {"jpg": encoded(picture(int(key)), "JPEG"),
                                                 "txt": f"a picture of number {key}".encode(),
                                                 "json": json.dumps({"key": key, "status": "success"}).encode()})
                                          for key in keys])
    return root
