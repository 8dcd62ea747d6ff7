"""The plan: each stage's items written out in full, which dvc.yaml goes through.

DVC gives every item of a `foreach` the same dependencies. So an item names, each under a key of its own, the files that it
alone depends on: its encoder's, its method's, the run that it starts from. A key that an item has no use for repeats
another path, since an empty one is an error. Composed with params.yaml, by Hydra (conf/hydra_plugins) or by hand (`make
params`); nothing here needs torch.
"""

import os
from pathlib import Path

from ..errors import UserError
from . import signature

RESULTS, ENCODERS, SHARDS = Path("data/results"), Path("data/encoders"), Path("data/shards")
OWN = "plan"  # the key in params.yaml


def encoders(run: str) -> Path:
    """Folder of a run's encoders, one folder a seed in it. The experiment stands in the path by itself so that the
    report stage can depend on the encoders of its own experiment and on no other's."""
    return ENCODERS / run.partition("-")[0] / run


def results(run: str, data: str | None = None) -> Path:
    """Folder of a run's result files; of those on another data set than its own, `data`."""
    folder = RESULTS / run.partition("-")[0] / run
    return folder / data if data else folder


def plan(raw):
    """The plan of params (a mapping, as in params.yaml, whose names have been checked): {stage: {key: item}}. Every
    protocol is there, since dvc.yaml has a stage for it in every experiment; one that judges nobody has no items."""
    runs = {name: run(raw, name) for name in raw["runs"]}
    return {"shard": {name: shard(spec) for name, spec in raw["datasets"].items()},
            "pretrain": {name: pretrain(item, runs) for name, item in runs.items()},
            **{protocol: judge(protocol, options, runs) for protocol, options in raw["protocols"].items()},
            **{protocol: {} for protocol in signature.names("evals") if protocol not in raw["protocols"]}}


def sized(raw):
    """Params whose data sets of images all have the one `size` that stands beside them, where one does."""
    size, datasets = raw.get("size"), raw.get("datasets")
    if type(size) is not int or not isinstance(datasets, dict):
        return raw
    return {**raw, "datasets": {name: {**spec, "size": size} if isinstance(spec, dict) and "size" in spec else spec
                                for name, spec in datasets.items()}}


def run(raw, name):
    """One of `runs` with the defaults merged in. Another encoder starts anew: the default one's arguments are not its own."""
    own = raw["runs"][name]
    encoder = own.get("encoder", {})
    return {**own, "encoder": encoder if "name" in encoder else {**raw["encoder"], **encoder},
            "args": own.get("args", {}), "train": {**raw["train"], **own.get("train", {})}}


def shard(spec):
    """`root`: the folder that the source reads, or the other source that it is built on."""
    code, root = file("sources", spec["source"]), spec.get("root")
    other = file("sources", signature.other_source(spec["source"]) or spec["source"])
    return {"spec": spec, "code": code, "root": os.path.expanduser(root) if root else other}


def pretrain(item, runs):
    """`inner`: the file of a network within the encoder, as split's half. `start`, `teacher`: what init and from name."""
    net, *inner = [file("nets", name) for name in networks(item["encoder"])]
    return {"run": item, "method": file("methods", item["method"]), "encoder": net, "inner": (inner or [net])[0],
            "start": origin(item.get("init"), runs) or net, "teacher": origin(item.get("from"), runs) or net}


def origin(name, runs):
    """The path behind `init` or `from`: a run's encoders, or a folder; None where there is no such path."""
    return str(encoders(name)) if name in runs else name if name and Path(name).parent.name else None


def networks(encoder):
    """Names of the encoder's network and those within it."""
    yield encoder["name"]
    for value in encoder.values():
        if isinstance(value, dict) and "name" in value:
            yield from networks(value)


def judge(protocol, options, runs):
    """Items of a protocol: of the runs that it lists or of all, each on the run's own data set and on others. `source`:
    the run's own, of a protocol that is given it."""
    pair = "source" in signature.given("evals", protocol, "choose")
    asked, own = options.get("runs") or {}, {k: v for k, v in options.items() if k not in ("runs", "on")}
    chosen = {name: aslist(asked[name]) for name in asked} if "runs" in options else {
        name: [item["data"]] for name, item in runs.items()}
    items = {}
    for name, sets in chosen.items():
        for data in dict.fromkeys([*sets, *options.get("on", [])]):
            home = data == runs[name]["data"]
            key = name if home else f"{name}--{data}"
            labels = {what: runs[name][what] for what in ("labels", "val_labels") if what in runs[name]}
            source = {"source": runs[name]["data"]} if pair else {}
            items[key] = {"run": name, "data": data, **source, "encoders": str(encoders(name)),
                          "results": str(results(name, None if home else data)), "options": own, **labels}
    return items


def aslist(value):
    return value if isinstance(value, list) else [value]


def file(folder, name):
    """The path of a part, from the repository's top. A network that is not ours is timm's."""
    if folder == "nets" and name not in signature.names("nets"):
        name = "timm"
    return signature.place(folder, name).relative_to(signature.PACKAGE.parents[1]).as_posix()


def register():
    """Tell OmegaConf the resolver behind `plan` in conf/config.yaml: the plan of all that stands beside it."""
    from omegaconf import OmegaConf

    from . import checker

    def resolve(_root_):
        rest = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != OWN])
        return OmegaConf.create(checker.check("conf", OmegaConf.to_container(rest, resolve=True)).plan)

    OmegaConf.register_new_resolver("plan", resolve, replace=True)


def write(path, conf, *overrides):
    """A params file from the folder `conf` as DVC composes it, with Hydra's overrides as `experiment=cifar10`."""
    from dvc.utils.hydra import compose_and_dump
    from omegaconf.errors import InterpolationResolutionError

    folder = str(Path(conf).resolve())
    register()  # Hydra looks for plugins once a process
    try:
        compose_and_dump(str(path), folder, None, "config", folder, list(overrides))
    except InterpolationResolutionError as error:  # raised from the checker's own, which says all
        raise UserError(str(error).removeprefix("UserError raised while resolving interpolation: ")) from None
