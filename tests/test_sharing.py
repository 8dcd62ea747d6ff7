"""A team shares encoders: one pushes, another clones, pulls, and has everything without training."""

import hashlib
import sys

import pytest

from tests.conftest import Clone

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(monkeypatch):
    """(its URL, its server's): an S3 of our own."""
    from moto.server import ThreadedMotoServer

    for key, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{key}", value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        import boto3

        address = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="team")
        yield "s3://team/encoders", address
    finally:
        server.stop()


def test_through_a_bucket(bucket, clone, tmp_path):
    """Pushed from `clone`; then the git repository is cloned, and pulled there."""
    url, address = bucket
    clone.run("dvc", "remote", "add", "--default", "team", url)
    clone.run("dvc", "remote", "modify", "team", "endpointurl", address)
    clone.commit()
    clone.run("dvc", "push")
    clone.run("git", "clone", "--quiet", clone.folder, tmp_path / "other")
    other = Clone(tmp_path / "other")
    assert not (other / "data/encoders").exists()
    other.run("dvc", "pull")
    assert other.repro() == set() and other.stale() == set()

    import selfsup

    encoder = selfsup.load(other / "data/encoders/tiny/tiny-simclr")
    import torch

    assert encoder(torch.zeros(2, 3, encoder.size, encoder.size)).shape == (2, encoder.dim)
    assert_brought_back(other, "data/encoders/tiny/tiny-simclr/0/weights.safetensors")
    # An empty MLflow is filled from the files.
    other.run(sys.executable, "pipelines/track.py", SELFSUP_TRACKING="on", MLFLOW_TRACKING_URI="")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{other / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    names = sorted(run.info.run_name for run in runs)
    runs_of_ours = ("tiny-random", "tiny-simclr", "tiny-supervised")
    assert names == sorted([*runs_of_ours, *(f"{name}/0" for name in runs_of_ours), "report"])  # each with its seed
    judged = [run for run in runs if run.info.run_name != "report"]
    assert all("knn_accuracy" in run.data.metrics and "linear_accuracy" in run.data.metrics for run in judged)


def assert_brought_back(clone, name):
    """What is printed for a file that is damaged, here as in DVC's cache, helps."""
    import selfsup
    from selfsup.errors import UserError

    whole = (clone / name).read_bytes()
    md5 = hashlib.md5(whole).hexdigest()
    for path in (clone / name, clone / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"):
        path.unlink()
        path.write_bytes(whole[:5000])
    with pytest.raises(UserError, match="DVC's copy is damaged, too") as caught:
        selfsup.load((clone / name).parent)
    for command in str(caught.value).split("`")[1::2]:
        clone.run(*command.split())
    assert (clone / name).read_bytes() == whole


def test_a_clone_without_the_data_says_what_is_missing(clone, tmp_path):
    clone.run("git", "clone", "--quiet", clone.folder, tmp_path / "other")
    other = Clone(tmp_path / "other")
    code = "import selfsup; selfsup.load('data/encoders/tiny/tiny-simclr')"
    with pytest.raises(AssertionError, match="run `dvc pull` or `dvc repro`"):
        other.run(sys.executable, "-c", code)


def test_two_experiments_side_by_side_two_clones_one_remote(clone, tmp_path):
    """`dvc exp run` chooses one as `make experiment` does. The lock of each comes with git, so that a colleague who chooses it
    pulls its encoders."""
    text = (clone / "conf/experiment/tiny.yaml").read_text().replace("tiny-", "other-").replace("experiment: tiny", "experiment: other")
    text = "".join(line for line in text.splitlines(True) if "method: simclr" not in line and "supervised" not in line)
    (clone / "conf/experiment/other.yaml").write_text(
        text.replace("{other-simclr: tiny}", "{}").replace("\n  linear: {", "\n  linear: {runs: {}, "))
    clone.run("dvc", "remote", "add", "--default", "team", tmp_path / "store")
    clone.commit()
    printed = clone.run("dvc", "exp", "run", "--set-param", "experiment=other")
    assert "Running stage 'report@other'" in printed and "Running stage 'shard@tiny'" not in printed
    by_dvc = (clone / "params.yaml").read_text()
    clone.switch("other")
    assert (clone / "params.yaml").read_text() == by_dvc and clone.stale() == set()
    clone.run(sys.executable, "pipelines/experiment.py", "--save")
    assert clone.stale() == set(), "its lock lies among the results that the report depends on"
    clone.run("dvc", "push")
    clone.commit()
    clone.switch("tiny")
    assert clone.stale() == set()
    clone.run("dvc", "push")
    clone.commit()
    clone.run("dvc", "gc", "--all-commits", "--cloud", "--force")

    clone.run("git", "clone", "--quiet", clone.folder, tmp_path / "colleague")
    colleague = Clone(tmp_path / "colleague")
    for experiment, other in (("tiny", "other"), ("other", "tiny")):
        colleague.switch(experiment)
        colleague.run("dvc", "pull")
        assert colleague.stale() == set()
        assert (colleague / f"data/encoders/{experiment}/{experiment}-random/0/weights.safetensors").exists()
    assert not colleague.run("git", "status", "--porcelain", "--", "data")
