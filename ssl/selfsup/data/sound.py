"""Sound files to PCM and back: `.wav` by the standard library, `.flac` by the optional package soundfile."""

import io
import math
import wave

import numpy as np

from selfsup.data.images import Unreadable
from selfsup.errors import UserError

VALUES = 1 << 28  # most samples of a file, all channels together: 93 minutes at 48 kHz, mono; a small file may say it has more


def load(data):
    """Bytes of a file -> PCM int16 (channels, samples), and samples a second. Raises Unreadable."""
    if data.startswith(b"fLaC"):
        return _flac(data)
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate, count = file.getparams()[:4]
            raw = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise Unreadable(f"not a PCM .wav file: {error}" if str(error) else "a cut .wav file") from None
    if len(raw) < count * channels * width:
        raise Unreadable("a cut .wav file")
    pcm = _int16(raw, width).reshape(-1, channels).T
    if not pcm.size:
        raise Unreadable("a sound without samples")
    return pcm, rate


def _int16(raw, width):
    """Samples of 1 to 4 bytes: the upper 16 bits, as 8-bit .wav files count from 128."""
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.int16) - 128) << 8
    parts = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return np.ascontiguousarray(parts[:, -2:]).view("<i2")[:, 0].astype(np.int16)


def _flac(data):
    try:
        import soundfile
    except ImportError:
        raise UserError("sounds in .flac files need the package soundfile: pip install soundfile") from None
    try:
        about = soundfile.info(io.BytesIO(data))
        limit(about.frames * about.channels)
        pcm, rate = soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Unreadable(str(error)) from None
    if not pcm.size:
        raise Unreadable("a sound without samples")
    return pcm.T, rate


def limit(values):
    if values > VALUES:
        raise Unreadable(f"{values:,} samples of sound, more than {VALUES:,}")


def resampled(pcm, rate, wanted):
    """(channels, samples) at another rate, band-limited. Raises Unreadable."""
    if rate == wanted:
        return pcm
    if rate < 1:
        raise Unreadable(f"a sound of {rate} samples a second")
    limit(pcm.size * wanted // rate)
    from scipy.signal import resample_poly

    divisor = math.gcd(rate, wanted)
    out = resample_poly(pcm.astype(np.float64), wanted // divisor, rate // divisor, axis=1)
    return out.round().clip(-2**15, 2**15 - 1).astype(np.int16)


def fitted(pcm, channels, samples):
    """Cut or padded with silence to (channels, samples); channels are averaged into one, or one repeated."""
    if len(pcm) != channels:
        if channels != 1 and len(pcm) != 1:
            raise Unreadable(f"{len(pcm)} channels of sound, which should be {channels}")
        pcm = pcm.astype(np.int32).mean(0, keepdims=True).round().astype(np.int16).repeat(channels, 0)
    pcm = pcm[:, :samples]
    return np.pad(pcm, ((0, 0), (0, samples - pcm.shape[1])))


def wav(pcm, rate):
    """PCM int16 (channels, samples) -> the bytes of a .wav file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((len(pcm), 2, rate, 0, "NONE", ""))
        file.writeframes(pcm.T.astype("<i2").tobytes())
    return out.getvalue()
