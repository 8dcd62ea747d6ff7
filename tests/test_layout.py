"""What must hold of the repository as a whole, for which no single module can be blamed."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# They cannot change a result, so an edit of them must not retrain: reading params (which DVC compares itself), finding
# a module by its name, messages, MLflow, and what keeps a process from being started twice or outliving its parent.
NEUTRAL = {f"ssl/selfsup/{name}" for name in (
    "__init__.py", "config.py", "errors.py", "process.py", "methods/__init__.py")} | {
    str(file.relative_to(ROOT)) for file in (ROOT / "ssl/selfsup/tracking").glob("*.py")}


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


def closure(*files):
    """All that runs when these files do. Neutral files are named but not entered."""
    seen, queue = set(), list(files)
    while queue:
        file = queue.pop()
        if file not in seen:
            seen.add(file)
            if str(file.relative_to(ROOT)) not in NEUTRAL:
                queue += imports(file)
    return {str(file.relative_to(ROOT)) for file in seen} - NEUTRAL


def uncovered(stage, *more, **values):
    """Files that the stage's script imports, `more` besides, and that no dependency of the stage covers."""
    stage = STAGES[stage]["do"]
    script = re.search(r"pipelines/\w+\.py", stage["cmd"])[0]
    deps = [re.sub(r"\$\{([\w.]+)\}", lambda hit: values.get(hit[1], hit[0]), dep) for dep in stage["deps"]]
    covered = lambda file: any(file == dep or file.startswith(dep + "/") for dep in deps)  # noqa: E731
    needed = closure(ROOT / script, *(ROOT / "ssl/selfsup" / file for file in more))
    return {file for file in needed if not covered(file)}


PROTOCOLS = sorted(file.stem for file in (ROOT / "ssl/selfsup/evals").glob("[!_]*.py"))
METHODS = sorted(file.stem for file in (ROOT / "ssl/selfsup/methods").glob("[!_]*.py") if file.stem != "base")


def test_shards_depend_on_all_code_that_makes_them():
    assert not uncovered("shard")


@pytest.mark.parametrize("method", METHODS)
def test_training_depends_on_all_code_that_can_change_it(method):
    # Also says that no method imports another one, whose edit would then go unnoticed.
    assert not uncovered("pretrain", f"methods/{method}.py", **{"item.method": method})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_judging_depends_on_all_code_that_can_change_it(protocol):
    assert not uncovered(protocol, f"evals/{protocol}.py")
    assert "methods/" not in "".join(closure(ROOT / "pipelines/evaluate.py", ROOT / f"ssl/selfsup/evals/{protocol}.py"))


def test_the_report_depends_on_all_code_that_makes_it():
    assert not uncovered("report")
    templates = {str(file.relative_to(ROOT)) for file in (ROOT / "ssl/selfsup").glob("report.*")}
    assert templates <= set(STAGES["report"]["do"]["deps"])


def test_checkpoints_and_stages_name_the_same_code():
    from selfsup.training import loop

    deps = {dep.removeprefix("ssl/selfsup/") for dep in STAGES["pretrain"]["do"]["deps"] if dep.startswith("ssl/selfsup/")}
    assert set(loop.CODE) == {dep for dep in deps if "${" not in dep} - {"encoder.py"}  # it writes what is trained by then


def test_dependencies_exist():
    for name, stage in STAGES.items():
        for dep in stage["do"].get("deps", []):
            assert dep.startswith("data/") or "${" in dep or (ROOT / dep).exists(), f"{name}: {dep}"


def test_every_protocol_is_a_stage():
    assert set(PROTOCOLS) == set(STAGES) - {"fetch", "shard", "pretrain", "report"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_watches_its_parameters_but_not_who_else_is_judged(protocol):
    names = set(yaml.safe_load((ROOT / "params.yaml").read_text())["protocols"][protocol])
    watched = {name.removeprefix(f"protocols.{protocol}").lstrip(".") for name in STAGES[protocol]["do"]["params"]}
    assert watched == (names - {"runs"} if "runs" in names else {""})


def test_params_are_what_conf_composes(tmp_path):
    from dvc.utils.hydra import compose_and_dump

    compose_and_dump(tmp_path / "params.yaml", str(ROOT / "conf"), None, "config", "", [])
    assert (ROOT / "params.yaml").read_text() == (tmp_path / "params.yaml").read_text(), "run: make experiment E=quick"


@pytest.mark.parametrize("experiment", sorted(file.stem for file in (ROOT / "conf/experiment").glob("*.yaml")))
def test_every_experiment_is_valid(tmp_path, experiment):
    from dvc.utils.hydra import compose_and_dump

    from selfsup import config

    path = tmp_path / "params.yaml"
    compose_and_dump(path, str(ROOT / "conf"), None, "config", "", [f"experiment={experiment}"])
    params = config.load(path)
    config.check(params)
    assert params.experiment == experiment


def test_one_list_of_runs():
    """Stages, rules and targets come from dvc.yaml and its runs from params: nothing else names a run."""
    runs = yaml.safe_load((ROOT / "params.yaml").read_text())["runs"]
    for file in ("dvc.yaml", "Snakefile", "Makefile"):
        text = (ROOT / file).read_text()
        assert not [run for run in runs if run in text], file
    assert not [stage for stage in STAGES if re.search(rf"\b{stage}\b", (ROOT / "Snakefile").read_text())]
