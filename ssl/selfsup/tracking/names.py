"""What a training is called in MLflow: the tags that tell it from others, its parameters, its curves and metrics."""

import hashlib
import json
import math
import re
from types import SimpleNamespace

LATER = ("init", "from", "labels")  # of a run that has them; without one nothing changes
ORIGIN = ("init_hash", "from_hash")  # of the weights that a seed started from, each seed its own
PRETEXT = re.compile("(val_)?accuracy")
ALL = "all"  # the seed of a run's own MLflow run, in which those of its seeds are nested


def full(info):
    """Contents of encoder.json, with two keys more: `defaults`, {"args", "encoder"} of what was not given, {} where other
    code than the present one has trained, whose defaults are not known; `about`, the method's family and description."""
    from selfsup import nets
    from selfsup.config import catalogue
    from selfsup.training.code import code_hash

    about, encoder = catalogue.of(info["method"]), info["parts"]["encoder"]
    if about is None:
        return info
    defaults = {"args": about.pop("defaults"), "encoder": catalogue.defaults(nets.network(encoder["name"]))}
    defaults = json.loads(json.dumps(defaults, default=str))  # as they would be given
    same = info["code"] == code_hash(SimpleNamespace(method=info["method"], encoder=encoder))
    return {**info, "defaults": defaults if same else {}, "about": about}


def whole(info):
    """Contents of a seed's encoder.json -> what stands for the run as a whole."""
    return {key: value for key, value in info.items() if key not in ORIGIN} | {"seed": ALL}


def identity(info):
    """Tags that tell this training from others: a change of parameters, data or code makes a new MLflow run."""
    return {"selfsup.run": info["run"], "selfsup.seed": str(info["seed"]), "selfsup.fingerprint": fingerprint(info)}


def fingerprint(info):
    """12 hex digits, the same for every seed of a run but for one that started from trained weights of its own."""
    what = [info["method"], info["data"]["hash"], info["parts"]["encoder"], info["args"], _train(info), info["code"]]
    later = _given(info, LATER + ORIGIN)
    return hashlib.sha256(json.dumps([*what, later] if later else what, sort_keys=True).encode()).hexdigest()[:12]


def parameters(info):
    """Flat names to text, as MLflow searches them: method, data, seed, encoder.width, args.temperature, train.lr … With
    the defaults of what was not given, if `info` is `full`."""
    told = info.get("defaults", {})
    parts = {**info["parts"], "encoder": {**told.get("encoder", {}), **info["parts"]["encoder"]},
             "args": {**told.get("args", {}), **info["args"]}, "train": _train(info), **_given(info, LATER)}
    return {"method": info["method"], "data": info["data"]["name"], "seed": str(info["seed"])} | {
        key: str(value)[:6000] for key, value in flat(parts, separator=".")}


def tags(info):
    """What runs are filtered and grouped by beside their parameters, in the words that people use."""
    family = info.get("about", {}).get("family")
    return {**({"family": family} if family else {}), "encoder": info["parts"]["encoder"]["name"], "data": info["data"]["name"]}


def chosen(results, options):
    """Nested results of a seed by protocol -> (the same without what was chosen on val, that, as flat parameters).

    options: protocol -> names of what it chooses."""
    rest, found = {}, {}
    for key, result in results.items():
        on_other_data = max((protocol for protocol in options if key.endswith(f"_{protocol}")), key=len, default=None)
        mine = options.get(key) or options.get(on_other_data, ())
        rest[key] = _without(result, mine)
        found |= {f"{key}.{path}": str(value) for path, value in flat(result, separator=".")
                  if path.rpartition(".")[2] in mine and number(value)}
    return rest, found


def _without(result, names):
    return {key: _without(value, names) if isinstance(value, dict) else value for key, value in result.items()
            if isinstance(value, dict) or key not in names}


def _train(info):
    """Of the training parameters those that it was given and that change what is learned."""
    return {key: value for key, value in info["train"].items() if value is not None and key != "judge_every"}


def _given(info, keys):
    return {key: info[key] for key in keys if info.get(key) is not None}


def finals(results):
    """Nested results by protocol -> ({metric: number}, {tag: text})."""
    # A prompt's braces are not for MLflow's names.
    named = {re.sub(r"[^\w\-. :/]+", "_", key, flags=re.ASCII): value for key, value in flat(results, separator="_")}
    return ({key: value for key, value in named.items() if number(value)},
            {f"selfsup.{key}": value for key, value in named.items() if isinstance(value, str)})


def flat(value, separator, prefix=""):
    """Nested mappings as (joined name, value)."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from flat(inner, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", inner


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def points(rows):
    """Rows of a history -> (name, value, images seen). How often a pretext task is solved, 0 to 1, is named apart from the
    accuracies of judges, which are percent."""
    for row in rows:
        for key, value in row.items():
            if key not in ("step", "images") and isinstance(value, (int, float)):
                yield f"pretext_{key}" if PRETEXT.match(key) else key, float(value), row["images"]
