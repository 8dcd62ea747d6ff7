"""Image bytes to square pixels and back."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfsup import shards
from selfsup.data import images
from tests.data.making import encoded, folder_spec, picture


def jpeg(seed, size=(8, 8)):
    return encoded(picture(seed, size), "JPEG", quality=90)


@pytest.mark.parametrize("mode, kind", [
    ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("LA", "PNG"), ("L", "JPEG"),
    ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("I;16", "PNG"), ("RGB", "BMP"), ("RGB", "WEBP"), ("CMYK", "TIFF"),
    ("I;16", "TIFF")])
@pytest.mark.parametrize("size", [(8, 8), (20, 11)])
def test_every_kind_of_image_becomes_rgb(mode, kind, size):
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[::-1]).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(np.stack([ramp] * 3, -1)).convert("RGBA" if mode == "LA" else "RGB").convert(mode)
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    extension, stored, pixels = images.encode(data, 8)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    back = images.decode(stored, 8).astype(int)
    assert np.abs(back - pixels).max() <= (8 if extension == "jpg" and stored != data else 0)
    assert Image.open(io.BytesIO(stored)).mode == "RGB" and Image.open(io.BytesIO(stored)).size == (8, 8)
    assert extension == ("jpg" if kind in ("JPEG", "WEBP") else "png")
    if size == (8, 8) and mode not in ("1", "P"):  # those are dithered
        assert np.abs(pixels.astype(int) - ramp[..., None]).max() <= (12 if kind in ("JPEG", "WEBP") else 2)


@pytest.mark.parametrize("bits, mode, kind", [
    (8, np.uint16, "PNG"), (12, np.uint16, "PNG"), (16, np.uint16, "TIFF"), (12, np.uint16, "JPEG2000"),
    (8, np.int32, "TIFF"), (12, np.int32, "TIFF"), (16, np.int32, "TIFF"), (20, np.int32, "TIFF"), (31, np.int32, "TIFF")])
def test_grey_is_neither_black_nor_white(bits, mode, kind):
    """Whatever part of 16 or 32 bits the values take; what takes 16 is scaled as ever."""
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    pixels = (ramp * (2**bits - 1)).astype(mode)
    shown = images.decode(encoded(Image.fromarray(pixels), kind), 8)
    assert np.abs(shown - 255 * ramp[..., None]).max() <= 1.01
    if bits == 16:
        assert (shown[..., 0] == pixels // 257).all()


def test_unsigned_32_bits():
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    pixels = (ramp * (2**32 - 1)).astype(np.uint32)
    # Pillow writes signed ones alone: the same bytes, said to be unsigned by the lack of a word on it.
    data = encoded(Image.fromarray(pixels.view(np.int32)), "TIFF")
    unsigned = data.replace(b"\x53\x01\x03\x00\x01\x00\x00\x00\x02", b"\x53\x01\x03\x00\x01\x00\x00\x00\x01")
    assert unsigned != data
    assert np.abs(images.decode(unsigned, 8) - 255 * ramp[..., None]).max() <= 1.01


def test_an_empty_grey_image_is_black():
    assert not images.decode(encoded(Image.fromarray(np.zeros((8, 8), np.uint16))), 8).any()


@pytest.mark.parametrize("kind, extension, feature", [
    ("JPEG", "jfif", None), ("AVIF", "avif", "avif"), ("JPEG2000", "jp2", "jpg_2000"), ("JPEG2000", "j2k", "jpg_2000")])
def test_newer_endings_are_read(tmp_path, kind, extension, feature):
    from PIL import features

    if feature and not features.check(feature):
        pytest.skip(f"Pillow here has no {feature}")
    for i in range(20):
        path = tmp_path / f"raw/{'ab'[i % 2]}/{i}.{extension.upper() if i == 3 else extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (0, 118 + i, 138 - i)).save(path, kind)  # no two alike
    card = shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    assert sum(card["counts"].values()) == 20 and card["classes"] == ["a", "b"]
    assert np.allclose(card["mean"], np.array([0, 128, 128]) / 255, atol=0.03)


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (images.decode(encoded(image, "PNG"), 8) == 255).all()


def test_photos_stand_upright():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[images.ORIENTATION] = 3  # upside down
    data = encoded(Image.fromarray(pixels), "JPEG", exif=exif, quality=95)
    _, stored, shown = images.encode(data, 8)
    assert shown[:4].max() < 50 and shown[4:].min() > 200 and np.abs(images.decode(stored, 8).astype(int) - shown).max() < 9
    assert images.ORIENTATION not in Image.open(io.BytesIO(stored)).getexif()


@given(st.integers(8, 60), st.integers(8, 60))
def test_resized_and_cropped_at_the_centre(width, height):
    image = Image.new("RGB", (width, height), "black")
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image.paste("white", (left, top, left + side + (width - side) % 2, top + side + (height - side) % 2))
    assert images.encode(np.asarray(image), 8)[2][1:-1, 1:-1].min() > 200  # the filter mixes in some of what is cut


def test_bytes_are_kept_where_the_size_is_right():
    for kind, extension in [("JPEG", "jpg"), ("PNG", "png")]:
        data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)), kind)
        assert images.encode(data, 8)[:2] == (extension, data)
        assert images.encode(data, 7)[0] == extension


def test_arrays_are_stored_lossless_when_small():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    extension, data, _ = images.encode(pixels, 32)
    assert extension == "png" and (images.decode(data, 32) == pixels).all()
    assert images.encode(pixels, 96)[0] == "jpg"


@given(st.binary(max_size=200))
def test_noise_is_unreadable(data):
    with pytest.raises(images.Unreadable):
        images.decode(data, 8)


@given(st.integers(0, 10**6), st.floats(0.0, 0.9))
def test_a_cut_jpeg_is_unreadable(seed, share):
    data = jpeg(seed, (16, 16))
    with pytest.raises(images.Unreadable):
        images.decode(data[:int(len(data) * share)], 8)


@pytest.mark.parametrize("options", [
    *[{"subsampling": kind, "progressive": way} for kind in (0, 1, 2) for way in (False, True)], {"quality": 100},
    {"quality": 5}, {"restart_marker_blocks": 3}, {"icc_profile": b"colours"}])
def test_the_extra_decoder_of_jpegs_gives_the_same_pixels(options, monkeypatch):
    pytest.importorskip("simplejpeg")
    for size in (7, 8, 96):
        photo = picture(size, (9, 9)).resize((size, size), Image.Resampling.BICUBIC)
        data = encoded(photo, "JPEG", **options)
        assert images._jpeg(data, size) is not None
        quick = images.decode(data, size)
        with monkeypatch.context() as patch:
            patch.setattr(images, "simplejpeg", None)
            assert (quick == images.decode(data, size)).all()


def test_the_extra_decoder_leaves_other_jpegs_to_pillow():
    pytest.importorskip("simplejpeg")
    turned = Image.Exif()
    turned[images.ORIENTATION] = 6
    photo, whole = picture(0, (16, 16)), jpeg(0, (16, 16))
    assert images._jpeg(whole, 16) is not None and images._jpeg(whole, 8) is None
    for other in (encoded(photo, "JPEG", exif=turned), encoded(photo.convert("L"), "JPEG"), whole[:-80],
                  encoded(photo.convert("CMYK"), "JPEG"), encoded(photo, "JPEG", keep_rgb=True), whole[:3]):
        assert images._jpeg(other, 16) is None
