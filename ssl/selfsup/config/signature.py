"""What a part takes, read from its source text: importing it could take seconds, and torch.

A part is a method, a source, an encoder or a protocol. Its arguments are annotated with the types of `arguments`, of
typing and Python's own; here these become fields of a pydantic model."""

import ast
import dataclasses
import functools
import re
import types
import typing
from pathlib import Path

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from .. import arguments
from ..arguments import LARGEST

PACKAGE = Path(__file__).parents[1]
NAMES = {**vars(typing), **vars(arguments)}
INIT = "__init__"
BASES = {"methods": ("Method",), "nets": ("ImageEncoder", "Module", "SoundNet")}  # of the class that a file is about


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
    bounds = {key: value for key, value in vars(note).items() if key not in ORDERS and value is not None}
    finite = {"allow_inf_nan": False} if base is float else {}
    return [Field(**bounds, **finite), *(AfterValidator(holds) for key, holds in ORDERS.items() if getattr(note, key))]


def _distinct(values):
    if len(set(values)) < len(values):
        raise ValueError("should not name a value twice")
    return values


def _ascending(values):
    if sorted(values) != values:
        raise ValueError("should have the smaller value first")
    return values


ORDERS = {"distinct": _distinct, "ascending": _ascending}  # fields of Range


def _default(field):
    return ... if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING else None


def words(kind):
    """What a type of `arguments` lets a user set, in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        base, *notes = inner
        bounds = {}
        for note in notes:  # the later, the narrower
            bounds |= {key: value for key, value in vars(note).items() if value is not None and value != LARGEST}
        said = [f"{word} {int(bounds[key]) if bounds[key] == int(bounds[key]) else bounds[key]:,}"
                for key, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below")) if key in bounds]
        return " ".join([words(base), *said])
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(filter(None, map(words, inner)))
    if origin is list:
        return f"list, each {words(inner[0])}"
    return {int: "integer", float: "number", bool: "true or false", str: "text", dict: "mapping", list: "list",
            type(None): "null"}.get(kind, "")


def names(folder):
    """The parts in a folder of the library: its files, and folders with an __init__, but for those that start with _."""
    found = [path for path in (PACKAGE / folder).iterdir() if not path.name.startswith("_")]
    return sorted(path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists())


def place(folder, name):
    """The file of a part, or its folder: what a stage that uses it depends on."""
    path = PACKAGE / folder / name
    return path if path.is_dir() else path.with_suffix(".py")


def other_source(name):
    """The source that another one imports, None where it does not; a folder's files import each other alone."""
    path = place("sources", name)
    text = path.read_text("utf-8") if path.is_file() else ""
    found = re.search(r"^ *from selfsup\.sources\.([a-z]\w*) import", text, re.MULTILINE)
    return found[1] if found else None


@functools.lru_cache
def takes(folder, name, function=INIT):
    """{argument: (type, default)} of the annotated arguments of a part's function, or of its class's __init__; default
    ... where it has none."""
    return {arg.arg: (_value(arg.annotation), ... if default in (..., None) else None)
            for arg, default in _arguments(folder, name, function) if arg.annotation is not None}


@functools.lru_cache
def given(folder, name, function):
    """Names of the other arguments, which no user sets."""
    return [arg.arg for arg, _ in _arguments(folder, name, function) if arg.annotation is None]


def _arguments(folder, name, function):
    """(argument, default) of each, as the source text has them."""
    path = place(folder, name)
    body = ast.parse(((path / "__init__.py") if path.is_dir() else path).read_text(encoding="utf-8")).body
    if function == INIT:
        classes = [node for node in body if isinstance(node, ast.ClassDef) and _is_part(node, folder)]
        body = [node for part in classes for node in part.body]
    found = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == function), None)
    if found is None:
        return []
    defaults = [...] * (len(found.args.args) - len(found.args.defaults)) + found.args.defaults + found.args.kw_defaults
    return list(zip(found.args.args + found.args.kwonlyargs, defaults))


def _is_part(node, folder):
    """Whether a class is a method or an encoder, as its bases' names say, and not what one of them is built of."""
    return any(ast.unparse(base).rpartition(".")[2] in BASES[folder] for base in node.bases)


def _value(annotation):
    return typed(eval(compile(ast.Expression(annotation), "<annotation>", "eval"), dict(NAMES)))


def model(title, base, fields):
    """A Section, or another `base`, with these {argument: (type, default)} besides its own. None is a value only where
    the type says so: that an argument has a default gives nobody leave to set it to nothing."""
    return create_model(title, __base__=base, **fields)
