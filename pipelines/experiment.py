"""experiment.py NAME: choose an experiment. Writes params.yaml from conf/, and dvc.lock as that experiment left it.

--save only keeps the present dvc.lock with the results of its experiment; --params renews what params.yaml derives from an
edit made in it by hand. `make experiment E=NAME`, `make repro` and `make params` call these."""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ssl"))
from selfsup import process  # noqa: E402

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import errors  # noqa: E402
from selfsup.config import checker, compose  # noqa: E402

CONF, PARAMS, LOCK = Path("conf"), Path("params.yaml"), Path("dvc.lock")
CHOSEN = re.compile(r"^  - experiment: (\w+)$", re.MULTILINE)  # in conf/config.yaml, where Hydra reads it


def experiments():
    return sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


def kept(name):
    """Where an experiment's lock lies while another is chosen. A copy: with a link `dvc diff` and `dvc gc -A` fail."""
    return compose.RESULTS / name / "dvc.lock"


def entries(path):
    """{stage: its text} of a lock file, {} without one. Text, not YAML: what DVC wrote stays as it wrote it."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    errors.refuse_conflict(path, text)
    head = re.compile(r"^  (\S.*):$", re.MULTILINE)
    starts = [*head.finditer(text)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    return {found[1].strip("'\""): text[found.start():end] for found, end in zip(starts, ends)}


def write(path, stages):
    replace(path, "schema: '2.0'\nstages:\n" + "".join(stages.values()))


def owner(stage):
    """The experiment that a stage belongs to; None for data, which several may share."""
    kind, _, key = stage.partition("@")
    return None if kind in ("fetch", "shard") else key.partition("-")[0]


def of(params, stages):
    """Those of a lock's stages that an experiment has."""
    plan = params.get(compose.OWN, {})

    def belongs(stage):
        kind, _, key = stage.partition("@")
        return kind == "fetch" or key == params["experiment"] or key in plan.get(kind, {})

    return {stage: text for stage, text in stages.items() if belongs(stage)}


def save():
    """Keep dvc.lock, which is that of the experiment in params.yaml. `dvc exp run -S experiment=…` leaves stages of another
    one in it: those are kept as that one's."""
    params, stages = checker.read(PARAMS), entries(LOCK)
    for name in {owner(stage) for stage in stages} - {None}:
        own = {stage: text for stage, text in stages.items() if owner(stage) in (None, name)}
        found = of(params, own) if name == params["experiment"] else {**entries(kept(name)), **own}
        kept(name).parent.mkdir(parents=True, exist_ok=True)
        write(kept(name), found)


def choose(name):
    if name not in experiments():
        raise errors.UserError(f'there is no experiment "{name}"{errors.nearest(name, experiments())} '
                               f"(there are: {', '.join(experiments())})")
    part = PARAMS.with_suffix(".part.yaml")
    compose.write(part, CONF, f"experiment={name}")
    present = entries(LOCK)
    if PARAMS.exists():
        save()
    config = (CONF / "config.yaml").read_text(encoding="utf-8")
    replace(CONF / "config.yaml", CHOSEN.sub(f"  - experiment: {name}", config))
    params = checker.read(part)
    if found := {**entries(kept(name)), **of(params, present)}:
        write(LOCK, of(params, found))
    else:
        LOCK.unlink(missing_ok=True)
    part.replace(PARAMS)
    print(f"params.yaml holds the experiment {name}, {len(params['runs'])} runs: `make repro` runs what is out of date of it")


def renew():
    """params.yaml with its plan composed anew."""
    from omegaconf import OmegaConf

    raw = checker.read(PARAMS)
    raw[compose.OWN] = checker.check(PARAMS, {key: raw[key] for key in raw if key != compose.OWN}).plan
    replace(PARAMS, OmegaConf.to_yaml(OmegaConf.create(raw)))


def replace(path, text):
    """Write-then-rename, and nothing where nothing changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", help="of a file in conf/experiment")
    what.add_argument("--save", action="store_true")
    what.add_argument("--params", action="store_true")
    args = parser.parse_args()
    if args.save:
        save()
    elif args.params:
        renew()
    else:
        choose(args.name)


if __name__ == "__main__":
    main()
