"""params.yaml as the library reads it. `load()` needs no heavy import; `check()` also holds each run's `args` against its
method, which imports that method."""

import functools
import inspect
from dataclasses import fields
from typing import Any

from ..errors import UserError, nearest
from . import checker, compose, signature
from .checker import NAME, named
from .compose import encoders, results
from .signature import words
from .schema import Claim, Expectation, Params, Run, Several, Train

__all__ = ["NAME", "load", "run", "protocol", "arguments", "check", "encoders", "results", "named", "words"]
__all__ += ["Params", "Run", "Train", "Claim", "Expectation", "Several"]
# Of a method and its views: no run sets them. `count` is what the method's forward is written for.
GIVEN = ("self", "encoder", "card", "teacher", "column", "columns", "more", "first", "second", "count")


def load(path="params.yaml") -> Params:
    """Read and check a params file; raises UserError with one sentence."""
    raw = checker.read(path)
    params = checker.check(path, raw)
    if compose.OWN in raw and busy(raw[compose.OWN]) != busy(params.plan):  # a file without one is no stage's
        raise UserError(f"{path} was edited by hand and its `{compose.OWN}` was not: run `make params`, which renews it, or edit "
                        "conf/ and run `make experiment`")
    return params


def busy(plan):
    """The stages of a plan that have items."""
    return {stage: items for stage, items in plan.items() if items} if isinstance(plan, dict) else plan


def run(params: Params, name: str) -> Run:
    """The run called `name`; UserError with the nearest name if there is none."""
    if name not in params.runs:
        raise UserError(f'no run "{name}" in experiment {params.experiment}{nearest(name, params.runs)}')
    return params.runs[name]


def protocol(params: Params, name: str) -> dict[str, Any]:
    """What a protocol is asked for: the options of its `choose`, and bootstrap."""
    if name not in params.protocols:
        raise UserError(f'no protocol "{name}" in params{nearest(name, params.protocols)}')
    return params.protocols[name].model_dump(exclude_unset=True, exclude={"runs", "on"})


def arguments(method) -> dict[str, tuple[Any, Any]]:
    """What `args` of a run may set, each with its type and its default (inspect.Parameter.empty if none): arguments of
    the method's __init__, and fields of the views that it takes."""
    own = {p.name: (p.annotation, p.default) for p in inspect.signature(method.__init__).parameters.values()}
    views = {field.name: (field.type, getattr(method.inputs, field.name)) for field in fields(method.inputs)}
    return {name: what for name, what in {**own, **views}.items() if name not in GIVEN}


@functools.lru_cache
def section(method):
    """The types of `arguments`, as a Section. What an augmentation may be, `augmentation` says."""
    kinds = {name: (signature.typed(kind), None) for name, (kind, _) in arguments(method).items()
             if kind is not inspect.Parameter.empty and name != "augment"}
    return signature.model(method.__name__, signature.Section, kinds)


def check(params: Params) -> None:
    """What `load` cannot know without importing the methods: each run's `args` are arguments of its method or of the
    views that it takes, and what they should be."""
    from .. import methods
    from ..inputs.augment import augmentation

    for name, options in params.protocols.items():
        for key, budget in options:
            if getattr(budget, "augment", None) is not None:
                augmentation(budget.augment, f"protocols.{name}.{key}.augment")
    for entry in params.runs.values():
        method = methods.load(entry.method)
        known = arguments(method)
        for name in entry.args:
            if name not in known:
                raise UserError(
                    f'runs.{entry.name}.args: method {entry.method} has no argument "{name}"{nearest(name, known)}'
                )
        kinds, found = section(method), checker.Problems("params")
        found.make(f"runs.{entry.name}.args", kinds,
                   {name: value for name, value in entry.args.items() if name in kinds.model_fields})
        if found:
            raise UserError("; ".join(found))
        if entry.from_ and "teacher" not in inspect.signature(method.__init__).parameters:
            raise UserError(f"runs.{entry.name}.from: method {entry.method} has no use for another run's encoder")
        augmentation(entry.args.get("augment", getattr(method.inputs, "augment", "none")), f"runs.{entry.name}.args.augment")
        size, whose = params.datasets[entry.data].size, f"data set {entry.data}"
        if entry.args.get("size"):
            size, whose = entry.args["size"], "its views"
        if entry.encoder.get("size", size) != size:
            raise UserError(f"runs.{entry.name}.encoder: size {entry.encoder['size']} is not that of {whose}, {size}")
