"""Image bytes to square pixels and back. Needs Pillow and numpy only, so that worker processes start fast.

Pictures are 8-bit RGB, whatever their file holds. Images of other channels (grey, depth, 13 bands of a satellite) keep
them, with 8 or 16 bits, and are stored as `.npy`."""

import io

import numpy as np
from PIL import Image, ImageOps

from selfsup.errors import UserError

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm")
ORIENTATION = 0x0112  # the EXIF tag
FITS = ("crop", "stretch", "pad")  # how an image becomes square
NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*")  # how such files begin
SMALL = 64  # pixels; up to here an image of unknown origin is stored lossless


class Unreadable(Exception):
    """A sample that cannot be used: the reason, without the file's name."""


def decode(data, size, fit="crop"):
    """Image file bytes -> (size, size, C), uint8 RGB of a picture, upright; uint8 or uint16 of an `.npy` file.

    fit "crop": the shorter side resized to `size`, centre cropped; "stretch": each side resized to it; "pad": the
    longer side resized to it, black beside. Raises Unreadable for whatever cannot be read in full."""
    if data.startswith(NPY):
        return resized(bands(data), size, fit)
    return np.asarray(square(load(data), size, fit))


def encode(image, size, fit="crop", channels=None):
    """What a shard stores of an image, and its pixels: (extension, bytes, (size, size, C)).

    `image` is file bytes, a Pillow image or an array (H, W, C) or (H, W). channels None: it becomes uint8 RGB. An
    upright RGB JPEG or PNG of the right size keeps its bytes. All else is encoded anew: as PNG, or if lossy before or a
    large photo as JPEG, quality 95. Otherwise it has that many channels of 8 or 16 bits, and becomes `.npy`."""
    if channels is not None:
        pixels = resized(bands(image, channels), size, fit)
        return "npy", npy(pixels), pixels
    original = image
    if isinstance(image, bytes):
        image = load(image)
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    kind = image.format  # lost by every later step; None for an array
    fits = kind in ("JPEG", "PNG") and image.mode == "RGB" and image.size == (size, size)
    if fits and isinstance(original, bytes) and image.getexif().get(ORIENTATION, 1) == 1:
        return "jpg" if kind == "JPEG" else "png", original, np.asarray(image)
    image = square(image, size, fit)
    lossy = kind in ("JPEG", "MPO", "WEBP") or (kind is None and size > SMALL)
    file = io.BytesIO()
    if lossy:
        image.save(file, "JPEG", quality=95, subsampling=0)
        return "jpg", file.getvalue(), decode(file.getvalue(), size)
    image.save(file, "PNG")
    return "png", file.getvalue(), np.asarray(image)


def load(data):
    if not data:
        raise Unreadable("empty file")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error and more
        reason = str(error) if not isinstance(error, Image.UnidentifiedImageError) else "not an image"
        raise Unreadable(reason or type(error).__name__) from None
    return image


def square(image, size, fit="crop"):
    """Any Pillow image -> RGB of size x size."""
    image = rgb(image)
    if image.size == (size, size):
        return image
    box, shape, corner = placed(*image.size, size, fit)
    image = image.resize(shape, Image.Resampling.BICUBIC, box=box)
    if shape == (size, size):
        return image
    whole = Image.new("RGB", (size, size))
    whole.paste(image, corner)
    return whole


def placed(width, height, size, fit):
    """Which part of an image is taken, (left, top, right, bottom), to which size it is brought, and where it lies."""
    if fit == "stretch":
        return (0, 0, width, height), (size, size), (0, 0)
    if fit == "pad":
        side = max(width, height)
        shape = tuple(max(1, round(length * size / side)) for length in (width, height))
        return (0, 0, width, height), shape, tuple((size - length) // 2 for length in shape)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side), (size, size), (0, 0)


def rgb(image):
    """8-bit RGB, turned upright by its EXIF tag; 16 bits are scaled, transparency is laid on white."""
    try:
        image = ImageOps.exif_transpose(image) if "exif" in image.info else image
    except Exception:  # a damaged EXIF block says nothing about the pixels
        pass
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.int64)
        return Image.fromarray((pixels.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


# Images that are no pictures


def bands(image, channels=None):
    """(H, W, C) uint8 or uint16 of an array, a Pillow image, or the bytes of an `.npy`, `.tif` or other image file.

    An array whose last axis has not `channels` entries but its first has is turned."""
    if isinstance(image, bytes):
        image = load_npy(image) if image.startswith(NPY) else _tiff(image) if image.startswith(TIFF) else load(image)
    array = np.asarray(image)
    if array.dtype == np.int32 and array.min() >= 0 and array.max() < 2**16:  # Pillow's mode of a 16-bit PNG
        array = array.astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        raise Unreadable(f"{array.dtype} pixels, which should be uint8 or uint16")
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size:
        raise Unreadable(f"an array of shape {array.shape} is no image")
    if channels and array.shape[2] != channels and array.shape[0] == channels:
        array = array.transpose(1, 2, 0)
    if channels and array.shape[2] != channels:
        raise Unreadable(f"{array.shape[2]} channels, which should be {channels}")
    return array


def resized(array, size, fit="crop"):
    """(H, W, C) -> (size, size, C) of the same type, each channel as `square` does it."""
    height, width, channels = array.shape
    if height == width == size:
        return array
    box, shape, (left, top) = placed(width, height, size, fit)
    out = np.zeros((size, size, channels), array.dtype)
    most = np.iinfo(array.dtype).max
    for c in range(channels):
        band = Image.fromarray(array[..., c].astype(np.float32)).resize(shape, Image.Resampling.BICUBIC, box=box)
        out[top:top + shape[1], left:left + shape[0], c] = np.asarray(band).round().clip(0, most)
    return out


def npy(array):
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def load_npy(data):
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a cut header raises what its parser happens to
        raise Unreadable(f"not an .npy array: {error}") from None


def _tiff(data):
    try:
        import tifffile
    except ImportError:
        raise UserError("many channels in .tif files need the package tifffile: pip install tifffile") from None
    try:
        return tifffile.imread(io.BytesIO(data))
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from None
