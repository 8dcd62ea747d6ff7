"""One paper, one file. A method is found by its file's name; there is no list to keep."""

import importlib
import inspect
from pathlib import Path

from ..errors import UserError, nearest
from .base import Method


def names():
    """Names of all methods: the files of this folder."""
    return sorted(f.stem for f in Path(__file__).parent.glob("*.py") if f.stem not in ("__init__", "base"))


def load(name):
    """The Method subclass that methods/<name>.py defines. Raises UserError for an unknown name."""
    if name not in names():
        raise UserError(f"unknown method '{name}'{nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    (cls,) = (
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, Method) and c.__module__ == module.__name__
    )
    return cls
