"""What a team shares is data: each kind of JSON file has its schema here, and is held against it when it is read.

Wrong types, names that lead out of a folder and files cut short are one sentence each. What is read is what the file
says, unconverted; keys that the schema does not name are left alone."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from .errors import UserError

Name = Annotated[str, Field(pattern=r"\A[A-Za-z0-9_-]+\z")]  # of runs and data sets, which become paths
Word = Annotated[str, Field(pattern=r"\A[A-Za-z0-9_.:/-]+\z")]  # of architectures
Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Hash = Annotated[str, Field(pattern=r"\A[0-9a-f]+\z")]


class Part(TypedDict):
    """A network: its name and its arguments."""

    name: Word


class Of(TypedDict):
    """The data set that an encoder was trained on."""

    name: Name
    hash: Hash


class Column(TypedDict):
    kind: Name
    shape: list[Whole]
    dtype: Name


class Encoder(TypedDict):
    """encoder.json. Data without images have neither mean, std nor size."""

    parts: dict[Name, Part]
    takes: NotRequired[Name]
    column: NotRequired[Column]
    dim: NotRequired[Count]
    mean: NotRequired[list[Number] | None]
    std: NotRequired[list[Positive] | None]
    size: NotRequired[Count | None]
    run: NotRequired[Name]
    method: NotRequired[Name]
    seed: NotRequired[Whole]
    data: NotRequired[Of]
    args: NotRequired[dict[str, Any]]
    train: NotRequired[dict[str, Any]]
    images: NotRequired[Whole]
    steps: NotRequired[Whole]
    code: NotRequired[Hash]
    classes: NotRequired[list[str] | None]
    labels: NotRequired[int | float]


class Shard(TypedDict):
    """One tar, or what of it is in one split."""

    file: str
    count: Whole
    keys: NotRequired[list[Number] | None]
    skip: NotRequired[list[Whole]]
    torn: NotRequired[bool]


class Twins(TypedDict):
    """How many samples stand in two splits: left out of a carved one, or counted between given ones."""

    left_out: NotRequired[dict[str, Whole]]
    between: NotRequired[dict[str, dict[str, Whole]]]


class Card(TypedDict):
    """card.json, of a folder of shards."""

    size: Count | None
    columns: list[str]
    classes: list[str] | None
    counts: dict[str, Whole]
    shards: dict[str, list[Shard]]
    mean: list[Number] | None
    std: list[Positive] | None
    hash: Hash
    name: NotRequired[Name]
    schema: NotRequired[dict[str, Column]]
    caption_length: NotRequired[Whole]
    token_counts: NotRequired[list[Whole]]
    concepts: NotRequired[list[Whole]]
    channels: NotRequired[Count]
    class_counts: NotRequired[dict[str, list[Whole]]]
    unlabelled: NotRequired[dict[str, Whole]]
    new_classes: NotRequired[list[str]]
    twins: NotRequired[Twins]
    attributes: NotRequired[dict[str, Count | None]]  # of the column of that name: how many values, None: a measure


class Made(TypedDict):
    """When, where and by what a seed was trained: provenance.py."""

    date: str
    machine: str
    versions: dict[str, str]
    commit: NotRequired[str]


class Cost(TypedDict):
    seconds: NotRequired[Number]
    images_per_second: NotRequired[Number]
    steps: NotRequired[Whole]
    images: NotRequired[Whole]
    peak_memory_mb: NotRequired[Number | None]
    flops_per_image: NotRequired[Number | None]
    parameters: NotRequired[Whole]
    parameters_method: NotRequired[Whole]
    device: NotRequired[str]
    processes: NotRequired[Count]
    weights: NotRequired[Hash]
    made: NotRequired[Made]


class Told(TypedDict):
    """A table of texts, of a run's texts.json."""

    headings: list[str]
    rows: list[list[str]]


class Costs(TypedDict):
    """cost.json of a run."""

    seeds: dict[str, Cost]


class Seed(TypedDict):
    accuracy: NotRequired[Number]
    low: NotRequired[Number]
    high: NotRequired[Number]


class Result(TypedDict):
    """What a protocol says of a run: <protocol>.json."""

    seeds: NotRequired[dict[str, Seed]]
    accuracy: NotRequired[Number]
    low: NotRequired[Number]
    high: NotRequired[Number]
    interval: NotRequired[str]
    skipped: NotRequired[str]


class Trial(TypedDict):
    """A recipe that was tried, and what it found: accuracies on val, or why there is none."""

    lr: Positive
    args: dict[str, Any]
    key: Hash
    knn: NotRequired[Number]
    linear: NotRequired[Number]
    failed: NotRequired[str]


class Recipe(TypedDict):
    lr: Positive
    args: dict[str, Any]


class Tuned(TypedDict):
    """The trials of a run. recipe: what it was tuned from. chosen: the number of a trial, from 1."""

    recipe: Recipe
    trials: list[Trial]
    chosen: Count | None


class Tuning(TypedDict):
    """tune.json of an experiment."""

    runs: dict[Name, Tuned]


TRAINED = ("run", "method", "seed", "data", "args", "train", "images", "steps", "code")  # what training writes always
Row = dict[str, int | float | str | bool | list | None]  # of history.jsonl and judged.jsonl


def encoder(folder, *needed):
    """encoder.json of an encoder folder, with the keys `needed`."""
    path = Path(folder) / "encoder.json"
    info = read(path, Encoder)
    if missing := [key for key in needed if key not in info]:
        raise UserError(f"{path} lacks {', '.join(missing)}; {remedy(path)}")
    return info


def costs(path):
    return read(path, Costs, "get it back with git or `dvc repro`")


def texts(path):
    return read(path, dict[str, Told])


def result(path):
    return read(path, Result, "get it back with git or `dvc repro`")


def tuning(path):
    return read(path, Tuning, "get it back with git, or delete it and run `make tune`")


def rows(path):
    """The rows of a history.jsonl or judged.jsonl."""
    return [_checked(path, line, Row, None) for line in _text(path, None).splitlines()]


def read(path, schema, again=None):
    """The contents of a JSON file. Raises UserError where it is damaged or not what `schema` says, with what to do
    `again`; by default that is what DVC can do for an output of a stage."""
    return _checked(path, _text(path, again), schema, again)


def _text(path, again):
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); {again or remedy(path)}") from None


def _checked(path, text, schema, again):
    try:
        content = json.loads(text)
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"] if not str(step).startswith(("list[", "constrained")))
        raise UserError(f"{path} is damaged ({where}: {first['msg']}, not {first['input']!r:.60}); "
                        f"{again or remedy(path)}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); {again or remedy(path)}") from None
    return content


@lru_cache
def _adapter(schema):
    return TypeAdapter(schema)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remedy(path):
    """What brings a damaged file of a stage's output back, in words.

    DVC believes its cache: an object that came damaged from a remote without `verify` is checked out again and again,
    so where it is one, it has to go first."""
    usual = "get it with `dvc checkout --force` or `dvc pull`"
    path = Path(path).resolve()
    root = next((folder for folder in path.parents if (folder / "dvc.lock").exists()), None)
    if root is None:
        return usual
    cache = root / ".dvc/cache/files/md5"
    try:
        stages = yaml.load((root / "dvc.lock").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        outs = {root / out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
        top = next(folder for folder in path.parents if folder in outs)
        files = json.loads((cache / outs[top][:2] / outs[top][2:]).read_text())
        md5 = next(file["md5"] for file in files if file["relpath"] == path.relative_to(top).as_posix())
        kept = cache / md5[:2] / md5[2:]
        with open(kept, "rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() == md5:
                return usual
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, yaml.YAMLError):
        return usual  # there may be no cache here, or the lock be of another experiment
    return f"DVC's copy is damaged, too: `rm {kept.relative_to(root)}`, `rm -r {top.relative_to(root)}` and `dvc pull`"
