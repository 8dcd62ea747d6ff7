"""params.yaml, checked before any work: unknown keys, wrong types, names that lead nowhere, all of them at once."""

import functools
import re

import yaml

from ..errors import UserError
from . import compose, signature
from .problems import Problems, join
from .schema import Dataset, Params, Pixels, Run, Train
from .signature import Section, typed

NAME = re.compile(r"[A-Za-z0-9_-]+")  # run and data-set names become paths, DVC stage names and DVC parameter paths
JUDGED = {"bootstrap": (typed(int, ge=1, le=10**6), ...),
          "runs": (dict[str, str | typed(list[str], min_length=1)], None),  # who is judged, on what: run -> data set
          "on": (list[str], None)}  # data sets beside a run's own
METHODS_OWN = ("base",)  # files in methods/ that are none


def check(path, raw):
    """The Params of a file's content; raises UserError with all that is wrong with it."""
    found = Problems(path)
    if not found.keys("", raw, Params.model_fields, [n for n in Params.model_fields if n not in (compose.OWN, "size")]):
        found.end()
    raw = compose.sized(raw)
    datasets = {name: dataset(found, name, spec) for name, spec in entries(found, raw, "datasets")}
    train = found.make("train", Train, raw["train"])
    encoder(found, "encoder", raw["encoder"])
    protocols = {}
    if found.keys("protocols", raw["protocols"], signature.names("evals")):
        protocols = {name: protocol(found, name, options) for name, options in raw["protocols"].items()}
    runs = {name: one_run(found, name, own, raw, train) for name, own in entries(found, raw, "runs")}
    found.end()
    rest = {key: raw[key] for key in ("experiment", "fetch", "encoder", "notes", "claims", "annotation")}
    rest["size"] = raw.get("size")
    params = found.make("", Params, {**rest, "datasets": datasets, "train": train, "protocols": protocols, "runs": runs,
                                     compose.OWN: {}})
    found.end()
    names(found, params)
    found.end()
    return params.model_copy(update={compose.OWN: compose.plan(raw)})


def entries(found, raw, section):
    """The (name, value) pairs of `datasets` or `runs`, their names checked."""
    if not isinstance(raw[section], dict):
        found.append(f"{section} should be a mapping of names to entries, not {raw[section]!r}")
        return
    for name, value in raw[section].items():
        if isinstance(name, str) and NAME.fullmatch(name) and "--" not in name:
            yield name, value
        else:
            found.append(f'the name {section}.{name} should be letters, digits, "_" and "-" only, and no "--"')


@functools.lru_cache
def section(folder, name):
    """The Section of params that a part takes, besides what all of its kind have."""
    if folder == "sources":
        own = signature.takes(folder, name, "source")
        images = {"size": (Pixels, ...)} if "size" in own else {}
        own = {key: kind for key, kind in own.items() if key not in Dataset.model_fields} | images
        return signature.model(name, Dataset, own)
    if folder == "evals":
        return signature.model(name, Section, signature.takes(folder, name, "choose") | JUDGED)
    more = {"name": (str, ...)} if folder == "nets" else {}
    return signature.model(name, Section, signature.takes(folder, name) | more)


def dataset(found, name, raw):
    """The Dataset, with the arguments that its source takes."""
    where = f"datasets.{name}"
    known = signature.names("sources")
    if not isinstance(raw, dict) or "source" not in raw:
        found.append(f"the key {where}.source is missing; it is one of {', '.join(known)}")
        return None
    if not found.one_of(f"{where}.source", "source", raw["source"], known):
        return None
    return found.make(where, section("sources", raw["source"]), raw)


def protocol(found, name, raw):
    """What a protocol is asked for, as a Section."""
    made = found.make(f"protocols.{name}", section("evals", name), raw)
    for where, budget in ((name, made), *((f"{name}.{key}", value) for key, value in (made or ()))):
        images, batch = getattr(budget, "images", None), getattr(budget, "batch", None)
        if images and batch and images < batch:
            found.append(f"protocols.{where}.images, {images}, is less than one batch of {batch}")
    return made


def encoder(found, where, raw):
    """Whether `raw` describes a network: one of ours with arguments that it takes, or one of timm's, which says itself
    what it takes. Networks within it, too."""
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        found.append(f"{where} should name an encoder, as in {{name: convnet, width: 32}}, not {raw!r}")
        return False
    name, before = raw["name"], len(found)
    if name in signature.names("nets") and name != "timm":
        found.make(where, section("nets", name), raw)
    for key, value in raw.items():
        if not isinstance(key, str):
            found.append(f"{where}: the key {key!r} should be a word")
        elif key == "pretrained" and name not in signature.names("nets"):
            found.append(f"{join(where, key)} is now the run's own: `init: timm`")
        elif isinstance(value, dict):
            encoder(found, join(where, key), value)
    return len(found) == before


def arguments(found, where, method, raw):
    """Whether those of `raw` that the method's __init__ names are what it says there. `config.check` knows the others."""
    known = section("methods", method)
    return found.make(where, known, {key: value for key, value in raw.items() if key in known.model_fields}) is not None


def one_run(found, name, raw, params, defaults):
    """The Run; defaults: its `train`'s, None where these are at fault and have been told."""
    where = f"runs.{name}"
    fields = {field.alias or key: field for key, field in Run.model_fields.items() if key != "name"}
    if not found.keys(where, raw, fields, [key for key in ("method", "data", "seeds")]):
        return None
    before = len(found)
    for key in ("encoder", "args", "train"):
        if not isinstance(raw.get(key, {}), dict):
            found.append(f"{where}.{key} should be a mapping of keys to values, not {raw[key]!r}")
    found.one_of(f"{where}.method", "method", raw["method"], [n for n in signature.names("methods") if n not in METHODS_OWN])
    found.one_of(f"{where}.data", "data set", raw["data"], params["datasets"] if isinstance(params["datasets"], dict) else ())
    if len(found) > before or defaults is None or not isinstance(params["encoder"], dict):
        return None
    whole = compose.run(params, name)
    arguments(found, f"{where}.args", raw["method"], whole["args"])
    train = found.make(f"{where}.train", Train, {key: value for key, value in whole["train"].items()
                                                if key in raw.get("train", {}) or key in Train.model_fields})
    if train and train.images < train.batch:
        found.append(f"{where}: train.images, {train.images}, is less than one batch of {train.batch}")
    if train and train.accumulate and (train.batch % train.accumulate or train.batch < 2 * train.accumulate):
        found.append(f"{where}: train.batch, {train.batch}, cannot be cut into {train.accumulate} parts of one size and "
                     "at least 2 images (train.accumulate)")
    if raw.get("encoder"):  # the default one is told of by itself
        encoder(found, f"{where}.encoder", whole["encoder"])
    if len(found) > before or not train:
        return None
    return found.make(where, Run, {**whole, "name": name, "train": train})


def names(found, params):
    """Every name leads somewhere."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", params.experiment):  # no "-": it ends the experiment in a run's name
        found.append(f'experiment "{params.experiment}" should be letters, digits and "_" only')
    runs, datasets = params.runs, params.datasets
    for name, run in runs.items():
        if not name.startswith(params.experiment + "-"):
            found.append(f'runs.{name} should be named "{params.experiment}-…", since results of all experiments lie side by side')
        for key, value in (("init", run.init), ("from", run.from_)):
            if value == name:
                found.append(f"runs.{name}.{key} should be another run")
            elif value and "/" not in value and not (key == "init" and value == "timm"):
                found.one_of(f"runs.{name}.{key}", "run", value, runs)
    for name, spec in datasets.items():
        if getattr(spec, "data", None):  # made from another one
            found.one_of(f"datasets.{name}.data", "data set", spec.data, datasets)
    for protocol, section in params.protocols.items():
        for name, sets in (section.runs or {}).items():
            found.one_of(f"protocols.{protocol}.runs", "run", name, runs)
            for data in compose.aslist(sets):
                found.one_of(f"protocols.{protocol}.runs.{name}", "data set", data, datasets)
        for data in section.on or []:
            found.one_of(f"protocols.{protocol}.on", "data set", data, datasets)
    for name in params.notes:
        found.one_of("notes", "run", name, runs)
    claims(found, params)


def claims(found, params):
    for name, claim in params.claims.items():
        for i, expected in enumerate(claim.expect):
            where = f"claims.{name}.expect.{i}"
            for run in [*claim.runs, *named(expected.higher), *named(expected.than)]:
                found.one_of(where, "run", run, params.runs)
            if (expected.higher is None) == (expected.ranked_apart is None):
                found.append(f"{where} should have either `higher` or `ranked_apart`")
            elif [expected.than, expected.above, expected.below].count(None) != (2 if expected.higher else 3):
                found.append(f"{where} should have one of `than`, `above` and `below` if it has `higher`")
            elif expected.margin is not None and not expected.than and not expected.ranked_apart:
                found.append(f"{where}.margin is that of a difference, which needs `than` or `ranked_apart`")


def named(side):
    """The runs of one side of an expectation."""
    return [side] if isinstance(side, str) else (side.mean or side.less or []) if side else []


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML as DVC reads it: 1e-3 is a number (PyYAML wants 1.0e-3), and a key given twice is an error."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'the key "{key.value}" is given twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(path):
    """The content of a params file."""
    try:
        with open(path, encoding="utf-8") as file:
            raw = yaml.load(file, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{path}, line {mark.line + 1}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a YAML text file: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path} should hold the keys {', '.join(Params.model_fields)}")
    return raw
