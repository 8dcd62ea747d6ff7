"""DVC and Snakemake end to end, on the real dvc.yaml with the experiment `tiny`."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Clone

RUNS = ["tiny-random", "tiny-simclr", "tiny-supervised"]
JUDGED = ["finetune", "low_shot", "layerwise", "retrieval"]  # of tiny-simclr alone
pytestmark = pytest.mark.slow


def stages(*templates, runs=RUNS):
    return {f"{template}@{run}" for template in templates for run in runs}


def test_everything_once_then_nothing(ran, clone):
    assert ran.first == {"shard@tiny", "report@tiny"} | stages("pretrain", "knn", "linear") | stages(
        *JUDGED, runs=["tiny-simclr"])
    before = os.times()
    assert clone.repro() == set() and clone.stale() == set()
    after = os.times()
    assert after.children_user - before.children_user < 10, "two commands with nothing to do"
    assert not clone.run("git", "status", "--porcelain", "--ignored=no")
    assert (clone / "data/report/tiny/report.html").stat().st_size > 0
    assert "0 of them out of date" in clone.run(sys.executable, "pipelines/dag.py")
    assert ">simclr<" in (clone / "data/dag.svg").read_text()
    # Whatever DVC keeps lies on the disk once: by a hard link, or by a reflink where the disk has them.
    weights = ran.folder / "data/encoders/tiny/tiny-simclr/0/weights.safetensors"
    copied = subprocess.run(["cp", "--reflink=always", weights, clone / "data/copied"], stderr=subprocess.DEVNULL).returncode
    assert weights.stat().st_nlink > 1 or not copied


def test_a_repetition_changes_nothing_that_git_sees(clone):
    """Seconds differ, and are those of the first time; and the environment's own dvc needs no activation."""
    unfinished = clone / "data/runs/tiny-gone-0-0123456789ab"  # of another experiment, or of no run any more
    unfinished.mkdir()
    assert list(clone.folder.glob("data/runs/tiny-simclr-0-*/checkpoint.pt"))
    assert "MB are free again" in clone.run(sys.executable, "pipelines/clean.py")
    assert [path for path in (clone / "data/runs").iterdir() if path.is_dir()] == [unfinished]
    assert not (clone / "data/cache").exists()
    dvc = Path(sys.executable).with_name("dvc")
    printed = clone.run(dvc, "repro", "--force", "--single-item", "pretrain@tiny-simclr", PATH="/usr/bin:/bin")
    assert "Running stage 'pretrain@tiny-simclr'" in printed
    assert not clone.run("git", "status", "--porcelain")
    assert clone.stale() == set()


def test_no_environment_is_one_sentence(tmp_path):
    done = subprocess.run([ROOT / "pipelines/python", "-c", ""], env={"PATH": "/nowhere:/bin:/usr/bin"}, cwd=tmp_path,
                          capture_output=True, text=True)
    lines = done.stderr.splitlines()
    if done.returncode == 0:
        pytest.skip("the system's own Python has the project's packages")
    assert lines == ["error: no Python with the project's packages was found: run `make repro`, or `source "
                     ".venv/bin/activate` first"]


def test_edited_code_reruns_what_depends_on_it(clone):
    def after(name):
        clone.append(name, "\n# edited\n")
        return clone.stale()

    assert after("ssl/selfsup/tracking/store.py") == set()
    assert after("ssl/selfsup/methods/mae.py") == set()
    assert after("ssl/selfsup/methods/simclr.py") == {"pretrain@tiny-simclr"}
    assert after("ssl/selfsup/evals/knn.py") == {"pretrain@tiny-simclr", "report@tiny"} | stages("knn")
    assert after("ssl/selfsup/inputs/views.py") == {"report@tiny"} | stages("pretrain", "knn")


def test_a_part_more_and_an_edited_parameter_make_nothing_else_stale(clone):
    """One of each: a method, a source, an encoder, a protocol, an augmentation, a data set; then another run's rate."""
    library = clone / "ssl/selfsup"
    for folder, model in (("methods", "rotation"), ("sources", "digits"), ("nets", "convnet"), ("evals", "knn")):
        shutil.copy(library / folder / f"{model}.py", library / folder / "another.py")
    assert clone.stale() <= {"report@tiny"}, "the files alone"
    text = (clone / "dvc.yaml").read_text()
    stage = text[text.index("\n  knn:"):text.index("\n  linear:")]
    clone.append("dvc.yaml", stage.replace("knn", "another"))

    def change(params):
        params["datasets"]["more"] = {"source": "another", "size": 16, "val_share": 0.2, "max_bad": 0.0}
        params["protocols"]["another"] = {**params["protocols"]["knn"], "runs": {"tiny-more": "more"}}
        params["protocols"]["knn"]["runs"] = {run: "tiny" for run in RUNS}
        params["protocols"]["linear"]["runs"] = {run: "tiny" for run in RUNS}
        params["runs"]["tiny-more"] = {"method": "another", "data": "more", "seeds": [0], "init": "tiny-random",
                                       "encoder": {"name": "another", "width": 8}, "args": {"augment": {"flip": 0.5}}}

    clone.edit(change)
    more = {"shard@more", "pretrain@tiny-more", "another@tiny-more", "report@tiny"}
    assert clone.stale() == more == clone.repro()
    assert clone.stale() == set()
    assert json.loads((clone / "data/results/tiny/tiny-more/another.json").read_text())["accuracy"] > 0
    changed = json.loads(clone.run("dvc", "metrics", "diff", "--json"))["data/results/tiny.yaml"]
    titles = changed["Run"]["old"].splitlines()
    assert changed["Run"]["new"].splitlines() == [*titles, "more"]
    for name in {*changed} - {"Run"}:
        if changed[name].get("old"):
            assert changed[name]["new"].splitlines()[:len(titles)] == changed[name]["old"].splitlines(), name
    clone.edit(lambda params: params["runs"]["tiny-supervised"].update(train={"lr": 0.01}))
    assert clone.stale() == {"pretrain@tiny-supervised", "report@tiny"}
    # Without a network; and of a commit whose report is nowhere any more, what git has.
    locked = yaml.safe_load(clone.run("git", "show", "HEAD:dvc.lock"))["stages"]["report@tiny"]["outs"]
    md5 = next(out["md5"] for out in locked if out["path"] == "data/report/tiny")
    (clone / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}").unlink()
    clone.run("dvc", "plots", "diff")
    page = (clone / "dvc_plots/index.html").read_text()
    assert "https://cdn" not in page and page.count("vegaEmbed('#") == 2  # accuracy, loss
    assert '"rev": "HEAD"' in page and not clone.run("git", "status", "--porcelain", "dvc_plots")


def test_a_comment_changes_no_byte_of_an_encoder(clone):
    def outputs():
        locked = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
        return {out["path"]: out["md5"] for stage in locked.values() for out in stage["outs"]}

    before = outputs()
    clone.append("ssl/selfsup/methods/simclr.py", "\n# a remark\n")
    clone.append("ssl/selfsup/core/rng.py", "\n# a remark\n")
    assert clone.stale() >= stages("pretrain")
    judged = stages("knn", *JUDGED, runs=["tiny-simclr"])  # all of which have nothing to do
    assert clone.repro(*judged) == {"shard@tiny", "pretrain@tiny-simclr"}
    assert outputs() == before
    assert not clone.run("git", "status", "--porcelain", "--", "data")


def test_the_lines_on_variants_work_as_they_stand(clone, tmp_path):
    """Those in README: they vary the chosen experiment, which is not conf's own default here. What DVC runs in a copy of the
    repository, which it throws away, is in the repository's MLflow none the less."""
    (block,) = re.findall(r"```sh\n(dvc exp run.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.partition("#")[0].strip() for line in block.replace("quick", "tiny").splitlines()]
    assert [line.split()[2] for line in lines] == ["run", "run", "run", "diff", "apply", "push"]
    clone.run("git", "init", "--quiet", "--bare", tmp_path / "origin")
    clone.run("git", "remote", "add", "origin", tmp_path / "origin")
    clone.run("dvc", "remote", "add", "--default", "team", tmp_path / "store")
    clone.commit()
    printed = []
    for line in lines:
        one = " pretrain@tiny-simclr" if "--set-param" in line else ""  # of all stages
        printed.append(clone.run("bash", "-ec", line + one, SELFSUP_TRACKING="on", MLFLOW_TRACKING_URI=""))
    assert "Running stage 'pretrain@tiny-simclr'" in printed[0]
    assert "runs.tiny-simclr.train.lr" in printed[3] and "0.002" in printed[3] and "0.0005" in printed[3]
    params = yaml.safe_load((clone / "params.yaml").read_text())
    assert params["plan"]["pretrain"]["tiny-simclr"]["run"]["train"]["lr"] == 0.002
    assert "refs/exps" in clone.run("git", "ls-remote", "origin")
    assert any((tmp_path / "store").rglob("*.dir"))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "params.seed = '0'")
    assert {(run.data.tags["dvc.experiment"], run.data.params["train.lr"]) for run in runs} == {
        ("faster", "0.002"), ("slower", "0.0005")}


def test_snakemake_runs_what_dvc_finds_stale(clone):
    clone.append("ssl/selfsup/evals/retrieval.py", "\n# edited\n")
    printed = clone.run("snakemake", "--cores", "2")
    ran = set(re.findall(r"^\s*(?:local)?rule (\w+):", printed, re.MULTILINE)) - {"all"}
    assert ran == {"retrieval_tiny_simclr", "report_tiny"}
    assert clone.stale() == set()
    assert "Nothing to be done" in clone.run("snakemake", "--cores", "2")


def test_slurm_profile_is_parsed(clone):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    clone.append("ssl/selfsup/evals/knn.py", "\n# edited\n")
    assert "knn_tiny_random" in clone.run("snakemake", "--dry-run", "--profile", "profiles/slurm")


def test_independent_stages_run_at_the_same_time(tmp_path):
    """Three stages that sleep, two of them independent and all but of one name: the repository's Snakefile, another dvc.yaml."""
    clone = Clone(tmp_path)
    stamp = "import sys, time; a = time.time(); time.sleep({}); print(a, time.time(), file=open(sys.argv[1], 'w'))"
    work = {name: {"cmd": f'python -c "{stamp.format(seconds)}" {name}', "outs": [name]}
            for name, seconds in (("a-b", 6), ("a_b", 6), ("last", 0))}
    work["last"]["deps"] = ["a-b", "a_b"]
    (clone / "dvc.yaml").write_text(yaml.safe_dump({"stages": work}))
    shutil.copy(ROOT / "Snakefile", tmp_path)
    clone.run("git", "init", "--quiet")
    clone.run("dvc", "init", "--quiet")
    clone.run("snakemake", "--cores", "2")
    times = {name: [float(word) for word in (clone / name).read_text().split()] for name in work}
    assert max(times["a-b"][0], times["a_b"][0]) < min(times["a-b"][1], times["a_b"][1])
    assert times["last"][0] > max(times["a-b"][1], times["a_b"][1])
    assert clone.stale() == set()


def test_snakemake_goes_on_after_a_kill_and_two_do_not_clash(tmp_path):
    """A stage that takes for ever at first: kill -9, and what it leaves (Snakemake's lock, its mark of incomplete files,
    the stage and the DVC above it)."""
    clone = Clone(tmp_path)
    work = ("from selfsup import process; process.guard(); import os, time; open('begun', 'w'); "
            "time.sleep(600 * os.path.exists('slow')); open('made', 'w')")
    only = {"cmd": f'pipelines/python -c "{work}"', "outs": ["made"]}
    (clone / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"only": only}}))
    for name in ("pipelines", "ssl"):
        (clone / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    clone.run("git", "init", "--quiet")
    clone.run("dvc", "init", "--quiet")
    (clone / "slow").touch()
    first = subprocess.Popen(["snakemake", "--cores", "1"], cwd=tmp_path, env=clone.env, stderr=subprocess.DEVNULL)
    while not (clone / "begun").exists():
        assert first.poll() is None
        time.sleep(0.1)
    with pytest.raises(AssertionError, match="another Snakemake runs in this working tree"):
        clone.run("snakemake", "--cores", "1")
    assert list((clone / ".snakemake/locks").iterdir()) and list((clone / ".snakemake/incomplete").iterdir())
    first.kill()
    first.wait()
    (clone / "slow").unlink()
    clone.run("snakemake", "--cores", "1")
    assert (clone / "made").exists()
    marks = [mark for mark in (clone / ".snakemake/incomplete").rglob("*") if mark.is_file()]
    assert not marks and clone.stale() == set()


def test_an_edit_by_hand_that_the_plan_does_not_know_is_noticed(clone):
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("method: simclr", "method: moco"))
    with pytest.raises(AssertionError, match="error: params.yaml was edited by hand .* run `make params`"):
        clone.run("dvc", "repro")


def test_a_mistake_in_params_stops_before_any_work(clone):
    text = (clone / "params.yaml").read_text().replace("  lr:", "  lrr:")
    (clone / "params.yaml").write_text(text)
    with pytest.raises(AssertionError, match=r'error: params.yaml: \d+ mistakes: \(1\) unknown key "lrr" in train; did you mean "lr"'):
        clone.run("dvc", "repro")


def test_clusters_wait_for_the_encoder_they_come_from(clone):
    """ClusterFit's data set lies under another run's output, so DVC trains that first."""
    def change(params):
        teacher = {"source": "clusters", "root": "data/encoders/tiny/tiny-simclr/0", "data": "tiny", "clusters": 8}
        params["datasets"]["fit"] = {**teacher, "size": 16, "max_bad": 0.0}
        params["runs"]["tiny-clusterfit"] = {"method": "clusterfit", "data": "fit", "seeds": [0]}
        params["runs"]["tiny-simclr"]["train"] = {"lr": 0.01}  # a teacher of yesterday is not good enough

    clone.edit(change)
    target = "pretrain@tiny-clusterfit"
    printed = clone.run("dvc", "repro", target)
    ran = [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage")]
    assert ran == ["pretrain@tiny-simclr", "shard@fit", target]
    assert json.loads((clone / "data/shards/fit/card.json").read_text())["clusters"] == 8
    assert clone.repro(target) == set()
