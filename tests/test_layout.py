"""What must hold of the repository as a whole, for which no single module can be blamed."""

import ast
import functools
import re
from pathlib import Path

import pytest
import yaml

from selfsup.config import checker, compose, signature

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LIBRARY = "ssl/selfsup"
# They cannot change a result, so an edit of them must not retrain: reading params (which DVC compares itself), finding
# a module by its name, holding files to a schema, messages, MLflow, where and when something was made, and what keeps a
# process from being started twice or outliving its parent.
NEUTRAL = {f"{LIBRARY}/{name}" for name in (
    "__init__.py", "arguments.py", "artefacts.py", "costs.py", "errors.py", "process.py", "provenance.py", "launch.py",
    "methods/__init__.py")}
NEUTRAL_FOLDERS = tuple(f"{LIBRARY}/{name}/" for name in ("config", "tracking"))
# An encoder's folder carries the hash of this code (training/code.py), so what depends on an encoder depends on it, too.
CARRIED = tuple(f"{LIBRARY}/{name}" for name in (
    "core/", "data/", "inputs/", "layers/", "nets/", "training/", "methods/base.py"))


# What kNN says while a run trains (`judge_every`) changes nothing that is learned.
WATCHES = (f"{LIBRARY}/evals/",)


def test_ssl_is_no_package():
    # It would shadow Python's own `ssl`, and break every `python -m`, DVC stage and DataLoader.
    assert not (ROOT / "ssl/__init__.py").exists()


def test_nothing_imports_through_ssl():
    files = [file for part in ("ssl", "pipelines", "tests") for file in (ROOT / part).rglob("*.py")]
    wrong = re.compile(r"^\s*(import|from) ssl\." "selfsup", re.MULTILINE)
    assert not [file for file in files if wrong.search(file.read_text())]


def module_file(name):
    """'selfsup.nets' -> ssl/selfsup/nets/__init__.py; None if there is no such module."""
    path = ROOT / "ssl" / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@functools.cache
def imports(file):
    """Files of this repository that `file` imports anywhere in it; of their packages only the __init__ that runs."""
    package = ".".join(file.relative_to(ROOT / "ssl").parent.parts) if (ROOT / "ssl") in file.parents else ""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            if "selfsup" in names:  # the package used by its public names
                found |= imports(ROOT / "ssl/selfsup/__init__.py")
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {module_file(name) for name in names if name.split(".")[0] == "selfsup"}
    return found - {None}


@functools.cache
def closure(*files):
    """All that runs when these files do. Neutral files are named but not entered."""
    seen, queue = set(), list(files)
    while queue:
        file = queue.pop()
        if file not in seen:
            seen.add(file)
            if not neutral(file):
                queue += imports(file)
    return {str(file.relative_to(ROOT)) for file in seen if not neutral(file)}


def neutral(file):
    name = str(file.relative_to(ROOT))
    return name in NEUTRAL or name.startswith(NEUTRAL_FOLDERS)


def uncovered(stage, *more, carried=(), **values):
    """Files that the stage's script imports, `more` besides, and that no dependency of the stage covers."""
    stage = STAGES[stage]["do"]
    script = re.search(r"pipelines/\w+\.py", stage["cmd"])[0]
    deps = [re.sub(r"\$\{([\w.]+)\}", lambda hit: values.get(hit[1], hit[0]), dep) for dep in stage["deps"]]
    covered = lambda file: file.startswith(carried) or any(  # noqa: E731
        file == dep or file.startswith(dep + "/") for dep in deps)
    needed = closure(ROOT / script, *(ROOT / LIBRARY / file for file in more))
    return {file for file in needed if not covered(file)}


PROTOCOLS, METHODS, SOURCES, NETS = map(signature.names, ("evals", "methods", "sources", "nets"))
METHODS.remove("base")


@pytest.mark.parametrize("source", SOURCES)
def test_shards_depend_on_all_code_that_makes_them(source):
    place = signature.place("sources", source)
    code = place.relative_to(ROOT).as_posix()
    files = [file.relative_to(ROOT / LIBRARY) for file in ([*place.glob("*.py")] if place.is_dir() else [place])]
    # `clusters` embeds by an encoder, which is its root.
    carried = (*CARRIED, f"{LIBRARY}/encoder.py") if source == "clusters" else ()
    root = compose.shard({"source": source})["root"]  # where it names none: another source that it is built on
    assert not uncovered("shard", *files, carried=carried, **{"item.code": code, "item.root": root})


@pytest.mark.parametrize("method", METHODS)
def test_training_depends_on_all_code_that_can_change_it(method):
    # Also says that no method imports another one, or an encoder, whose edit would then go unnoticed.
    assert not uncovered("pretrain", f"methods/{method}.py", carried=WATCHES, **{"item.method": f"{LIBRARY}/methods/{method}.py"})


@pytest.mark.parametrize("net", NETS)
def test_training_depends_on_its_encoder_alone(net):
    assert not uncovered("pretrain", f"nets/{net}.py", carried=WATCHES, **{"item.encoder": f"{LIBRARY}/nets/{net}.py"})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_judging_depends_on_all_code_that_can_change_it(protocol):
    assert not uncovered(protocol, f"evals/{protocol}.py", carried=CARRIED)
    assert "methods/" not in "".join(closure(ROOT / f"{LIBRARY}/evals/{protocol}.py")).replace("methods/base.py", "")


def test_the_report_depends_on_all_code_that_makes_it():
    assert not uncovered("report", carried=CARRIED)


def test_checkpoints_and_stages_name_the_same_code():
    from selfsup.training import code

    deps = {dep.removeprefix(f"{LIBRARY}/") for dep in STAGES["pretrain"]["do"]["deps"] if dep.startswith(LIBRARY)}
    assert set(code.CODE) == deps - {"encoder.py"}  # it writes what is trained by then


def test_stages_are_short():
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) < 320
    for stage in re.split(r"\n(?=  \w+:\n)", text[text.index("\nstages:"):])[1:]:
        assert len(stage.strip().splitlines()) <= 15, stage


def allowed():
    """{folder of the library: what it may import}, from the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return {folder: set(re.findall(r"`(\w+)`", may)) for folder, may in rows}


def test_the_table_of_the_house_names_every_folder():
    folders = {path.name for path in (ROOT / LIBRARY).iterdir() if (path / "__init__.py").exists()}
    assert set(allowed()) == folders


@pytest.mark.parametrize("folder", sorted(allowed()))
def test_imports_follow_the_table_of_the_house(folder):
    may = allowed()[folder] | {folder, "errors", "arguments", "artefacts", "encoder", "__init__"}
    for file in (ROOT / LIBRARY / folder).rglob("*.py"):
        found = {path.relative_to(ROOT / LIBRARY).parts[0].removesuffix(".py") for path in imports(file)}
        assert found <= may, f"{file.relative_to(ROOT)} imports {', '.join(sorted(found - may))}"


def test_dependencies_exist():
    for name, stage in STAGES.items():
        for dep in stage["do"].get("deps", []):
            assert dep.startswith("data/") or "${" in dep or (ROOT / dep).exists(), f"{name}: {dep}"


def test_every_protocol_is_a_stage():
    assert set(PROTOCOLS) == set(STAGES) - {"fetch", "shard", "pretrain", "report"}


def composed(path, *overrides):
    compose.write(path, ROOT / "conf", *overrides)
    return path


def test_params_are_what_conf_composes(tmp_path):
    chosen = composed(tmp_path / "params.yaml").read_text()
    assert (ROOT / "params.yaml").read_text() == chosen, f"run: make experiment E={yaml.safe_load(chosen)['experiment']}"


@pytest.mark.parametrize("experiment", sorted(file.stem for file in (ROOT / "conf/experiment").glob("*.yaml")))
def test_every_experiment_is_valid(tmp_path, experiment):
    from selfsup import config

    path = composed(tmp_path / "params.yaml", f"experiment={experiment}")
    params = config.load(path)
    config.check(params)
    assert params.experiment == experiment
    # And with one number for all images: plan and data sets say it, and no run has another one of its own.
    raw = checker.read(path)
    larger = checker.check(path, {**raw, "size": 96})
    config.check(larger)
    for name, spec in raw["datasets"].items():
        size = 96 if "size" in spec else None
        assert larger.datasets[name].size == larger.plan["shard"][name]["spec"].get("size") == size


def test_one_list_of_runs():
    """Stages, rules and targets come from dvc.yaml and its runs from params: nothing else names a run."""
    runs = yaml.safe_load((ROOT / "params.yaml").read_text())["runs"]
    for file in ("dvc.yaml", "Snakefile", "Makefile"):
        text = (ROOT / file).read_text()
        assert not [run for run in runs if run in text], file
    assert not [stage for stage in STAGES if re.search(rf"\b{stage}\b", (ROOT / "Snakefile").read_text())]
