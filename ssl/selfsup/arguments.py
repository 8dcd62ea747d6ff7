"""Types and ranges of what a user can set, stated once: on the function or class that takes the value.

A part (method, source, encoder, protocol) annotates its arguments, as in `temperature: Temperature = 0.5`; `config`
reads the annotations and holds params.yaml against them. Nothing heavy is imported here, so that parts stay light."""

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Range:
    """Bounds of a number, or of the length of a text or list (as `Range(min_length=1)`). None is no bound."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    distinct: bool = False  # no value twice
    ascending: bool = False  # none smaller than the one before


LARGEST = 2**63 - 1  # of an int64
Count = Annotated[int, Range(ge=1, le=LARGEST)]
Whole = Annotated[int, Range(ge=0, le=LARGEST)]
Positive = Annotated[float, Range(gt=0)]  # and finite, as all numbers
NotNegative = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, lt=1)]
Proportion = Annotated[float, Range(ge=0, le=1)]
Text = Annotated[str, Range(min_length=1)]

Batch = Annotated[int, Range(ge=2, le=2**20)]  # losses, norms and what is measured of embeddings compare images

# What methods and networks are built of. Upper bounds are those of a slip, not of a machine's memory; beyond those of
# the numbers float32 overflows, or a change of them changes nothing.
Width = Annotated[int, Range(ge=1, le=2**20)]  # of a layer, an embedding, a queue
Depth = Annotated[int, Range(ge=1, le=256)]  # layers, blocks; heads of one
Pixels = Annotated[int, Range(ge=1, le=2**14)]
Side = Annotated[int, Range(ge=16, le=2**14)]  # pixels, of a view that has a size of its own
Channels = Annotated[int, Range(ge=1, le=2**10)]
Clusters = Annotated[int, Range(ge=2, le=2**30)]
Vocabulary = Annotated[int, Range(ge=5, le=2**20)]  # tokens, four of which stand for no word
Rate = Annotated[int, Range(ge=100, le=10**6)]  # samples of sound a second
Rounds = Annotated[int, Range(ge=1, le=10_000)]  # of what is repeated
Temperature = Annotated[float, Range(ge=1e-3, le=1e3)]
Weight = Annotated[float, Range(ge=0, le=1e6)]  # of a term of the loss, or a margin in it
Scale = Annotated[float, Range(ge=1e-3, le=1e6)]
Norm = Literal["batch", "group"]
Crop = Annotated[list[Annotated[float, Range(gt=0, le=1)]], Range(min_length=2, max_length=2, ascending=True)]


@dataclass(frozen=True)
class Budget:
    """Of fine-tuning: as for a run's training, but with a grid of learning rates, of which val chooses one."""

    images: Count  # seen
    batch: Batch
    optimizer: Literal["adamw", "sgd"]
    lr: Annotated[list[Positive], Range(min_length=1)]
    weight_decay: NotNegative
    warmup: Share  # of the budget
    clip: NotNegative  # largest gradient norm; 0 does not clip
    augment: str | dict | list = None  # views of images; crops and flips unless given


@dataclass(frozen=True)
class Decays:
    """Weight decays of a linear classifier, of which val chooses one."""

    weight_decay: Annotated[list[NotNegative], Range(min_length=1)]
