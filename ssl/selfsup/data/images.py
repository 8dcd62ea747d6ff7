"""Image bytes to square pixels and back. Needs Pillow and numpy only, so that worker processes start fast.

Pictures are 8-bit RGB, whatever their file holds. Images of other channels (grey, depth, 13 bands of a satellite) keep
them, with 8 or 16 bits, and are stored as `.npy`."""

import contextlib
import io
import math

import numpy as np
from PIL import Image, ImageOps

from selfsup.errors import UserError

try:
    import simplejpeg  # optional: JPEG in two thirds of Pillow's time, since nothing is copied
except ImportError:
    simplejpeg = None

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "jfif", "jpe", "avif", "jp2",
              "j2k", "pnm")
# What a file may be, whatever its name: Pillow knows more, and for some, as PostScript, it runs a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
PIXELS = 178_956_970  # most of an image, Pillow's own limit: a file of 34 bytes may say that it has more
BANDS = 4  # so many times PIXELS are the most values of an array
ORIENTATION, SIGN = 0x0112, 0x0153  # the EXIF tag; TIFF's SampleFormat, 2 where integers are signed
FITS = ("crop", "stretch", "pad")  # how an image becomes square
JPEG, EXIF = b"\xff\xd8", b"Exif\0\0"
NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*")  # how such files begin
SMALL = 64  # pixels; up to here an image of unknown origin is stored lossless


class Unreadable(Exception):
    """A sample that cannot be used: the reason, without the file's name."""


@contextlib.contextmanager
def blamed():
    """Whatever a decoder raises in the block is the sample's fault: Unreadable. Bytes from anywhere reach every corner
    of the libraries that read them, whose authors did not foresee all that may stand there."""
    try:
        yield
    except (Unreadable, UserError):
        raise
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error


def decode(data, size, fit="crop"):
    """Image file bytes -> (size, size, C), uint8 RGB of a picture, upright; uint8 or uint16 of an `.npy` file.

    fit "crop": the shorter side resized to `size`, centre cropped; "stretch": each side resized to it; "pad": the
    longer side resized to it, black beside. Raises Unreadable for whatever cannot be read in full."""
    if data.startswith(NPY):
        return resized(bands(data), size, fit)
    pixels = _jpeg(data, size) if simplejpeg and data.startswith(JPEG) else None
    return np.asarray(square(load(data), size, fit)) if pixels is None else pixels


def _jpeg(data, size):
    """The pixels of a flawless JPEG that has the size and no EXIF, the same as Pillow's; None of any other."""
    if EXIF in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        ordinary = colours == "YCbCr" and height == width == size
        return simplejpeg.decode_jpeg(data, "RGB") if ordinary else None
    except ValueError:  # Pillow says what is wrong, or reads it nevertheless
        return None


def encode(image, size, fit="crop", channels=None):
    """What a shard stores of an image, and the pixels that it is stored of: (extension, bytes, (size, size, C)). Those
    that are read back are the same but of a JPEG that was encoded anew.

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
    if fits and isinstance(original, bytes) and _upright(image):
        return "jpg" if kind == "JPEG" else "png", original, np.asarray(image)
    image = square(image, size, fit)
    lossy = kind in ("JPEG", "MPO", "WEBP") or (kind is None and size > SMALL)
    file = io.BytesIO()
    if lossy:
        image.save(file, "JPEG", quality=95, subsampling=0)
        return "jpg", file.getvalue(), np.asarray(image)
    image.save(file, "PNG")
    return "png", file.getvalue(), np.asarray(image)


def load(data):
    """Bytes of a file -> a Pillow image, decoded. Raises Unreadable."""
    if not data:
        raise Unreadable("empty file")
    try:
        width, height = _webp_size(data)
        if width * height <= PIXELS:  # else what follows would take the memory to look at it
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
        if width * height > PIXELS:
            raise Unreadable(f"{width} x {height} pixels, more than {PIXELS:,}")
        image.load()
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error and more
        reason = str(error) if not isinstance(error, Image.UnidentifiedImageError) else "not an image"
        raise Unreadable(reason or type(error).__name__) from None
    return image


def _webp_size(data):
    """What the header of a WebP file says, (0, 0) of any other: some of Pillow's versions make room for all pixels when
    they open one."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return tuple(int.from_bytes(data[at:at + 2], "little") & 0x3FFF for at in (26, 28))


def _upright(image):
    try:
        return image.getexif().get(ORIENTATION, 1) == 1
    except Exception:  # a damaged block: whoever reads the file may stumble over it as well
        return False


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
    """8-bit RGB, turned upright by its EXIF tag; transparency is laid on white.

    Integers of 16 or 32 bits are grey values of 8, 12 or 16 bits, whichever is the least that the image's largest one
    fits in, and beyond of as many bits as that one needs: cameras and scanners leave the upper bits 0, and no file says
    so. Thus one image's white may be another's grey; where values must mean the same in all, `channels` keeps them."""
    try:
        image = ImageOps.exif_transpose(image) if "exif" in image.info else image
    except Exception:  # a damaged EXIF block says nothing about the pixels
        pass
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        if pixels.dtype == np.int32 and getattr(image, "tag_v2", {SIGN: (2,)}).get(SIGN, (1,)) != (2,):
            pixels = pixels.view(np.uint32)  # which Pillow takes for signed
        return Image.fromarray(_eight_bits(pixels)).convert("RGB")
    if image.mode == "F":
        raise Unreadable("floating-point pixels have no known range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(pixels):
    """Integers (H, W) as uint8, by the rule that `rgb` states."""
    pixels = pixels.astype(np.int64).clip(0)
    needed = int(pixels.max()).bit_length()
    bits = next((bits for bits in (8, 12, 16) if needed <= bits), needed)
    return (pixels * 255 // (2**bits - 1)).astype(np.uint8)


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
    if array.ndim != 3 or not array.size or array.size > BANDS * PIXELS:
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
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            if math.prod(file.series[0].shape) > BANDS * PIXELS:
                raise Unreadable(f"an array of shape {file.series[0].shape} is too large")
            return file.asarray()
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(str(error) or type(error).__name__) from None
