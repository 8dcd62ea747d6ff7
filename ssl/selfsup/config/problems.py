"""What is wrong with a params file, in sentences that name the key."""

import re
import typing

from pydantic import ValidationError

from ..errors import UserError, nearest


class Problems(list):
    """What is wrong with a file: sentences without its name."""

    def __init__(self, path):
        self.path = path

    def end(self):
        """Raise what was found, as one sentence."""
        if len(self) == 1:
            raise UserError(f"{self.path}: {self[0]}")
        if self:
            raise UserError(f"{self.path}: {len(self)} mistakes: " + "; ".join(f"({i}) {s}" for i, s in enumerate(self, 1)))

    def keys(self, where, raw, known, required=()):
        """Whether `raw` is a mapping with keys of `known` alone and all of `required`."""
        if not isinstance(raw, dict):
            self.append(f"{where} should be a mapping of keys to values, not {raw!r}")
            return False
        before = len(self)
        for name in raw:
            if name not in known:
                self.append(f'unknown key "{name}"{f" in {where}" if where else ""}{nearest(name, known)}')
        self.extend(f"the key {join(where, name)} is missing" for name in required if name not in raw)
        return len(self) == before

    def one_of(self, where, what, name, known):
        if name not in list(known):
            self.append(f'{where}: there is no {what} "{name}"{nearest(name, known)}')
            return False
        return True

    def make(self, where, model, raw):
        """`model(**raw)`, or None after noting each of its errors by the key's name."""
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if not self.keys(where, raw, fields, [name for name, field in fields.items() if field.is_required()]):
            return None
        try:
            return model(**raw)
        except ValidationError as problems:
            errors = {}
            for error in problems.errors():
                errors.setdefault(place(raw, error), []).append(error)
            for path, some in errors.items():
                if not any(path == other[:len(path)] for other in errors if other != path):  # else a choice that came further
                    self.append(self.sentence(where, model, path, some))
            return None

    def sentence(self, where, model, path, errors):
        """What is wrong at a path: several errors are those of a value that is none of several things."""
        *parents, last = path
        key, error = join(where, *path), errors[0]
        if error["type"] == "missing":
            return f"the key {key} is missing"
        if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return f'unknown key "{last}" in {join(where, *parents)}{nearest(last, nested(model, parents))}'
        if error["type"] in ("too_short", "string_too_short"):
            return f"{key} should not be empty"
        if error["type"] == "literal_error":
            known = re.findall("'([^']*)'", error["ctx"]["expected"])
            return f"{key} should be {error['ctx']['expected']}, not {error['input']!r}{nearest(error['input'], known)}"
        if len(errors) == 1 and error["type"] in ("model_type", "dict_type", "dataclass_type", "dataclass_exact_type"):
            return f"{key} should be a mapping of keys to values, not {error['input']!r}"
        first, *others = dict.fromkeys(re.sub("^(Input|Value error,) ", "", each["msg"]) for each in errors)
        return f"{' or '.join([f'{key} {first}', *(other.removeprefix('should be ') for other in others)])}, not {error['input']!r}"


def place(raw, error):
    """Where in `raw` an error of pydantic's lies: the keys of its loc, without the choices of a union, which it has, too."""
    path, at = [], raw
    for key in error["loc"]:
        inside = key in at if isinstance(at, dict) else isinstance(at, list) and isinstance(key, int) and key < len(at)
        if inside:
            at = at[key]
        elif error["type"] != "missing" or key != error["loc"][-1]:
            continue
        path.append(key)
    return tuple(path)


def sections(kind):
    """The Sections that a type names."""
    return [kind] if hasattr(kind, "model_fields") else [found for part in typing.get_args(kind) for found in sections(part)]


def nested(model, parents):
    """The keys of the section that lies at `parents` in a model."""
    kind = model
    for name in parents:  # a place in a list or a name in a mapping leads to the same kind
        kind = next((section.model_fields[name].annotation for section in sections(kind) if name in section.model_fields), kind)
    return next(section.model_fields for section in sections(kind))


def join(*parts):
    return ".".join(str(part) for part in parts if part != "")
