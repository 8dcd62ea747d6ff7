"""Types and ranges of what a user can set, stated once: on the function or class that takes the value.

A part (method, source, encoder, protocol) annotates its arguments, as in `temperature: Positive = 0.5`; `config` reads the
annotations and holds params.yaml against them. Nothing heavy is imported here, so that parts stay light."""

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


Count = Annotated[int, Range(ge=1)]
Whole = Annotated[int, Range(ge=0)]
Positive = Annotated[float, Range(gt=0)]  # and finite, as all numbers
NotNegative = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, lt=1)]
Text = Annotated[str, Range(min_length=1)]


@dataclass(frozen=True)
class Budget:
    """Of fine-tuning: as for a run's training, but with a grid of learning rates, of which val chooses one."""

    images: Count  # seen
    batch: Count
    optimizer: Literal["adamw", "sgd"]
    lr: Annotated[list[Positive], Range(min_length=1)]
    weight_decay: NotNegative
    warmup: Share  # of the budget
    clip: NotNegative  # largest gradient norm; 0 does not clip


@dataclass(frozen=True)
class Decays:
    """Weight decays of a linear classifier, of which val chooses one."""

    weight_decay: Annotated[list[NotNegative], Range(min_length=1)]
