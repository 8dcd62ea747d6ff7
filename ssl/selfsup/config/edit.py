"""Values set in a file of conf/experiment by its text: what is not set stays, comments and layout too."""

import json
import re

import yaml

from ..errors import UserError

GONE = object()  # the value of what is to be taken out
NOTE = re.compile(r"\s*# tune: .*")


def run(path, text, name, values, note):
    """The `text` of an experiment's file with `values` set in its run `name`, as in {("train", "lr"): 0.003}, or taken
    out where they are GONE, and behind it the comment `note`, in place of an earlier one.

    Raises UserError, which names the file `path`, where that would change something else, too: as where several runs
    share their values by an anchor."""
    expected, new = _content(text), text
    try:
        own = expected["runs"][name]
        for keys, value in values.items():
            new = (_without if value is GONE else _set)(new, ("runs", name, *keys), value)
            inner = own
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = value
            if value is GONE:
                del inner[keys[-1]]
        new = _noted(new, name, note)
        done = _content(new) == expected
    except (KeyError, TypeError, AttributeError, StopIteration, yaml.YAMLError):
        done = False
    if not done:
        words = {keys: "nothing" if value is GONE else _flow(value) for keys, value in values.items()}
        said = ", ".join(f"{'.'.join(keys)}: {value}" for keys, value in words.items())
        raise UserError(f"{path}: runs.{name} cannot be edited by itself; set {said} there by hand")
    return new


def _content(text):
    """What a file says, each run with values of its own: of an anchor YAML makes one object."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def _set(text, path, value):
    node = yaml.compose(text)
    for depth, key in enumerate(path):
        found = next((inner for name, inner in node.value if name.value == key), None)
        if found is None:
            for inner in reversed(path[depth + 1:]):
                value = {inner: value}
            return _added(text, node, f"{key}: {_flow(value)}")
        node = found
    return text[:node.start_mark.index] + _flow(value) + text[node.end_mark.index:]


def _added(text, mapping, entry):
    """`entry` behind all others of a mapping, which is written in braces or line by line."""
    if mapping.flow_style:
        at = _end(mapping.value[-1][1]) if mapping.value else mapping.start_mark.index + 1
        return text[:at] + (", " if mapping.value else "") + entry + text[at:]
    at = _line_end(text, _end(mapping))
    return text[:at] + "\n" + " " * mapping.start_mark.column + entry + text[at:]


def _without(text, path, value):
    node = yaml.compose(text)
    for key in path[:-1]:
        node = next(inner for name, inner in node.value if name.value == key)
    i = next(i for i, (name, _) in enumerate(node.value) if name.value == path[-1])
    (key, inner), last = node.value[i], i + 1 == len(node.value)
    if not node.flow_style:  # its lines
        start = key.start_mark.index - key.start_mark.column
        return text[:start] + text[_line_end(text, _end(inner)) + 1:]
    if i and last:
        return text[:_end(node.value[i - 1][1])] + text[_end(inner):]
    return text[:key.start_mark.index] + text[_end(inner) if last else node.value[i + 1][0].start_mark.index:]


def _noted(text, name, note):
    node = dict((key.value, inner) for key, inner in yaml.compose(text).value)["runs"]
    at = _end(next(inner for key, inner in node.value if key.value == name))
    end = _line_end(text, at)
    return text[:at] + NOTE.sub("", text[at:end]) + f"  # tune: {note}" + text[end:]


def _end(node):
    """Where a node's text ends. The mark of one that is written line by line lies at what follows it."""
    while not isinstance(node, yaml.ScalarNode) and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node.end_mark.index


def _line_end(text, at):
    return at + len(text[at:].partition("\n")[0])


def _flow(value):
    """A value on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).partition("\n")[0]
