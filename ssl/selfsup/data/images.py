"""Image bytes to square RGB pixels and back. Needs Pillow and numpy only, so that worker processes start fast."""

import io

import numpy as np
from PIL import Image, ImageOps

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm")
ORIENTATION = 0x0112  # the EXIF tag
SMALL = 64  # pixels; up to here an image of unknown origin is stored lossless


class Unreadable(Exception):
    """A sample that cannot be used: the reason, without the file's name."""


def decode(data, size):
    """Image file bytes -> uint8 (size, size, 3): upright, shorter side resized to `size`, centre cropped.

    Raises Unreadable for whatever Pillow cannot read in full."""
    return np.asarray(square(load(data), size))


def encode(image, size):
    """What a shard stores of an image, and its pixels: (extension, bytes, uint8 (size, size, 3)).

    `image` is file bytes, a Pillow image or a uint8 array (H, W, 3) or (H, W). An upright RGB JPEG or PNG of the right
    size keeps its bytes. All else is encoded anew: as PNG, or if lossy before or a large photo as JPEG, quality 95."""
    original = image
    if isinstance(image, bytes):
        image = load(image)
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    kind = image.format  # lost by every later step; None for an array
    fits = kind in ("JPEG", "PNG") and image.mode == "RGB" and image.size == (size, size)
    if fits and isinstance(original, bytes) and image.getexif().get(ORIENTATION, 1) == 1:
        return "jpg" if kind == "JPEG" else "png", original, np.asarray(image)
    image = square(image, size)
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


def square(image, size):
    """Any Pillow image -> RGB of size x size."""
    image = rgb(image)
    width, height = image.size
    if width == height == size:
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


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
