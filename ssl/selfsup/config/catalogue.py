"""What code and README say of a method, beside what params do: its family, its paper, the defaults of its arguments."""

import inspect
import re
import sys
from pathlib import Path

ATTENTION = ("A column is an image of val, which stands on top; below it, a row for each head of the encoder's last block how "
             "much each patch is attended to (black least, white most), on average over the patches that attend.")


def families():
    """{method: family} in the README's order; its table is the only list of families. {} where there is no README."""
    readme = Path(__file__).parents[3] / "README.md"
    found, family = {}, None
    for line in readme.read_text(encoding="utf-8").splitlines() if readme.exists() else []:
        if heading := re.match(r"\| \*\*(.+?)\*\* \|", line):
            family = heading[1]
        elif not line.startswith("|"):
            family = None
        elif family:
            found |= dict.fromkeys(re.findall(r"`(\w+)`", line.split("|")[1]), family)
    return found


def summary(method):
    """What its file says first, in a line or two."""
    return " ".join(sys.modules[method.__module__].__doc__.split())


def paper(method):
    return inspect.getdoc(method).partition("\n\n")[0]


def pictures(method):
    """{picture: what it shows} of a method's class, from the docstrings of its `pictures` and of its bases': of lines
    such as `views, affinity: A row is …`, each of which goes on to the next one or to an empty line."""
    found = {}
    for kind in reversed(method.__mro__):
        said = inspect.cleandoc(getattr(vars(kind).get("pictures"), "__doc__", None) or "")
        for titles, text in re.findall(r"^(\w+(?:, \w+)*): (.+(?:\n(?!\w+(?:, \w+)*: ).+)*)", said, re.MULTILINE):
            found |= dict.fromkeys(titles.split(", "), " ".join(text.split()))
    return found


def explained(name):
    """`pictures` of the method `name`, and what a run of any draws whose encoder has patches; {} of one that is not here,
    as of another checkout."""
    from .. import methods

    return {"attention": ATTENTION, **pictures(methods.load(name))} if name in methods.names() else {}


def of(name):
    """Of the method `name`: family, None where README has none; description; defaults of what a run's `args` can set.
    None for a method that is not here, as of another checkout."""
    from .. import config, methods

    if name not in methods.names():
        return None
    method = methods.load(name)
    known = {key: default for key, (_, default) in config.arguments(method).items() if default is not inspect.Parameter.empty}
    return {"family": families().get(name), "description": f"{summary(method)}\n\n{paper(method)}", "defaults": known}


def defaults(make):
    """{argument: default} of a function or class; those without one are left out, as are all of None."""
    given = inspect.signature(make).parameters.values() if make else ()
    return {one.name: one.default for one in given if one.default is not inspect.Parameter.empty}
