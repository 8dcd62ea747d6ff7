"""params.yaml, checked before any work: an unknown key, a wrong type, a name that leads nowhere is one clear sentence.

`load()` needs no heavy import; `check()` also holds each run's `args` against its method, which imports that method.
No value has a default here: all defaults stand in params.yaml, where DVC sees each change.
"""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from selfsup.errors import UserError, nearest

METHODS = Path(__file__).parent / "methods"
GIVEN = ("self", "encoder", "card", "columns", "first", "second")  # of a method and its views: no run can set them
NAME = re.compile(r"[A-Za-z0-9_-]+")  # run and data-set names become paths, DVC stage names and DVC parameter paths


def _distinct(values):
    if len(set(values)) < len(values):
        raise ValueError("should not name a value twice")
    return values


Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Dataset(Section):
    """What every source needs. `root` is the path the shard stage depends on; `max_bad` the share of unreadable samples
    above which it fails."""

    source: str
    root: Text
    size: Count
    max_bad: Share


class Scenes(Dataset):
    train: Count
    val: Count
    test: Count
    seed: Annotated[int, Field(ge=0)]
    # How many times as many training images the most frequent class has as the rarest; by what share the lens draws green
    # smaller. They came later, so they have defaults: data sets that do not name them stay what they are.
    imbalance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    aberration: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class Clusters(Dataset):
    """The samples of the data set `data` with a column `cluster`, from the encoder in folder `root`."""

    data: Text
    clusters: Annotated[int, Field(ge=2)]


class Carved(Dataset):
    """Shares of the training samples that become the splits which the source does not have itself."""

    val_share: Share
    test_share: Share | None = None  # as val_share


class Torchvision(Carved):
    dataset: Text


class WebDataset(Carved):
    urls: Text | Annotated[list[Text], Field(min_length=1)]


SOURCES = {
    "scenes": Scenes,
    "digits": Carved,
    "folder": Carved,
    "torchvision": Torchvision,
    "webdataset": WebDataset,
    "clusters": Clusters,
}


class Train(Section):
    """One run's training. `images` is the budget: images seen, the same unit for every method."""

    images: Count
    batch: Count
    optimizer: Literal["adamw", "sgd"]
    lr: Positive
    weight_decay: NotNegative
    warmup: Share  # of the budget
    clip: NotNegative  # largest gradient norm; 0 does not clip
    precision: Literal["fp32", "bf16"]
    threads: Count  # pinned, since the order of sums depends on it
    workers: Annotated[int, Field(ge=0)]
    reader: Literal["auto", "resident", "streaming"]
    checkpoint_every: Positive  # seconds


class Knn(Section):
    k: Annotated[list[Count], Field(min_length=1)]
    temperature: Annotated[list[Positive], Field(min_length=1)]
    bootstrap: Count


class Linear(Section):
    weight_decay: Annotated[list[NotNegative], Field(min_length=1)]
    bootstrap: Count


class Budget(Section):
    """Of fine-tuning: as in Train, but for a grid of learning rates."""

    images: Count
    batch: Count
    optimizer: Literal["adamw", "sgd"]
    lr: Annotated[list[Positive], Field(min_length=1)]
    weight_decay: NotNegative
    warmup: Share
    clip: NotNegative


class Finetune(Budget):
    runs: dict[str, str]  # run -> its data set
    bootstrap: Count


class Layerwise(Section):
    runs: dict[str, str]
    weight_decay: Annotated[list[NotNegative], Field(min_length=1)]
    pool: Count  # maps are averaged to pool × pool
    bootstrap: Count


class Decays(Section):
    weight_decay: Annotated[list[NotNegative], Field(min_length=1)]


class LowShot(Section):
    runs: dict[str, str]
    shares: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1), AfterValidator(_distinct)]
    linear: Decays
    finetune: Budget
    bootstrap: Count


class Retrieval(Section):
    runs: dict[str, str]
    k: Annotated[list[Count], Field(min_length=1), AfterValidator(_distinct)]
    bootstrap: Count


class ZeroShot(Section):
    runs: dict[str, str]
    prompts: Annotated[list[Text], Field(min_length=1)]
    bootstrap: Count


class Protocols(Section):
    knn: Knn
    linear: Linear
    finetune: Finetune
    low_shot: LowShot
    layerwise: Layerwise
    retrieval: Retrieval
    zero_shot: ZeroShot


class Run(Section):
    """One entry of `runs`, with the defaults already merged in."""

    name: str
    method: str
    data: str
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
    encoder: dict[str, Any]  # "name" and the arguments of `nets.build`
    args: dict[str, Any]  # of the method's __init__, or fields of its `inputs` (views.py)
    train: Train


class Several(Section):
    """Runs taken together: their mean, or the first less the second."""

    mean: Annotated[list[str], Field(min_length=1)] | None = None
    less: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None


Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]


class Expectation(Section):
    """What a claim expects to see; see claims.py for what `by` may name. One of: a run's measure higher than another's,
    above or below a number, or two measures that rank the claim's runs less alike than two seeds of one measure do."""

    higher: str | Several | None = None
    than: str | Several | None = None
    by: Text = "linear"
    than_by: Text | None = None
    ranked_apart: Pair | None = None
    above: float | None = None
    below: float | None = None


class Claim(Section):
    """What the lectures say, and what an experiment's runs should then show."""

    says: Text
    expect: Annotated[list[Expectation], Field(min_length=1)]
    figure: Annotated[list[Text | Pair], Field(min_length=1)]  # measures shown, each by itself or one against another
    runs: list[str] = []  # those it is about; all unless given


class Params(Section):
    experiment: Text
    fetch: list[Text]  # torchvision data sets to download to data/raw/<name>
    datasets: dict[str, Dataset]
    train: Train
    encoder: dict[str, Any]
    protocols: Protocols
    runs: dict[str, Run]
    notes: dict[str, Text]  # run -> what the report should say of it, as why it is not above its floor
    claims: dict[str, Claim]  # of the lectures, which the runs check


def load(path="params.yaml") -> Params:
    """Read and check a params file; raises UserError with one sentence."""
    raw = _read(path)
    _section(path, "", raw, Params.model_fields)
    checked = {name: raw[name] for name in raw if name not in ("datasets", "runs")}
    datasets = {name: _dataset(path, name, value) for name, value in _entries(path, raw, "datasets")}
    for name, spec in datasets.items():
        if isinstance(spec, Clusters):
            _one_of(path, f"datasets.{name}.data", "data set", spec.data, datasets)
    # Sections are made one by one, so that each error's path starts where the user would look.
    train = _make(path, "train", Train, raw["train"])
    _encoder(path, "encoder", raw["encoder"])
    runs = {name: _run(path, name, value, raw, datasets) for name, value in _entries(path, raw, "runs")}
    params = _make(path, "", Params, {**checked, "datasets": datasets, "train": train, "runs": runs})
    if not re.fullmatch(r"[A-Za-z0-9_]+", params.experiment):  # no "-": it ends the experiment in a run's name
        raise UserError(f'{path}: experiment "{params.experiment}" should be letters, digits and "_" only')
    for name in runs:
        if not name.startswith(params.experiment + "-"):
            raise UserError(
                f'{path}: runs.{name} should be named "{params.experiment}-…", '
                "since results of all experiments lie side by side"
            )
    for protocol, section in params.protocols:
        where = f"protocols.{protocol}.runs"
        for name, data in getattr(section, "runs", {}).items():
            _one_of(path, where, "run", name, runs)
            _one_of(path, f"{where}.{name}", "data set", data, datasets)
            if data != runs[name].data:  # DVC would watch other shards than are read
                raise UserError(f"{path}: {where}.{name} should be the run's own data set, {runs[name].data}, not {data}")
    for name in params.notes:
        _one_of(path, "notes", "run", name, runs)
    for where, expected in [(f"claims.{name}.expect.{i}", expected) for name, claim in params.claims.items()
                            for i, expected in enumerate(claim.expect)]:
        about = params.claims[where.split(".")[1]].runs
        for name in [*about, *named(expected.higher), *named(expected.than)]:
            _one_of(path, where, "run", name, runs)
        if (expected.higher is None) == (expected.ranked_apart is None):
            raise UserError(f"{path}: {where} should have either `higher` or `ranked_apart`")
        if [expected.than, expected.above, expected.below].count(None) != (2 if expected.higher else 3):
            raise UserError(f"{path}: {where} should have one of `than`, `above` and `below` if it has `higher`")
    for where, budget in (("finetune", params.protocols.finetune), ("low_shot.finetune", params.protocols.low_shot.finetune)):
        if budget.images < budget.batch:
            raise UserError(f"{path}: protocols.{where}.images, {budget.images}, is less than one batch of {budget.batch}")
    return params


def run(params: Params, name: str) -> Run:
    """The run called `name`; UserError with the nearest name if there is none."""
    if name not in params.runs:
        raise UserError(f'no run "{name}" in experiment {params.experiment}{nearest(name, params.runs)}')
    return params.runs[name]


def protocol(params: Params, name: str) -> dict[str, Any]:
    """The arguments of the protocol's `run`."""
    if name not in Protocols.model_fields:
        raise UserError(f'no protocol "{name}" in params{nearest(name, Protocols.model_fields)}')
    return getattr(params.protocols, name).model_dump(exclude={"runs"})


def encoders(run: str) -> Path:
    """Folder of a run's encoders, one folder a seed in it. The experiment stands in the path by itself so that the
    report stage can depend on the encoders of its own experiment and on no other's."""
    return Path("data/encoders", run.partition("-")[0], run)


def results(run: str) -> Path:
    """Folder of a run's result files."""
    return Path("data/results", run.partition("-")[0], run)


def named(side: str | Several | None) -> list[str]:
    """The runs of one side of an expectation."""
    return [side] if isinstance(side, str) else (side.mean or side.less or []) if side else []


def arguments(method) -> dict[str, Any]:
    """What `args` of a run may set, each with its default (inspect.Parameter.empty if none): arguments of the method's
    __init__, and fields of the views that it takes."""
    own = {p.name: p.default for p in inspect.signature(method.__init__).parameters.values()}
    views = {field.name: getattr(method.inputs, field.name) for field in fields(method.inputs)}
    return {name: default for name, default in {**own, **views}.items() if name not in GIVEN}


def check(params: Params) -> None:
    """What `load` cannot know without importing the methods: each run's `args` are arguments of its method or of the
    views that it takes."""
    from selfsup import methods
    from selfsup.inputs.augment import augmentation

    for entry in params.runs.values():
        method = methods.load(entry.method)
        known = arguments(method)
        for name in entry.args:
            if name not in known:
                raise UserError(
                    f'runs.{entry.name}.args: method {entry.method} has no argument "{name}"{nearest(name, known)}'
                )
        augmentation(entry.args.get("augment", method.inputs.augment), f"runs.{entry.name}.args.augment")
        size = params.datasets[entry.data].size
        built = entry.encoder.get("size", size)
        if built != size:
            raise UserError(f"runs.{entry.name}.encoder: size {built} is not that of data set {entry.data}, {size}")


class _Loader(yaml.SafeLoader):
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


def _read(path):
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


def _section(path, where, raw, known):
    """`raw` is a mapping whose keys are exactly the names in `known`, but for a missing one that has a default."""
    if not isinstance(raw, dict):
        raise UserError(f"{path}: {where} should be a mapping of keys to values, not {raw!r}")
    for name in raw:
        if name not in known:
            place = f" in {where}" if where else ""
            raise UserError(f'{path}: unknown key "{name}"{place}{nearest(name, known)}')
    for name, field in known.items():
        if name not in raw and field.is_required():
            raise UserError(f"{path}: the key {_join(where, name)} is missing")


def _make(path, where, model, raw):
    """`model(**raw)`, its first error turned into a sentence that names the key."""
    _section(path, where, raw, model.model_fields)
    try:
        return model(**raw)
    except ValidationError as problems:
        error = problems.errors()[0]
    *parents, last = error["loc"]
    key = _join(where, *parents, last)
    if error["type"] == "missing":
        raise UserError(f"{path}: the key {key} is missing")
    if error["type"] == "extra_forbidden":
        for name in parents:
            model = model.model_fields[name].annotation
        place = _join(where, *parents)
        raise UserError(f'{path}: unknown key "{last}" in {place}{nearest(last, model.model_fields)}')
    if error["type"] in ("too_short", "string_too_short"):
        raise UserError(f"{path}: {key} should not be empty")
    if error["type"] in ("model_type", "dict_type"):
        raise UserError(f"{path}: {key} should be a mapping of keys to values, not {error['input']!r}")
    what = re.sub("^(Input|Value error,) ", "", error["msg"])
    raise UserError(f"{path}: {key} {what}, not {error['input']!r}")


def _join(*parts):
    return ".".join(str(part) for part in parts if part != "")


def _one_of(path, where, what, name, known):
    if name not in list(known):
        raise UserError(f'{path}: {where}: there is no {what} "{name}"{nearest(name, known)}')


def _entries(path, raw, section):
    """The (name, value) pairs of `datasets` or `runs`, their names checked."""
    if not isinstance(raw[section], dict):
        raise UserError(f"{path}: {section} should be a mapping of names to entries, not {raw[section]!r}")
    for name, value in raw[section].items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f'{path}: the name {section}.{name} should be letters, digits, "_" and "-" only')
        yield name, value


def _dataset(path, name, raw):
    where = f"datasets.{name}"
    if not isinstance(raw, dict) or "source" not in raw:
        raise UserError(f"{path}: the key {where}.source is missing; it is one of {', '.join(SOURCES)}")
    _one_of(path, f"{where}.source", "source", raw["source"], SOURCES)
    return _make(path, where, SOURCES[raw["source"]], raw)


def _encoder(path, where, raw):
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise UserError(f"{path}: {where} should name an encoder, as in {{name: convnet, width: 32}}, not {raw!r}")


def _run(path, name, raw, params, datasets):
    where = f"runs.{name}"
    own = {"encoder": {}, "args": {}, "train": {}}  # what differs from the defaults: nothing
    raw = {**own, **raw} if isinstance(raw, dict) else raw
    _section(path, where, raw, {key: field for key, field in Run.model_fields.items() if key != "name"})
    for key in own:
        if not isinstance(raw[key], dict):
            raise UserError(f"{path}: {where}.{key} should be a mapping of keys to values, not {raw[key]!r}")
    methods = sorted(file.stem for file in METHODS.glob("[!_]*.py") if file.stem != "base")
    _one_of(path, f"{where}.method", "method", raw["method"], methods)
    _one_of(path, f"{where}.data", "data set", raw["data"], datasets)
    train = _make(path, f"{where}.train", Train, {**params["train"], **raw["train"]})
    if train.images < train.batch:
        raise UserError(f"{path}: {where}: train.images, {train.images}, is less than one batch of {train.batch}")
    # Another architecture starts anew: the default one's arguments are not its own.
    encoder = raw["encoder"] if "name" in raw["encoder"] else {**params["encoder"], **raw["encoder"]}
    _encoder(path, f"{where}.encoder", encoder)
    return _make(path, where, Run, {**raw, "name": name, "encoder": encoder, "train": train})
