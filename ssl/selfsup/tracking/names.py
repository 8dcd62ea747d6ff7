"""What a training is called in MLflow: the tags that tell it from others, its parameters, its curves and metrics."""

import hashlib
import json
import math
import re

LATER = ("init", "from", "labels")  # of a run that has them; without one nothing changes
ORIGIN = ("init_hash", "from_hash")  # of the weights that a seed started from, each seed its own
ALL = "all"  # the seed of a run's own MLflow run, in which those of its seeds are nested


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
    """Flat names to text, as MLflow searches them: method, data, seed, encoder.width, args.temperature, train.lr …"""
    parts = {**info["parts"], "args": info["args"], "train": _train(info), **_given(info, LATER)}
    return {"method": info["method"], "data": info["data"]["name"], "seed": str(info["seed"])} | {
        key: str(value)[:6000] for key, value in flat(parts, separator=".")}


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
    """Rows of a history -> (name, value, images seen)."""
    for row in rows:
        for key, value in row.items():
            if key not in ("step", "images") and isinstance(value, (int, float)):
                yield key, float(value), row["images"]
