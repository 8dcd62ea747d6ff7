"""Two runs side by side: what differs in data, code and parameters, and by how much in results. From files alone."""

import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from selfsup import artefacts, config, encoder, tracking
from selfsup.config import catalogue
from selfsup.errors import UserError
from selfsup.intervals import Value
from selfsup.tracking import names

ABSENT, DEFAULT = "–", " (default)"


@dataclass
class Side:
    """One of the two runs."""

    title: str
    info: dict  # encoder.json of its first seed
    seeds: list
    results: dict  # protocol -> {"accuracy", "low", "high", "seeds"}, percent
    files: dict  # of code that it was trained by, as dvc.lock has them -> hash
    weights: list  # SHA-256 of each seed's

    @property
    def parameters(self):
        """Flat names to text, as in MLflow. The seeds are all that a run's encoders differ in."""
        flat = tracking.parameters(self.info)
        own = {key: flat[key] for key in flat if key not in ("seed", "data")}
        return own | {"seeds": ", ".join(map(str, self.seeds))}


def side(folder):
    """The Side of a run, data/encoders/<experiment>/<run>, or of one of its seeds, the folder in it. Results and
    dvc.lock are those of the repository that it lies in, so that checkouts of two commits can be compared."""
    folder = Path(folder)
    one = (folder / "encoder.json").exists()
    places = [folder] if one else [folder / str(seed) for seed in encoder.seeds(folder)]
    if not places:
        raise UserError(f"{folder}: no encoder here; run `dvc pull` or `dvc repro` to get it")
    infos = [artefacts.encoder(place, *artefacts.TRAINED) for place in places]
    run, seeds = infos[0]["run"], [info["seed"] for info in infos]
    root = places[0].resolve().parents[4] if len(places[0].resolve().parents) > 4 else Path(".")
    results = {}
    for file in sorted((root / config.results(run)).glob("*.json")):
        content = artefacts.result(file)
        result = content.get("seeds", {}).get(str(seeds[0]), {}) if one else content
        if one:
            result = {**result, "seeds": {str(seeds[0]): result}}
        if "accuracy" in result:  # cost.json has none
            results[file.stem] = result
    return Side(f"{run}/{seeds[0]}" if one else run, infos[0], seeds, results, locked(root / "dvc.lock", run),
                [artefacts.sha256(place / "weights.safetensors") for place in places])


def locked(path, run):
    """{file of the library: hash} that `run` was last trained by; {} if dvc.lock knows nothing of it."""
    if not path.exists():
        return {}
    try:
        stages = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        deps = stages.get(f"pretrain@{run}", {}).get("deps", [])
        return {dep["path"]: dep["md5"] for dep in deps if dep["path"].startswith("ssl/")}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def rows(a, b):
    """Yields (what, first, second, remark) as text: data and code always, parameters that differ, every result. What one of
    the two leaves to its default is shown with that."""
    data = [side.info["data"] for side in (a, b)]
    same = data[0]["hash"] == data[1]["hash"]
    yield "data", *(f"{of['name']} {of['hash'][:12]}" for of in data), "the same" if same else "other data"
    yield "code", a.info["code"][:12], b.info["code"][:12], code(a, b)
    first, second = a.parameters, b.parameters
    for key in dict.fromkeys([*first, *second]):
        if first.get(key) != second.get(key):
            other = key.startswith("encoder.") and first["encoder.name"] != second["encoder.name"]  # another network's argument
            shown = [own[key] if key in own else ABSENT if other else unset(side, key) for own, side in ((first, a), (second, b))]
            if len({text.removesuffix(DEFAULT) for text in shown}) == 2:
                yield key, *shown, ""
    for protocol in sorted({*a.results, *b.results}):
        pair = [side.results.get(protocol) for side in (a, b)]
        remark = "" if None in pair else difference(*pair) + ("" if same else ", on other data")
        if same and a.weights == b.weights and pair[0] == pair[1]:  # of the same test samples: no chance is in it
            remark = "0, the same encoder"
        yield f"{protocol} %", *map(interval, pair), remark


def unset(side, key):
    """What an argument is that a run does not set: the default of its method or network. Only that it is one, where other
    code than the present one has trained, whose default may be another."""
    part, _, name = key.partition(".")
    info = names.full(side.info)
    if name in info.get("defaults", {}).get(part, {}):
        return f"{info['defaults'][part][name]}{DEFAULT}"
    known = catalogue.of(side.info["method"]) if part == "args" else None
    return DEFAULT.strip(" ()") if known and name in known["defaults"] else ABSENT


def code(a, b):
    """Which files differ. encoder.json has one hash for them all, and dvc.lock one for each."""
    if a.info["code"] == b.info["code"]:
        return "the same"
    found = sorted(name for name in {**a.files, **b.files} if a.files.get(name) != b.files.get(name))
    if not a.files or not b.files or not found:
        return "differs; dvc.lock does not say where"
    return "differs: " + ", ".join(name.removeprefix("ssl/selfsup/") for name in found)


def interval(result):
    return f"{result['accuracy']:.1f} [{result['low']:.1f}, {result['high']:.1f}]" if result else ABSENT


def difference(a, b):
    """Second less first, in percentage points, with its 95 % interval: seed by seed where they share some, else as of two
    independent numbers."""
    paired = Value.of(b) - Value.of(a)
    if paired.seeds:
        mean, low, high = paired.interval
    else:
        mean, half = b["accuracy"] - a["accuracy"], math.hypot(a["high"] - a["low"], b["high"] - b["low"]) / 2
        low, high = mean - half, mean + half
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
