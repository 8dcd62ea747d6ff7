"""Kinds of column: which members of a tar hold its values, how a value becomes bytes and back, and its shape and type.

A sample's members are named KEY.COLUMN.EXTENSION, those of the columns image, label, caption, sound and frames
KEY.EXTENSION alone, as other tools write them; the extensions are those that any WebDataset reader decodes. All values
of a column have one shape and one type, so that a batch is an array. `parse` is cheap (a reader may hold many parsed
samples in memory), `stack` is what takes the time.
"""

import dataclasses
import json
import re
from dataclasses import dataclass, field

import numpy as np

from selfsup.data import images, sound, video
from selfsup.data.images import EXTENSIONS, Unreadable
from selfsup.errors import UserError

JUDGES = ("boxes", "mask", "motion", "true_flow")  # the truth about a scene: judges measure by it, no method learns it
DIGITS = 18  # of a number at most: more do not fit 64 bits
VIDEOS = ("mp4", "webm", "mkv", "avi", "mov")


@dataclass(frozen=True)
class Column:
    """What all kinds have: a name, the `shape` of a value and its `dtype`, of numpy and torch."""

    name: str
    shape: tuple = ()
    dtype: str = "int64"

    kind = ""
    extensions = ()
    bare = ()  # names of which the members are an extension only
    told = False  # whether those may stand in the sample's .json instead, under their name

    def __post_init__(self):
        names = [f"{self.name}.{extension}" for extension in self.extensions]
        object.__setattr__(self, "members", [*self.extensions, *names] if self.name in self.bare else names)

    @property
    def bytes(self):
        """Of one value in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def entry(self):
        """What a card says of it; `of` reads it."""
        extra = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                 if f.compare and f.name not in ("name", "shape", "dtype") and getattr(self, f.name) != f.default}
        return {"kind": self.kind, "shape": list(self.shape), "dtype": self.dtype, **extra}

    def owns(self, member):
        return member in self.members or member == "json" and self.told and self.name in self.bare

    def find(self, group):
        """Of the {member: bytes} of a sample, this column's; None if there is none."""
        found = next((group[name] for name in self.members if name in group), None)
        return _told(group["json"], self.name) if found is None and "json" in group and self.owns("json") else found

    def parse(self, raw):
        """A value, still encoded. Raises Unreadable where it is not what it should be, or `raw` if that says why."""
        if raw is None:
            raise Unreadable(f"no {self.name}")
        if isinstance(raw, Unreadable):
            raise raw
        return raw

    def stack(self, values):
        """(n, *shape) of parsed values. Raises Unreadable."""
        out = np.empty((len(values), *self.shape), self.dtype)
        for row, value in zip(out, values):  # each to where it belongs, so that no two copies of a batch are held
            row[...] = self.decode(value)
        return out

    def member(self, extension):
        return extension if self.name in self.bare else f"{self.name}.{extension}"

    def checked(self, array):
        if array.shape != tuple(self.shape) or array.dtype != self.dtype:
            raise Unreadable(f"the {self.name} is {array.dtype} of shape {array.shape}, not {self.dtype} of "
                             f"{tuple(self.shape)}")
        return array


@dataclass(frozen=True)
class Image(Column):
    """(C, H, W), uint8 or uint16; H = W. A picture is 8-bit RGB, in the files that people keep pictures in; all else is
    `.npy`, (H, W, C). `fit` says how the images of existing tars become square."""

    dtype: str = "uint8"
    fit: str = "crop"
    picture: bool = True

    kind, bare = "image", ("image",)

    @property
    def extensions(self):
        return EXTENSIONS if self.picture else ("npy",)

    def encode(self, value):
        """-> ({member: bytes}, (C, H, W)) of file bytes, a Pillow image or an array (H, W, C) or (H, W)."""
        channels = None if self.picture else self.shape[0]
        extension, data, pixels = images.encode(value, self.shape[1], self.fit, channels)
        return {self.member(extension): data}, self.checked(pixels.transpose(2, 0, 1))

    def decode(self, value):
        return self.checked(images.decode(value, self.shape[1], self.fit).transpose(2, 0, 1))


@dataclass(frozen=True)
class Number(Column):
    """An integer that counts from 0, as a class or a cluster; -1 where it is missing."""

    kind, extensions, bare, told = "number", ("cls",), ("label",), True

    def parse(self, raw):
        text = super().parse(raw).decode("utf-8", "replace").strip()
        if len(text) > DIGITS:
            raise Unreadable(f"the {self.name} {text[:DIGITS]!r} … has {len(text)} characters")
        if text != "-1" and not (text.isascii() and text.isdigit()):
            negative = text[:1] == "-" and text[1:].isdigit()
            why = "is negative (-1 means that it is missing)" if negative else "is not a number"
            raise Unreadable(f"the {self.name} {text!r} {why}" if text else f"no {self.name}")
        return int(text)

    def encode(self, value):
        return {self.member("cls"): str(value).encode()}, value

    def stack(self, values):
        return np.array(values, np.int64)


@dataclass(frozen=True)
class Text(Column):
    """Token ids (L,), as many as the longest training text has: cut, or padded with 0. `tokenizer` is the data
    set's."""

    tokenizer: object = field(default=None, compare=False, repr=False)

    kind, extensions, bare, told = "text", ("txt",), ("caption",), True

    def parse(self, raw):
        try:
            return super().parse(raw).decode("utf-8")
        except UnicodeDecodeError:
            raise Unreadable(f"the {self.name} is not UTF-8") from None

    def encode(self, value):
        return {self.member("txt"): value.encode()}, value

    def stack(self, values):
        length = self.shape[0]
        self.tokenizer.enable_truncation(length)
        self.tokenizer.enable_padding(length=length, pad_id=0, pad_token="[PAD]")
        return np.array([encoding.ids for encoding in self.tokenizer.encode_batch(values)], np.int64)


@dataclass(frozen=True)
class Sound(Column):
    """PCM (channels, samples), int16, `rate` samples a second: cut at its end, or padded with silence."""

    dtype: str = "int16"
    rate: int = 16000

    kind, extensions, bare = "sound", ("wav", "flac"), ("sound",)

    def encode(self, value):
        """-> ({member: bytes}, (channels, samples)) of file bytes, or of an array of that shape or (samples,)."""
        if isinstance(value, bytes):
            pcm = self.decode(value)
        else:
            pcm = self.checked(sound.fitted(np.atleast_2d(value), *self.shape))
        return {self.member("wav"): sound.wav(pcm, self.rate)}, pcm

    def decode(self, value):
        pcm, rate = sound.load(value)
        return self.checked(sound.fitted(sound.resampled(pcm, rate, self.rate), *self.shape))


@dataclass(frozen=True)
class Frames(Column):
    """(T, 3, H, W) uint8: evenly spaced frames of those there are, first and last among them. Members are numbered
    pictures, 000.jpg …, or a video file, which is decoded by the package av."""

    dtype: str = "uint8"
    fit: str = "crop"

    kind, bare = "frames", ("frames",)

    def __post_init__(self):
        prefix = f"(?:{re.escape(self.name)}[.])" + ("?" if self.name in self.bare else "")
        pattern = f"{prefix}(?:([0-9]+)[.](?:{'|'.join(EXTENSIONS)})|(?:{'|'.join(VIDEOS)}))"
        object.__setattr__(self, "pattern", re.compile(pattern))

    def owns(self, member):
        return self.pattern.fullmatch(member) is not None

    def find(self, group):
        matches = ((self.pattern.fullmatch(name), data) for name, data in group.items())
        found = [(match[1], data) for match, data in matches if match]
        numbered = sorted((int(number), data) for number, data in found if number is not None)
        bad = next((data for _, data in found if isinstance(data, Unreadable)), None)
        return bad or [data for _, data in numbered] or next((data for _, data in found), None)

    def parse(self, raw):
        raw = super().parse(raw)
        return raw if isinstance(raw, bytes) else self.spaced(raw)

    def spaced(self, frames):
        return [frames[i] for i in np.linspace(0, len(frames) - 1, self.shape[0]).round().astype(int)]

    def encode(self, value):
        """-> ({member: bytes}, (T, 3, H, W)) of a video file's bytes, or a list of what an Image is encoded from."""
        frames = self.spaced(video.frames(value) if isinstance(value, bytes) else value)
        encoded = [images.encode(frame, self.shape[-1], self.fit) for frame in frames]
        members = {self.member(f"{i:03d}.{extension}"): data for i, (extension, data, _) in enumerate(encoded)}
        return members, self.checked(np.stack([pixels.transpose(2, 0, 1) for *_, pixels in encoded]))

    def decode(self, value):
        size = self.shape[-1]
        if isinstance(value, bytes):
            frames = [np.asarray(images.square(image, size, self.fit)) for image in self.spaced(video.frames(value))]
        else:
            frames = [images.decode(data, size, self.fit) for data in value]
        return self.checked(np.stack(frames).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Array(Column):
    """Numbers of any one shape and type: points, poses, flow, boxes."""

    dtype: str = "float32"

    kind, extensions = "array", ("npy",)

    def encode(self, value):
        value = self.decode(value) if isinstance(value, bytes) else self.checked(np.asarray(value))
        return {self.member("npy"): images.npy(value)}, value

    def decode(self, value):
        return self.checked(images.load_npy(value))


KINDS = {kind.kind: kind for kind in (Image, Number, Text, Sound, Frames, Array)}


def _told(raw, name):
    """What the JSON of a sample says of `name`, as bytes; None where it says nothing, or is no JSON."""
    try:
        value = json.loads(raw)[name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return None if value is None else value.encode() if isinstance(value, str) else json.dumps(value).encode()


def picture(size, name="image", fit="crop"):
    return Image(name, (3, size, size), fit=fit)


def standard(name, size, length=0):
    """The column `name` as it was before cards had a `schema`; None for one that came later."""
    known = {"image": picture(size), "label": Number("label"), "caption": Text("caption", (length,)),
             "cluster": Number("cluster")}
    return known.get(name)


def of(card):
    """{name: Column} of a card, also of one from before cards had a `schema`."""
    if "schema" not in card:
        return {name: standard(name, card["size"], card.get("caption_length", 0)) for name in card["columns"]}
    schema = {name: dict(entry) for name, entry in card["schema"].items()}
    return {name: KINDS[entry.pop("kind")](name, tuple(entry.pop("shape")), **entry) for name, entry in schema.items()}


def found(name, group, size):
    """The column `name` as the {member: bytes} of one sample show it; None where they have no such."""
    for column in (picture(size, name), Number(name), Text(name), Frames(name, (1, 3, size, size))):
        raw = column.find(group)
        if raw is not None:
            many = len(raw) if column.kind == "frames" and isinstance(raw, list) else 16
            return dataclasses.replace(column, shape=(many, *column.shape[1:])) if column.kind == "frames" else column
    raw = Sound(name).find(group)
    if raw is not None:
        pcm, rate = sound.load(Sound(name).parse(raw))
        return Sound(name, pcm.shape, rate=rate)
    raw = Array(name).find(group)
    if raw is None:
        return None
    array = images.load_npy(Array(name).parse(raw))
    return Array(name, array.shape, str(array.dtype))


def refuse_judges(method, wanted):
    """A UserError where the method called `method` asks for a column that is for judges alone."""
    for name in wanted:
        if name in JUDGES:
            others = ", ".join(other for other in JUDGES if other != name)
            raise UserError(f"method {method} asks for the column '{name}', which only judges may read: it is the "
                            f"truth that they measure by (as are {others})")
