"""Values set in a file of conf/experiment by its text: what is not set stays, comments and layout too."""

import json
import re

import yaml

from ..errors import UserError

NOTE = re.compile(r"\s*# tune: .*")


def run(path, text, name, values, note):
    """The `text` of an experiment's file with `values` set in its run `name`, as in {("train", "lr"): 0.003}, and behind
    it the comment `note`, in place of an earlier one. Raises UserError, which names the file `path`, where it cannot be
    done so that nothing else changes, as where several runs share their values by an anchor."""
    expected, new = _content(text), text
    try:
        own = expected["runs"][name]
        for keys, value in values.items():
            new = _set(new, ("runs", name, *keys), value)
            inner = own
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = value
        new = _noted(new, name, note)
        done = _content(new) == expected
    except (KeyError, TypeError, AttributeError, yaml.YAMLError):
        done = False
    if not done:
        said = ", ".join(f"{'.'.join(keys)}: {_flow(value)}" for keys, value in values.items())
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
