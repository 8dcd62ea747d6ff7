import http.server
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from selfsup import config, tracking
from selfsup.errors import UserError

LIBRARY = Path(tracking.__file__).parents[1]
TRAIN = dict(images=2000, batch=20, optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=0.1, clip=1.0,
             precision="fp32", threads=1, workers=0, reader="auto", checkpoint_every=30.0)
ENCODER = {"name": "convnet", "width": 8}


@pytest.fixture(autouse=True)
def store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SELFSUP_TRACKING", raising=False)


def settings(*names):
    train = config.Train(**TRAIN)
    runs = {name: config.Run(name=name, method="simclr", data="scenes", seeds=[0, 1], encoder=ENCODER,
                             args={"temperature": 0.2}, train=train) for name in names}
    return config.Params.model_construct(experiment="quick", runs=runs)


def history(rows=100):
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=rows + 1)
    return [{"step": i, "images": 20 * i, "loss": 3 / i + float(noise[i]), "lr": 1e-3} for i in range(1, rows + 1)]


def card(root):
    folder = root / "data/shards/scenes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(json.dumps({"name": "scenes", "hash": "c" * 64}))


def encoder(root, name="quick-simclr", seed=0, knn=41.5, code="f" * 64):
    """An encoder folder and results as the stages leave them."""
    folder = root / config.encoders(name) / str(seed)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    save_file({"encoder.weight": rng.normal(size=(8, 3)).astype("float32")}, folder / "weights.safetensors")
    info = {"parts": {"encoder": ENCODER}, "dim": 64, "run": name, "method": "simclr", "seed": seed, "code": code,
            "data": {"name": "scenes", "hash": "c" * 64}, "args": {"temperature": 0.2}, "train": TRAIN, "images": 2000,
            "steps": 100}
    (folder / "encoder.json").write_text(json.dumps(info))
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history()))
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), "uint8")).save(folder / "pictures/views.png")
    results = root / config.results(name)
    results.mkdir(parents=True, exist_ok=True)
    seeds = range(seed + 1)
    cost = {"seconds": 12.5, "device": "cpu"}
    (results / "cost.json").write_text(json.dumps({"seeds": {str(s): cost for s in seeds}}))
    (results / "knn.json").write_text(json.dumps({"accuracy": knn, "seeds": {
        str(s): {"accuracy": knn + s, "low": knn - 2, "high": knn + 2, "k": 20, "temperature": 0.1} for s in seeds}}))
    prompts = {"a {}": 40.0, "ein {} für": 30.0}  # MLflow takes no braces and no umlauts in a metric's name
    (results / "zero_shot.json").write_text(json.dumps({"seeds": {str(s): {"prompts": prompts} for s in seeds}}))
    return folder


def client(root):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def rows(root, name="quick"):
    store = client(root)
    return store.search_runs([store.get_experiment_by_name(name).experiment_id], order_by=["attributes.run_name"])


def count(root):
    """Rows of every table that a sync writes."""
    with sqlite3.connect(root / "mlflow.db") as db:
        tables = "runs metrics params tags datasets inputs model_versions registered_models model_version_tags".split()
        return {table: db.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}


def test_sync_makes_a_complete_run_once(tmp_path):
    folder = encoder(tmp_path)
    few = {"way": "linear", "linear": {"1": {"labels": 60, "accuracy": 34.0}}}
    (tmp_path / config.results("quick-simclr") / "low_shot.json").write_text(json.dumps({"seeds": {"0": few}}))
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  pretrain@quick-simclr:\n    outs:\n    - path: data/encoders/quick/quick-simclr\n      md5: abc.dir\n")
    assert tracking.sync(settings("quick-simclr"), "quick-simclr", tmp_path) == 1
    (run,) = rows(tmp_path)
    data, info = run.data, run.info
    assert info.run_name == "quick-simclr/0" and info.status == "FINISHED"
    assert data.params["method"] == "simclr" and data.params["encoder.width"] == "8"
    assert data.params["args.temperature"] == "0.2" and data.params["train.lr"] == "0.001"
    assert (data.metrics["knn_accuracy"], data.metrics["knn_low"], data.metrics["cost_seconds"]) == (41.5, 39.5, 12.5)
    assert data.tags["selfsup.cost_device"] == "cpu" and data.tags["selfsup.low_shot_way"] == "linear"
    assert (data.metrics["low_shot_linear_1_accuracy"], data.metrics["low_shot_linear_1_labels"]) == (34.0, 60)
    assert sorted(v for k, v in data.metrics.items() if k.startswith("zero_shot_prompts_")) == [30.0, 40.0]
    curve = client(tmp_path).get_metric_history(info.run_id, "loss")
    assert {point.step: point.value for point in curve} == {row["images"]: row["loss"] for row in history()}
    assert 11_000 < max(p.timestamp for p in curve) - min(p.timestamp for p in curve) < 12_500  # cost_seconds, in ms
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == "scenes" and used.dataset.digest == "c" * 12
    assert [file.path for file in client(tmp_path).list_artifacts(info.run_id, "pictures")] == ["pictures/views.png"]
    (version,) = client(tmp_path).search_model_versions("name = 'quick-simclr'")
    assert version.tags["dvc.md5"] == "abc.dir" and version.tags["selfsup.encoder"] == data.tags["selfsup.encoder"]
    assert version.run_id == info.run_id and version.source == "dvc://data/encoders/quick/quick-simclr/0"

    before = count(tmp_path)
    tracking.sync(settings("quick-simclr"), "quick-simclr", tmp_path)
    assert count(tmp_path) == before

    encoder(tmp_path, knn=55.0)  # judged again: the same run, its newest value
    tracking.sync(settings("quick-simclr"), root=tmp_path)
    assert rows(tmp_path)[0].data.metrics["knn_accuracy"] == 55.0 and len(rows(tmp_path)) == 1
    encoder(tmp_path, code="e" * 64)  # trained again with other code: a new run beside the old one
    tracking.sync(settings("quick-simclr"), root=tmp_path)
    assert len(rows(tmp_path)) == 2
    shutil.rmtree(folder)
    assert tracking.sync(settings("quick-simclr"), root=tmp_path) == 0


def test_sync_finds_runs_of_other_experiments_and_seeds(tmp_path):
    for name, seed in (("quick-moco", 0), ("quick-moco", 1), ("cifar10-moco", 0)):
        encoder(tmp_path, name, seed)
    assert tracking.sync(settings("quick-moco"), root=tmp_path) == 3
    assert [run.info.run_name for run in rows(tmp_path)] == ["quick-moco/0", "quick-moco/1"]
    assert [run.data.metrics["knn_accuracy"] for run in rows(tmp_path)] == [41.5, 42.5]
    assert [run.info.run_name for run in rows(tmp_path, "cifar10")] == ["cifar10-moco/0"]


def test_damaged_files_are_named(tmp_path):
    folder = encoder(tmp_path)
    (folder / "history.jsonl").write_text('{"images": 1, "lo')
    with pytest.raises(UserError, match="history.jsonl is damaged"):
        tracking.sync(settings("quick-simclr"), root=tmp_path)


SYNC = """
import sys
sys.path.insert(0, sys.argv[1])
from test_tracking import settings, tracking
tracking.sync(settings("quick-simclr"), root=sys.argv[2])
"""


@pytest.mark.slow
def test_six_processes_at_once_on_a_fresh_store(tmp_path):
    for seed in (0, 1):
        encoder(tmp_path, seed=seed)
    env = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    command = [sys.executable, "-c", SYNC, str(Path(__file__).parent), str(tmp_path)]
    processes = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, errors
    assert [run.info.run_name for run in rows(tmp_path)] == ["quick-simclr/0", "quick-simclr/1"]
    assert count(tmp_path)["metrics"] == 2 * (200 + 8) and count(tmp_path)["model_versions"] == 2


def test_dead_server_is_one_sentence_at_once(tmp_path, monkeypatch):
    encoder(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start = time.monotonic()
    with pytest.raises(UserError, match="no MLflow server answers at http://127") as error:
        tracking.sync(settings("quick-simclr"), root=tmp_path)
    assert time.monotonic() - start < 6 and "secret" not in str(error.value)


def test_wrong_server_and_wrong_file_are_one_sentence(tmp_path, monkeypatch):
    encoder(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "no.db").write_text("this is not a database " * 100)
    for uri in (f"http://127.0.0.1:{server.server_port}", f"sqlite:///{tmp_path}/no.db", "gopher://x"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(UserError, match="the MLflow store .* cannot be used") as error:
            tracking.sync(settings("quick-simclr"), root=tmp_path)
        assert "\n" not in str(error.value)
    server.shutdown()


def track(root, seed=0):
    card(root)
    return tracking.Tracker(settings("quick-simclr"), settings("quick-simclr").runs["quick-simclr"], seed,
                            root / "data/encoders/quick/quick-simclr" / str(seed))


@pytest.mark.slow
def test_tracker_records_resumes_and_is_completed_by_sync(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE", 300)  # however busy the machine
    first = track(tmp_path)
    start = time.monotonic()
    first.log(history(60))
    assert time.monotonic() - start < 1
    wait(lambda: len(logged(tmp_path)) == 60)
    first.process.stdin.close()  # what the death of the trainer does
    first.process.wait(300)
    assert rows(tmp_path)[0].info.status == "KILLED"

    second = track(tmp_path)
    second.log(history(50))  # the checkpoint's
    for row in history()[50:]:
        second.log([row])
    second.close()
    (run,) = rows(tmp_path)
    assert run.info.status == "FINISHED" and run.data.params["args.temperature"] == "0.2"
    assert logged(tmp_path) == [row["images"] for row in history()]

    from selfsup.training.code import code_hash
    encoder(tmp_path, code=code_hash(settings("quick-simclr").runs["quick-simclr"]))
    tracking.sync(settings("quick-simclr"), root=tmp_path)
    (run,) = rows(tmp_path)
    assert run.data.metrics["knn_accuracy"] == 41.5 and logged(tmp_path) == [row["images"] for row in history()]


def logged(root):
    """Images seen of every value of the loss, read beside MLflow."""
    if not (root / "mlflow.db").exists():
        return []
    with sqlite3.connect(root / "mlflow.db") as db:
        return [step for step, in db.execute("select step from metrics where key = 'loss' order by step")]


def wait(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_dead_server_never_stops_training(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker = track(tmp_path)
    start = time.monotonic()
    for row in history() * 20:
        tracker.log([row])
    tracker.close()
    assert time.monotonic() - start < 10
    warning = capfd.readouterr().err
    assert warning.count("\n") == 1 and "no MLflow server answers" in warning and "make track" in warning


def test_server_that_never_answers_does_not_stall(tmp_path, monkeypatch, capfd):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        tracker = track(tmp_path)
        start = time.monotonic()
        for row in history() * 20:
            tracker.log([row])
        assert time.monotonic() - start < 2
        tracker.close()
    assert time.monotonic() - start < 12 and "make track" in capfd.readouterr().err


def test_recorder_killed_or_mlflow_missing_does_not_stop_training(tmp_path, monkeypatch, capsys):
    tracker = track(tmp_path)
    os.kill(tracker.process.pid, signal.SIGKILL)
    tracker.process.wait()
    tracker.log(history())
    tracker.close()
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    tracker = track(tmp_path)
    tracker.log(history())
    tracker.close()
    assert "mlflow is not installed" in capsys.readouterr().err
    with pytest.raises(UserError, match="mlflow is not installed"):
        encoder(tmp_path)
        tracking.sync(settings("quick-simclr"), root=tmp_path)
