"""Sources of files that are no pictures alone: captions, sounds, texts, videos, points. Good files, and each bad one that
is met: skipped, counted, told."""

import io
import sys

import numpy as np
import pytest

from selfsup import data, shards, sources
from selfsup.data import sound
from selfsup.data.tars import groups
from selfsup.errors import UserError
from selfsup.sources import text
from tests.data.making import encoded, image_folder, picture


def made(tmp_path, capsys, **spec):
    """The card, and what was said of bad samples and of what was skipped."""
    spec = {"root": str(tmp_path / "raw"), "val_share": 0.2, "test_share": 0.2, "max_bad": 0.5, **spec}
    spec = {key: value for key, value in spec.items() if value is not None}
    card = shards.write("toy", spec, tmp_path / "out", workers=1)
    return card, capsys.readouterr().err


def samples(tmp_path, card, split="train"):
    return [group for entry in card["shards"][split] for _, group in groups(tmp_path / "out" / entry["file"])]


def whole(tmp_path, split="train"):
    return next(data.open(tmp_path / "out", split, "resident", cache=tmp_path / "cache").in_order(1000))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# Captions


def test_captions_from_a_text_file_each(tmp_path, capsys):
    root = image_folder(tmp_path / "raw")
    for path in sorted(root.rglob("*.png"))[:-4]:
        path.with_suffix(".txt").write_text(f"\ufeffa {path.parent.name} number {path.stem}\n", "utf-8")
    none, empty, latin, *_ = sorted(root.rglob("*.png"))[-4:]
    write(empty.with_suffix(".txt"), b" \n")
    write(latin.with_suffix(".txt"), b"caf\xe9")
    write(root / "cat/notes.txt", b"of no image")
    card, said = made(tmp_path, capsys, source="folder", size=8, captions="txt")
    assert card["columns"] == ["image", "label", "caption"] and sum(card["counts"].values()) == 36
    for reason in (f"no caption: there is no {none.stem}.txt beside it", "its caption is empty", "is not UTF-8"):
        assert reason in said
    assert "skipped: 1 file ending in .txt" in said
    for group in samples(tmp_path, card):
        name = card["classes"][int(group["cls"])]
        assert group["txt"].decode().startswith(f"a {name} number ")


def test_captions_from_a_table(tmp_path, capsys):
    root = image_folder(tmp_path / "raw")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    rows = ["file,vendor,caption", *(f'{name},x,"one, of {name}"' for name in names[1:-1]), f"{names[-1]},x,",
            f"{names[5]},x,another", "dog/gone.png,x,not there"]
    write(root / "words.csv", "\n".join(rows).encode())
    card, said = made(tmp_path, capsys, source="folder", size=8, captions="words.csv")
    assert sum(card["counts"].values()) == 38 and sum(card["bad"].values()) == 2
    assert "the table has no line of it" in said and "its caption is empty" in said
    assert "skipped: 1 caption of no image here; 1 further caption of an image" in said
    assert all(group["txt"].startswith(b"one, of ") for group in samples(tmp_path, card))


@pytest.mark.parametrize("content, why", [
    (None, "no such file of captions"), (b"name,caption\na,b\n", 'no column "file"'), (b"file,caption\n\xff\xfe\n", "UTF-8")])
def test_a_table_that_is_none(tmp_path, content, why):
    root = image_folder(tmp_path / "raw", 4)
    if content:
        write(root / "words.csv", content)
    with pytest.raises(UserError, match=why):
        sources.open({"source": "folder", "root": str(root), "size": 8, "val_share": 0.2, "captions": "words.csv"})


# Sounds


def tone(rate=8000, seconds=0.4, channels=1, level=0.3):
    time = np.arange(int(rate * seconds)) / rate
    return sound.wav((level * 2**15 * np.sin(880 * np.pi * time)).astype(np.int16)[None].repeat(channels, 0), rate)


def test_spoken_digits_get_a_written_one_of_their_class_and_split(tmp_path, capsys):
    root = tmp_path / "raw"
    for i in range(60):
        write(root / f"{i % 10}_jack_{i}.wav", tone(level=0.1 + i / 100))
    bad = {"0_a_0.wav": b"", "1_silent_0.wav": tone(level=0), "2_cut_0.wav": tone()[:2000], "3_none_0.wav": tone(seconds=0),
           "zehn_a_0.wav": tone(), "5_text_0.wav": b"words " * 20}
    for name, content in bad.items():
        write(root / name, content)
    good = {"6_stereo_0.wav": tone(channels=2), "7_fast_0.wav": tone(rate=16000), "8_long_0.wav": tone(seconds=2)}
    for name, content in good.items():
        write(root / name, content)
    write(root / "README.md", b"of digits")
    card, said = made(tmp_path, capsys, source="speech", size=8)
    assert sum(card["bad"].values()) == 6 and sum(card["counts"].values()) == 63
    for reason in ("a silent sound", "a cut .wav file", "a sound without samples", 'no picture of the class "zehn"', "not a PCM"):
        assert reason in said, reason
    assert "skipped: 1 file ending in .md" in said
    from sklearn.datasets import load_digits

    digits = load_digits()
    written = {(image * (255 / 16)).round().astype(np.uint8).tobytes(): label
               for image, label in zip(digits.images, digits.target)}
    pictures = {}
    for split in sources.SPLITS:
        found = whole(tmp_path, split)
        assert found["sound"].shape[1:] == (1, 4000) and found["sound"].abs().amax((1, 2)).min() > 1000
        for image, label in zip(found["image"], found["label"]):
            pictures.setdefault(image[0].numpy().tobytes(), set()).add(split)
            assert written[image[0].numpy().tobytes()] == label
    assert all(len(splits) == 1 for splits in pictures.values())  # a picture that is trained on is not tested on
    assert card["classes"] == list("0123456789")


# Texts


def test_passages_put_together_are_the_text():
    words = " ".join("word" * (1 + i % 7) for i in range(300)) + "\n\n" + "x" * 500 + " end"
    parts = text.passages(words, 100)
    assert "".join(parts) == words and max(map(len, parts)) == 100
    assert all(part[-1].isspace() or "x" * 20 in part for part in parts[:-1])  # whole words, but where one is too long
    assert text.passages(" \n ", 100) == []


def test_the_topics_of_python_by_whole_pages(tmp_path, capsys):
    from pydoc_data.topics import topics

    card, _ = made(tmp_path, capsys, source="text", root=None, passage=200)
    assert len(card["text_sha256"]) == 64 and card["columns"] == ["text"] and card["size"] is None
    pages = {split: set() for split in sources.SPLITS}
    for split in sources.SPLITS:
        for entry in card["shards"][split]:
            pages[split] |= {key.rpartition("-")[0] for key, _ in groups(tmp_path / "out" / entry["file"])}
    assert sum(map(len, pages.values())) == len(set.union(*pages.values())) and min(map(len, pages.values())) > 3
    # One page repeats another's text, which is in another split: such passages are left out.
    assert 0 <= len(topics) - len(set.union(*pages.values())) <= card["twins"]["left_out"]["train"]
    texts = [group["text.txt"].decode() for group in samples(tmp_path, card)]
    assert all(len(words) <= 200 for words in texts) and sum(map(len, texts)) > 200_000


def test_a_folder_of_texts(tmp_path, capsys):
    root = tmp_path / "raw"
    for i in range(20):
        write(root / ("law", "sea")[i % 2] / f"no.{i}.txt", f"{('judge', 'ship')[i % 2]} {i} ".encode() * 30)
    write(root / "law/empty.txt", b" \n")
    write(root / "sea/latin.txt", b"caf\xe9 " * 20)
    write(root / "loose.txt", b"of no class")
    write(root / "sea/picture.png", b"no text")
    card, said = made(tmp_path, capsys, source="text", passage=100)
    assert card["classes"] == ["law", "sea"] and sum(card["bad"].values()) == 3
    assert all(reason in said for reason in ("an empty text", "not UTF-8", "lies in no class folder"))
    assert "skipped: 1 file ending in .png" in said
    for group in samples(tmp_path, card):
        assert (b"ship" in group["text.txt"]) == (group["cls"] == b"1")


# Points


def test_point_clouds_in_arrays(tmp_path, capsys):
    random = np.random.default_rng(0)
    clouds = {f"ball/{i}.npy": random.normal(size=(300, 3)) for i in range(20)}
    clouds |= {f"flat/{i}.npy": random.uniform(size=(40, 6)) * [5, 5, 0, 9, 9, 9] for i in range(20)}
    bad = {"flat/nan.npy": np.full((50, 3), np.nan), "flat/one.npy": np.ones((50, 3)), "flat/none.npy": np.zeros((0, 3)),
           "flat/shape.npy": np.zeros((50, 2)), "flat/words.npy": np.array(["a", "b"])}
    for name, cloud in (clouds | bad).items():
        file = io.BytesIO()
        np.save(file, cloud)
        write(tmp_path / "raw" / name, file.getvalue())
    write(tmp_path / "raw/flat/cut.npy", b"\x93NUMPY\x01\x00")
    card, said = made(tmp_path, capsys, source="points", points=64)
    assert sum(card["bad"].values()) == 6 and card["classes"] == ["ball", "flat"] and card["columns"] == ["points", "label"]
    for reason in ("nowhere", "in one place", "no points", "not x, y and z", "not an .npy array"):
        assert reason in said, reason
    found = whole(tmp_path)
    extent = found["points"].amax(1) - found["points"].amin(1)
    assert found["points"].shape[1:] == (64, 3) and np.allclose(extent.amax(1), 1, atol=1e-6)
    assert ((extent[:, 2] == 0) == (found["label"] == 1)).all()
    again = shards.write("toy", {"source": "points", "root": str(tmp_path / "raw"), "val_share": 0.2, "test_share": 0.2,
                                 "max_bad": 0.5, "points": 64}, tmp_path / "again", workers=2)
    assert again["hash"] == card["hash"]


def test_meshes_are_covered_evenly(tmp_path, capsys):
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box((4, 1, 1))
    for i, extension in enumerate(["ply", "obj", "stl", "off"] * 5):
        content = trimesh.Trimesh(box.vertices + i, box.faces).export(file_type=extension)
        write(tmp_path / f"raw/{i}.{extension}", content if isinstance(content, bytes) else content.encode())
    write(tmp_path / "raw/cloud.ply", trimesh.PointCloud(np.random.default_rng(0).normal(size=(99, 3))).export(file_type="ply"))
    write(tmp_path / "raw/cut.ply", b"ply\nformat ascii 1.0\n")
    card, said = made(tmp_path, capsys, source="points", points=2000)
    assert sum(card["counts"].values()) == 21 and sum(card["bad"].values()) == 1 and "cut.ply" in said
    points = whole(tmp_path)["points"]
    boxes = points[(points.abs().amax(1)[:, 1] < .2)]
    ends = (boxes[:, :, 0].abs() > .4999).float().mean(1)  # two of 18 units of area
    assert len(boxes) > 5 and (abs(ends - 1 / 9) < .03).all()


def test_meshes_need_their_package_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    write(tmp_path / "raw/a.ply", b"")
    with pytest.raises(UserError, match="pip install trimesh"):
        sources.open({"source": "points", "root": str(tmp_path / "raw"), "val_share": 0.2})


# Videos


def film(av, count, level, size=(24, 16)):
    """Each frame lighter by 20 than the one before."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(count):
            pixels = np.full((size[1], size[0], 3), level + 20 * i, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return out.getvalue()


def test_videos_in_class_folders(tmp_path, capsys):
    av = pytest.importorskip("av")
    for i in range(20):
        write(tmp_path / f"raw/{('walk', 'run')[i % 2]}/{i}.mp4", film(av, 9 + i % 3, 2 * i))
    write(tmp_path / "raw/walk/one.mp4", film(av, 1, 50))
    write(tmp_path / "raw/walk/cut.mp4", film(av, 9, 60)[:300])
    write(tmp_path / "raw/walk/empty.mp4", b"")
    write(tmp_path / "raw/walk/still.png", encoded(picture(0)))
    card, said = made(tmp_path, capsys, source="video", size=8, frames=3, apart=2)
    assert card["columns"] == ["image", "label", "frames"] and card["classes"] == ["run", "walk"]
    assert sum(card["bad"].values()) == 3 and "a video of 1 frame, fewer than 5" in said and "not a video" in said
    assert "skipped: 1 file ending in .png" in said
    found = whole(tmp_path)
    assert found["frames"].shape[1:] == (3, 3, 8, 8) and (found["frames"][:, 0] == found["image"]).all()
    levels = found["frames"].float().mean((0, 2, 3, 4))
    assert np.allclose(levels - levels[0], [0, 40, 80], atol=6)


def test_videos_need_their_package_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    write(tmp_path / "raw/a.mp4", b"")
    with pytest.raises(UserError, match="pip install av"):
        sources.open({"source": "video", "root": str(tmp_path / "raw"), "size": 8, "val_share": 0.2})
