"""Which code made an encoder, as a hash. Comments and docstrings do not count: editing them makes nothing stale."""

import ast
import functools
import hashlib
from pathlib import Path

from .. import nets

PACKAGE = Path(__file__).parents[1]
# What can change an encoder beside its method's and its networks' own files; dvc.yaml names the same as dependencies.
CODE = "core data inputs layers methods/base.py nets/__init__.py training".split()


def code_hash(run):
    """sha256 of the sources that can change the encoder of `run`, by its `method` and `encoder`."""
    files = {PACKAGE / "methods" / f"{run.method}.py"}
    files |= {PACKAGE / "nets" / f"{name if name in nets.names() else 'timm'}.py" for name in networks(run.encoder)}
    for name in CODE:
        path = PACKAGE / name
        files |= set(path.rglob("*.py")) if path.is_dir() else {path}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(PACKAGE)}\0{meaning(file.read_text())}\0".encode())
    return digest.hexdigest()


def networks(encoder):
    """Names of all networks in an encoder's configuration: its own, and its parts' as the `half` of split."""
    parts = [value for value in encoder.values() if isinstance(value, dict)]
    return {name for part in parts for name in networks(part)} | ({encoder["name"]} if "name" in encoder else set())


@functools.cache  # who trains several seeds, and records them, asks often
def meaning(source):
    """Python source as its syntax tree says it: in one layout, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
