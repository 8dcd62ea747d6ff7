"""Kinds of column: through a tar and back, by both readers, and by other readers of tars."""

import io
import sys
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup import data, shards, sources
from selfsup.data import columns, images, sound, tars
from selfsup.data.columns import Array, Frames, Image, Number, Sound, Text, picture
from selfsup.data.images import Unreadable
from selfsup.errors import UserError
from selfsup.sources import Source
from tests.data.making import encoded, img2dataset, picture as pil, tar_spec, write_tar

RATE = 8000


def noise(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.normal(size=shape).astype(dtype)


# Each kind with a value of its own for sample i, and what both readers should then give.
KINDS = {
    "bands": (Image("image", (13, 8, 8), "uint8", picture=False), lambda i: noise(i, (8, 8, 13), np.uint8),
              lambda x: x.transpose(2, 0, 1)),
    "depth": (Image("depth", (1, 8, 8), "uint16", picture=False), lambda i: noise(i, (8, 8), np.uint16),
              lambda x: x[None]),
    "photo": (picture(8, "photo"), lambda i: noise(i, (8, 8, 3), np.uint8), lambda x: x.transpose(2, 0, 1)),
    "number": (Number("track"), lambda i: i % 3 - 1, np.int64),
    "sound": (Sound("sound", (2, 50), rate=RATE), lambda i: noise(i, (2, 50), np.int16), lambda x: x),
    "frames": (Frames("frames", (3, 3, 8, 8)), lambda i: list(noise(i, (3, 8, 8, 3), np.uint8)),
               lambda x: np.stack(x).transpose(0, 3, 1, 2)),
    "points": (Array("points", (5, 3)), lambda i: noise(i, (5, 3), np.float32), lambda x: x),
    "boxes": (Array("boxes", (2, 4), "int64"), lambda i: noise(i, (2, 4), np.int64), lambda x: x),
}


def shard(monkeypatch, out, kinds, value, counts=(12, 4, 4), **spec):
    """Write samples {name: value(name, i)} as a data set of the given Columns."""
    def read(split, start, stop):
        for i in range(start, stop):
            yield f"{i}", {"key": f"{split}-{i:03d}", **{column.name: value(column.name, i) for column in kinds}}

    source = Source("", dict(zip(sources.SPLITS, counts)), read, kinds)
    monkeypatch.setattr(sources, "open", lambda spec: source)
    monkeypatch.setattr(shards, "SHARD", 5)
    return shards.write("toy", {"source": "made", "size": 8, "max_bad": 0, **spec}, out, workers=1)


def both(out, split="train", **options):
    cache = out.parent / "cache"
    return [data.open(out, split, reader, cache=cache, **options) for reader in ("resident", "streaming")]


def whole(split):
    parts = list(split.in_order(7))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_comes_back_from_both_readers(tmp_path, monkeypatch, kind):
    column, value, expected = KINDS[kind]
    card = shard(monkeypatch, tmp_path / "out", [column], lambda name, i: value(i))
    assert columns.of(card) == columns.of(tars.card_of(tmp_path / "out")) == {column.name: column}
    for split in both(tmp_path / "out"):
        found = whole(split)
        assert split.columns == [column.name] and found[column.name].shape == (12, *column.shape)
        assert str(found[column.name].dtype) == f"torch.{column.dtype}" and found[column.name].is_contiguous()
        for i in range(12):
            assert np.array_equal(found[column.name][i].numpy(), expected(value(i)))
        batch = next(split.batches(0, 4, 40))
        assert torch.equal(batch[column.name], found[column.name][batch["index"]])


def test_any_webdataset_reader_opens_all_kinds(tmp_path, monkeypatch):
    webdataset = pytest.importorskip("webdataset")
    card = shard(monkeypatch, tmp_path / "out", [column for column, *_ in KINDS.values()],
                 lambda name, i: next(value(i) for column, value, _ in KINDS.values() if column.name == name))
    urls = [str(tmp_path / "out" / entry["file"]) for entry in card["shards"]["train"]]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(read) == 12
    for i, sample in enumerate(read):
        made = {kind: value(i) for kind, (_, value, _) in KINDS.items()}
        assert (sample["npy"] == made["bands"]).all() and (sample["depth.npy"][..., 0] == made["depth"]).all()
        assert (sample["photo.png"] == made["photo"]).all() and sample["track.cls"] == made["number"]
        assert (sample["points.npy"] == made["points"]).all() and (sample["boxes.npy"] == made["boxes"]).all()
        assert all((sample[f"00{t}.png"] == made["frames"][t]).all() for t in range(3))
        with wave.open(io.BytesIO(sample["wav"])) as file:
            pcm = np.frombuffer(file.readframes(50), np.int16).reshape(50, 2).T
            assert file.getframerate() == RATE and (pcm == made["sound"]).all()


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    """Frames that cannot be decoded harm nobody who does not ask for them, nor are they kept in memory."""
    kinds = [picture(8), Number("label"), Frames("frames", (2, 3, 8, 8))]
    values = {"image": lambda i: noise(i, (8, 8, 3), np.uint8), "label": lambda i: -1,
              "frames": lambda i: [noise(i, (8, 8, 3), np.uint8)] * 2}
    shard(monkeypatch, tmp_path / "out", kinds, lambda name, i: values[name](i))
    complete = whole(both(tmp_path / "out")[0])
    monkeypatch.setattr(Frames, "decode", lambda self, value: pytest.fail("decoded"))
    monkeypatch.setattr(Frames, "find", lambda self, group: pytest.fail("looked for"))
    for split in both(tmp_path / "out", columns=["image"]):
        found = whole(split)
        assert set(found) == {"image", "index", "epoch"} and torch.equal(found["image"], complete["image"])
        assert all("000.png" not in group for entry in split.entries
                   for _, group in tars.members(split.folder, entry, split.schema.values()))
    with pytest.raises(UserError, match='has no column "lable"; did you mean "label"'):
        data.open(tmp_path / "out", "train", columns=["lable"])


def test_a_column_that_is_asked_for_later_is_decoded_then(tmp_path, monkeypatch):
    kinds = [picture(8), Array("points", (2,))]
    shard(monkeypatch, tmp_path / "out", kinds,
          lambda name, i: noise(i, (8, 8, 3), np.uint8) if name == "image" else noise(i, (2,), np.float32))
    first = data.open(tmp_path / "out", "train", "resident", cache=tmp_path / "cache", columns=["image"])
    assert [path.name for path in (tmp_path / "cache").glob("*/*.npy")] == ["image.npy"]
    stamp = next((tmp_path / "cache").glob("*/image.npy")).stat().st_mtime_ns
    second = data.open(tmp_path / "out", "train", "resident", cache=tmp_path / "cache")
    assert next((tmp_path / "cache").glob("*/image.npy")).stat().st_mtime_ns == stamp
    assert torch.equal(first.values["image"], second.values["image"]) and second.values["points"].shape == (12, 2)


def test_a_card_from_before_says_the_same(tmp_path):
    spec = dict(source="scenes", size=8, train=20, val=4, test=4, seed=0, max_bad=0)
    card = shards.write("toy", spec, tmp_path / "out", workers=1)
    old = {key: value for key, value in card.items() if key not in ("schema", "class_counts")}
    assert columns.of(old) == columns.of(card) == {
        "image": picture(8), "label": Number("label"), "caption": Text("caption", (card["caption_length"],))}
    assert card["schema"]["image"] == {"kind": "image", "shape": [3, 8, 8], "dtype": "uint8"}


def test_moments_of_sixteen_bits(tmp_path, monkeypatch):
    column, value, _ = KINDS["depth"]
    deep = Image("image", column.shape, column.dtype, picture=False)
    card = shard(monkeypatch, tmp_path / "out", [deep], lambda name, i: value(i))
    pixels = np.stack([value(i) for i in range(12)]) / 65535
    np.testing.assert_allclose([card["mean"], card["std"]], [[pixels.mean()], [pixels.std()]], atol=1e-12)
    assert card["channels"] == 1


def test_what_methods_may_not_read():
    columns.refuse_judges("simclr", ["image", "label", "pose", "flow"])
    with pytest.raises(UserError, match="method flowing asks for the column 'true_flow', which only judges may read"):
        columns.refuse_judges("flowing", ["image", "true_flow"])


def test_a_value_of_another_shape_or_type_is_unreadable():
    for column, value, _ in KINDS.values():
        if column.kind != "number":
            wrong = [np.zeros((8, 8, 2), np.float32)] if column.kind == "frames" else np.zeros((7, 7, 7, 2), np.float64)
            with pytest.raises((Unreadable, TypeError, ValueError)):
                column.encode(wrong)
    with pytest.raises(Unreadable, match=r"the points is float32 of shape \(4, 3\), not float32 of \(5, 3\)"):
        KINDS["points"][0].encode(noise(0, (4, 3), np.float32))
    with pytest.raises(Unreadable, match="12 channels, which should be 13"):
        KINDS["bands"][0].encode(noise(0, (8, 8, 12), np.uint8))


# Images


@pytest.mark.parametrize("fit, white", [("crop", (0, 8, 0, 8)), ("stretch", (0, 8, 2, 6)), ("pad", (2, 6, 2, 6))])
def test_how_a_picture_becomes_square(fit, white):
    """A black picture twice as wide as high, its middle half white."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = 255
    top, bottom, left, right = white
    expected = np.zeros((8, 8), bool)
    expected[top:bottom, left:right] = True
    for image in (pixels, encoded(images.Image.fromarray(pixels))):
        assert ((images.encode(image, 8, fit)[2][..., 0] > 128) == expected).all()
    assert ((images.encode(pixels, 8, fit, channels=3)[2][..., 1] > 128) == expected).all()
    assert ((images.decode(encoded(images.Image.fromarray(pixels)), 8, fit)[..., 0] > 128) == expected).all()


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), channels=st.integers(1, 5),
       fit=st.sampled_from(images.FITS), dtype=st.sampled_from([np.uint8, np.uint16]))
@settings(max_examples=40, deadline=None)
def test_all_channels_are_kept(size, channels, fit, dtype):
    pixels = noise(0, (*size, channels), dtype)
    for image in (pixels, images.npy(pixels)):
        extension, stored, found = images.encode(image, 8, fit, channels)
        assert extension == "npy" and found.dtype == dtype and found.shape == (8, 8, channels)
        assert (images.decode(stored, 8) == found).all()
        alone = images.encode(pixels[..., :1], 8, fit, 1)[2]
        assert (found[..., :1] == alone).all()


def test_many_channels_agree_with_pillow_on_pictures():
    pixels = noise(1, (30, 47, 3), np.uint8)
    ours, theirs = images.encode(pixels, 16, "crop", 3)[2], images.encode(pixels, 16)[2]
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_sixteen_bit_png_keeps_its_bits():
    depth = noise(2, (8, 8), np.uint16)
    assert (images.encode(encoded(images.Image.fromarray(depth)), 8, channels=1)[2][..., 0] == depth).all()


def test_a_missing_package_is_one_sentence(monkeypatch):
    for package in ("tifffile", "soundfile", "av"):
        monkeypatch.setitem(sys.modules, package, None)
    clip = Frames("frames", (1, 3, 8, 8))
    for act in (lambda: images.bands(b"II*\0"), lambda: sound.load(b"fLaC"), lambda: clip.encode(b"")):
        with pytest.raises(UserError, match="need the package (tifffile|soundfile|av): pip install"):
            act()


def test_tif_of_many_channels():
    tifffile = pytest.importorskip("tifffile")
    pixels = noise(3, (13, 8, 8), np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="minisblack")
    assert (images.bands(file.getvalue(), 13) == pixels.transpose(1, 2, 0)).all()


# Sound


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_widths_of_wav_files(width):
    pcm = noise(0, (2, 20), np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, width, RATE, 0, "NONE", ""))
        if width == 1:
            raw = ((pcm >> 8) + 128).T.astype(np.uint8).tobytes()
        else:
            raw = b"".join(b"\x07" * (width - 2) + int(x).to_bytes(2, "little", signed=True) for x in pcm.T.ravel())
        out.writeframes(raw)
    found, rate = sound.load(file.getvalue())
    assert rate == RATE and found.dtype == np.int16
    assert (found == (pcm if width > 1 else (pcm >> 8) << 8)).all()


def test_flac():
    soundfile = pytest.importorskip("soundfile")
    pcm, file = noise(0, (2, 500), np.int16), io.BytesIO()
    soundfile.write(file, pcm.T, RATE, format="FLAC", subtype="PCM_16")
    found, rate = sound.load(file.getvalue())
    assert rate == RATE and (found == pcm).all()


@pytest.mark.parametrize("rate", [0, 1])
def test_a_rate_that_would_fill_the_memory_is_unreadable(rate):
    column = Sound("sound", (1, 100), rate=16000)
    whole = sound.wav(noise(0, (1, 20_000), np.int16), RATE)
    lying = whole[:24] + rate.to_bytes(4, "little") + whole[28:]
    with pytest.raises(Unreadable, match="samples"):
        column.decode(lying)


@given(st.binary(max_size=100).filter(lambda junk: not junk.startswith(b"fLaC")))
def test_noise_is_no_sound(junk):
    with pytest.raises(Unreadable):
        sound.load(junk)


@given(st.integers(0, 80))
def test_a_cut_wav_is_unreadable(cut):
    whole = sound.wav(noise(0, (1, 40), np.int16), RATE)
    with pytest.raises(Unreadable):
        sound.load(whole[:cut])


def test_a_sound_at_another_rate_of_another_length():
    second = np.sin(2 * np.pi * 440 * np.arange(4000) / 4000) * 20000
    column = Sound("sound", (1, 10000), rate=RATE)
    _, pcm = column.encode(sound.wav(second[None].astype(np.int16), 4000))
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000) * 20000
    assert pcm.shape == (1, 10000) and (pcm[0, 8000:] == 0).all()
    assert np.abs(pcm[0, 200:7800] - tone[200:7800]).max() < 400
    assert column.encode(np.ones((2, 20000), np.int16))[1].tolist() == [[1] * 10000]  # cut, and its channels averaged


# Frames


def test_frames_are_evenly_spaced():
    column = Frames("frames", (3, 3, 8, 8))
    frames = [np.full((8, 8, 3), i, np.uint8) for i in range(9)]
    members, found = column.encode(frames)
    assert list(members) == ["000.png", "001.png", "002.png"] and found[:, 0, 0, 0].tolist() == [0, 4, 8]
    group = {f"{i:03d}.png": encoded(images.Image.fromarray(frame)) for i, frame in enumerate(frames)}
    shuffled = {name: group[name] for name in sorted(group, reverse=True)}
    assert column.stack([column.parse(column.find(shuffled))])[0, :, 0, 0, 0].tolist() == [0, 4, 8]
    assert Frames("clip", (3, 3, 8, 8)).find(group) is None and Frames("clip", (1, 3, 8, 8)).owns("clip.007.jpg")


def test_frames_of_a_video_file(monkeypatch):
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5, width=16, height=16)
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 50 * i, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _, found = Frames("frames", (3, 3, 8, 8)).encode(file.getvalue())
    assert np.abs(found.mean((1, 2, 3)) - [0, 100, 200]).max() < 6
    monkeypatch.setattr("selfsup.data.video.PIXELS", 4 * 16 * 16 // 4)  # and so four frames of the five
    with pytest.raises(Unreadable, match="more than 1,024 pixels in its frames"):
        Frames("frames", (3, 3, 8, 8)).encode(file.getvalue())


# Existing tars


def test_columns_of_existing_tars_are_named_and_their_shapes_seen(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    some = [(f"{i:03d}", {"jpg": encoded(pil(i, (9, 8)), "JPEG"),
                          "points.npy": images.npy(noise(i, (4, 3), np.float32)),
                          "wav": sound.wav(noise(i, (1, 30), np.int16), RATE), "track.cls": str(i % 4).encode(),
                          **{f"{t}.png": encoded(pil(i + t)) for t in range(3)}}) for i in range(30)]
    write_tar(root / "a.tar", some)
    names = ["image", "points", "sound", "track", "frames"]
    card = shards.write("toy", tar_spec(root, columns=names, fit="pad"), tmp_path / "out", workers=1)
    assert list(columns.of(card).values()) == [
        picture(8, fit="pad"), Array("points", (4, 3)), Sound("sound", (1, 30), rate=RATE), Number("track"),
        Frames("frames", (3, 3, 8, 8), fit="pad")]
    plain = shards.write("toy", tar_spec(root), tmp_path / "plain", workers=1)
    assert plain["columns"] == ["image"] and plain["hash"] != card["hash"]
    resident, streaming = (whole(split) for split in both(tmp_path / "out"))
    assert all(torch.equal(resident[name], streaming[name]) for name in names)
    with pytest.raises(UserError, match="the first sample of .*a.tar has no column pose: its members are jpg"):
        shards.write("toy", tar_spec(root, columns=["pose"]), tmp_path / "out", workers=1)


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_a_limit_of_existing_tars_keeps_the_smallest_hashes(tmp_path, limit):
    root = img2dataset(tmp_path / "raw", tars=3, each=20)
    every = shards.write("toy", tar_spec(root), tmp_path / "all", workers=1)
    card = shards.write("toy", tar_spec(root, limit=limit), tmp_path / "out", workers=1)
    for split, count in every["counts"].items():
        keys = [[key for entry in tars.entries_of(one, tmp_path / name, split)
                 for key, _ in tars.members(tmp_path / name, entry)] for one, name in ((every, "all"), (card, "out"))]
        assert sorted(keys[1]) == sorted(sorted(keys[0], key=tars.fraction)[:limit])
        assert card["counts"][split] == min(limit, count)
