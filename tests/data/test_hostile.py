"""Files and tars that a colleague or the web gave: what is in them is data, and costs no more than data may."""

import gzip
import io
import os
import resource
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from selfsup import embed, shards
from selfsup.data import columns, files, images, tars
from selfsup.errors import UserError
from tests.data.making import encoded, folder_spec, image_folder, picture, tar_spec, write_tar

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"


def webp(side):
    """34 bytes that say they are side x side pixels."""
    size = struct.pack("<I", side - 1 | side - 1 << 14)
    return b"RIFF" + struct.pack("<I", 26) + b"WEBPVP8L" + struct.pack("<I", 14) + b"\x2f" + size + bytes(9)


def broken_exif():
    about = PngImagePlugin.PngInfo()
    about.add_text("Raw profile type exif", "\nexif\n  10\nzzzz")
    return encoded(picture(0), pnginfo=about)


@pytest.mark.parametrize("data, words", [(EPS, "not an image"), (webp(16383), "16383 x 16383 pixels, more than")])
def test_no_program_is_run_and_no_memory_taken(tmp_path, monkeypatch, data, words):
    """In folders, tars and `selfsup embed` alike; a `gs` in the path would leave a trace."""
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None, raising=False)
    image_folder(tmp_path / "raw", 20)
    (tmp_path / "raw/cat/bad.jpg").write_bytes(data)
    good = [(f"{i:02d}", {"png": encoded(picture(i))}) for i in range(20)]
    write_tar(tmp_path / "a.tar", [*good, ("bad", {"jpg": data})])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"1 of 21 samples.*bad.*{words}"):
        shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    with pytest.raises(UserError, match=f"1 of 21 samples.*bad.*{words}"):
        shards.write("toy", tar_spec(tmp_path), tmp_path / "out", workers=1)
    with pytest.raises(images.Unreadable, match=words):
        embed.read(tmp_path / "raw/cat/bad.jpg", columns.picture(8))
    assert not (tmp_path / "ran").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # KB


def test_arrays_that_say_they_are_huge():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 3)})
    with pytest.raises(images.Unreadable):
        images.decode(file.getvalue(), 8)


@pytest.mark.parametrize("make, words", [
    (lambda path: os.mkfifo(path), "not a regular file"),
    (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    (lambda path: path.write_bytes(b"") or os.truncate(path, files.BYTES + 1), "more than 536,870,912"),
])
def test_only_regular_files_are_read(tmp_path, make, words):
    image_folder(tmp_path / "raw", 20)
    make(tmp_path / "raw/cat/bad.png")
    with pytest.raises(UserError, match=f"1 of 21 samples.*bad.png: .*{words}"):
        shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    with pytest.raises(images.Unreadable, match=words):
        embed.read(tmp_path / "raw/cat/bad.png", columns.picture(8))


def test_a_gzip_that_expands_costs_no_memory(tmp_path, monkeypatch):
    """16 KB that hold 16 MB, among samples that are read."""
    monkeypatch.setattr(tars, "BYTES", 1 << 20)
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=9) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for key, data in [("0", encoded(picture(0))), ("1", bytes(16 << 20)), ("2", encoded(picture(2)))]:
            for extension, content in (("png", data), ("cls", b"0"), ("txt", b"a picture")):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    tracemalloc.start()
    found = dict(tars.groups(tmp_path / "a.tar.gz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert [key for key, group in found.items() if isinstance(group["png"], images.Unreadable)] == ["1"]
    for column in (columns.picture(8), columns.Number("label"), columns.Text("caption", (8,)),
                   columns.Frames("frames", (1, 3, 8, 8))):
        name = "0.png" if column.kind == "frames" else "png"
        group = {**found["1"], name: found["1"]["png"]}
        with pytest.raises(images.Unreadable, match="more than 1,048,576"):
            column.parse(column.find(group))  # also what follows within the sample
    with pytest.raises(UserError, match="1 of 3 samples.*: 1: 16,777,216 bytes with its png"):
        shards.write("toy", tar_spec(tmp_path, urls="*.gz", val_share=0, test_share=0), tmp_path / "out", workers=1)


def pax(records):
    """A member "b.png" under a PAX header."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("b.png")
        member.pax_headers = records
        member.size = 4
        tar.addfile(member, io.BytesIO(b"data"))
    return file.getvalue().rstrip(b"\0").ljust(4 * 512, b"\0")


def header(kind, size):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf()


@pytest.mark.parametrize("odd, kept", [
    (pax({"GNU.sparse.map": "a,b"}), True),
    (pax({"GNU.sparse.size": "x", "GNU.sparse.numblocks": "y"}), True),
    (pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), True),
    (pax({"size": "many"}), False),
    (header(tarfile.XHDTYPE, 0) * 2000, False),
    (header(tarfile.GNUTYPE_LONGNAME, 3 << 30), False),
    (header(tarfile.XHDTYPE, 3 << 30), False),
])
def test_odd_headers_are_torn_tars_or_passed_over(tmp_path, odd, kept):
    def sample(key):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            member = tarfile.TarInfo(f"{key}.txt")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
        return file.getvalue()[:1024]

    path = tmp_path / "a.tar"
    path.write_bytes(sample("a") + odd + sample("c") + bytes(1024))
    if kept:
        assert dict(tars.groups(path)) == {"a": {"txt": b"data"}, "c": {"txt": b"data"}}
    else:
        with pytest.raises(tars.Torn):
            list(tars.groups(path))


def test_a_damaged_exif_block_says_nothing_about_the_pixels(tmp_path):
    data = broken_exif()
    extension, stored, pixels = images.encode(data, 8)
    assert extension == "png" and (pixels == np.asarray(picture(0))).all() and b"Raw profile" not in stored
    assert Image.open(io.BytesIO(stored)).getexif() == {}


def test_whatever_a_decoder_raises_is_the_samples_fault(tmp_path, monkeypatch):
    def odd(*args):
        raise ZeroDivisionError("in a corner of a codec")

    image_folder(tmp_path / "raw", 20)
    monkeypatch.setattr(images, "square", odd)
    monkeypatch.setattr(images, "_upright", odd)
    with pytest.raises(UserError, match="samples are unreadable.*ZeroDivisionError: in a corner"):
        shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    with pytest.raises(images.Unreadable, match="in a corner"):
        embed.read(tmp_path / "raw/cat/000.png", columns.picture(8))


def test_torchvisions_classes_run_no_program_either(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "touched")
    image_folder(tmp_path / "raw", 20)
    (tmp_path / "raw/cat/bad.jpg").write_bytes(EPS)
    spec = folder_spec(tmp_path / "raw", source="torchvision", dataset="ImageFolder")
    with pytest.raises(UserError, match="1 of 21 samples.*Unable to locate Ghostscript"):
        shards.write("toy", spec, tmp_path / "out", workers=1)
