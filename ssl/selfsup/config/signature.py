"""What a part takes, read from its source text: importing it could take seconds, and torch.

A part is a method, a source, an encoder or a protocol. Its arguments are annotated with the types of `arguments`, of
typing and Python's own; here these become fields of a pydantic model."""

import ast
import dataclasses
import functools
import types
import typing
from pathlib import Path

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from .. import arguments

PACKAGE = Path(__file__).parents[1]
NAMES = {**vars(typing), **vars(arguments)}


class Section(BaseModel):
    """A mapping in params.yaml with keys of its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


def typed(kind, **bounds):
    """`kind` with each Range in it, and one of `bounds`, in pydantic's words; a dataclass becomes a Section."""
    if bounds:
        kind = typing.Annotated[kind, arguments.Range(**bounds)]
    if dataclasses.is_dataclass(kind):
        return model(kind.__name__, Section, {field.name: (typed(field.type), _default(field)) for field in dataclasses.fields(kind)})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        base, *notes = inner
        return typing.Annotated[(typed(base), *(word for note in notes for word in _words(note, base)))]
    if origin is types.UnionType or origin is typing.Union:
        return typing.Union[tuple(map(typed, inner))]
    if origin in (list, dict, tuple):
        return origin[tuple(map(typed, inner))]
    return kind


def _words(note, base):
    if not isinstance(note, arguments.Range):
        return [note]
    bounds = {key: value for key, value in vars(note).items() if key != "distinct" and value is not None}
    finite = {"allow_inf_nan": False} if base is float else {}
    return [Field(**bounds, **finite), *([AfterValidator(_distinct)] if note.distinct else [])]


def _distinct(values):
    if len(set(values)) < len(values):
        raise ValueError("should not name a value twice")
    return values


def _default(field):
    return ... if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING else None


def names(folder):
    """The parts in a folder of the library: its files, and folders with an __init__, but for those that start with _."""
    found = [path for path in (PACKAGE / folder).iterdir() if not path.name.startswith("_")]
    return sorted(path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists())


def place(folder, name):
    """The file of a part, or its folder: what a stage that uses it depends on."""
    path = PACKAGE / folder / name
    return path if path.is_dir() else path.with_suffix(".py")


@functools.lru_cache
def takes(folder, name, function):
    """{argument: (type, default)} of the annotated arguments of a part's function; default ... where it has none."""
    path = place(folder, name)
    tree = ast.parse(((path / "__init__.py") if path.is_dir() else path).read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    given = found.args.args + found.args.kwonlyargs
    defaults = [...] * (len(found.args.args) - len(found.args.defaults)) + found.args.defaults + found.args.kw_defaults
    return {arg.arg: (_value(arg.annotation), ... if default in (..., None) else None)
            for arg, default in zip(given, defaults) if arg.annotation is not None}


def _value(annotation):
    return typed(eval(compile(ast.Expression(annotation), "<annotation>", "eval"), dict(NAMES)))


def model(title, base, fields):
    """A Section, or another `base`, with these {argument: (type, default)} besides its own."""
    optional = {key: (kind if default is ... else kind | None, default) for key, (kind, default) in fields.items()}
    return create_model(title, __base__=base, **optional)
