import base64
import contextlib
import functools
import http.server
import importlib.util
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
import yaml
from PIL import Image
from safetensors.numpy import save_file

from selfsup import config, tracking
from selfsup.errors import UserError
from selfsup.tracking import live, names, runs, store, view

LIBRARY = Path(tracking.__file__).parents[2]
TRAIN = dict(images=2000, batch=20, optimizer="adamw", lr=1e-3, weight_decay=0.05, warmup=0.1, clip=1.0,
             precision="fp32", threads=1, workers=0, reader="auto", checkpoint_every=30.0)
ENCODER = {"name": "convnet", "width": 8}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("SELFSUP_TRACKING", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an empty store, which takes MLflow ten seconds to make."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with store.client(folder):
            pass
    return folder


@pytest.fixture
def root(made, tmp_path):
    """A folder of the test's own with an empty store."""
    shutil.copy2(made / "mlflow.db", tmp_path)
    return tmp_path


@functools.cache
def protocols():
    return config.load(Path(__file__).parents[1] / "params.yaml").protocols


def settings(*names):
    train = config.Train(**TRAIN)
    runs = {name: config.Run(name=name, method="simclr", data="scenes", seeds=[0, 1], encoder=ENCODER,
                             args={"temperature": 0.2}, train=train) for name in names}
    return config.Params.model_construct(experiment="quick", runs=runs, protocols=protocols())


def history(rows=100):
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.normal(size=rows + 1)
    return [{"step": i, "images": 20 * i, "loss": 3 / i + float(noise[i]), "lr": 1e-3} for i in range(1, rows + 1)]


def card(root):
    folder = root / "data/shards/scenes"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"name": "scenes", "hash": "c" * 64, "size": 32, "columns": ["image"], "classes": [], "counts": {}, "shards": {},
             "mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "card.json").write_text(json.dumps(about))


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
    costs = {str(s): {"seconds": 12.5 + s, "device": "cpu"} for s in seeds}
    (results / "cost.json").write_text(json.dumps({"seeds": costs}))
    judged = {str(s): {"accuracy": knn + s, "low": knn - 2, "high": knn + 2, "k": 20} for s in seeds}
    knn = {"run": name, "protocol": "knn", "accuracy": knn, "low": knn - 1, "high": knn + 1, "interval": "seeds"}
    (results / "knn.json").write_text(json.dumps({**knn, "seeds": judged}))
    prompts = {"a {}": 40.0, "ein {} für": 30.0}  # MLflow takes no braces and no umlauts in a metric's name
    (results / "zero_shot.json").write_text(json.dumps({"seeds": {str(s): {"prompts": prompts} for s in seeds}}))
    return folder


def client(root):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def rows(root, name="quick"):
    store = client(root)
    return store.search_runs([store.get_experiment_by_name(name).experiment_id], order_by=["attributes.run_name"])


def first_view(root, name="quick"):
    """[(title, [titles of those nested in it])], as the table of runs shows them."""
    found = [(run, run.data.tags.get("mlflow.parentRunId")) for run in rows(root, name)]
    return [(run.info.run_name, [inner.info.run_name for inner, of in found if of == run.info.run_id])
            for run, parent in found if parent is None]


def count(root):
    """Rows of every table that a sync writes."""
    with sqlite3.connect(root / "mlflow.db") as db:
        tables = "runs metrics params tags datasets inputs model_versions registered_models model_version_tags".split()
        return {table: db.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}


def test_sync_makes_a_complete_run_once(root):
    encoder(root)
    folder = encoder(root, seed=1)
    few = {"way": "linear", "linear": {"0.1": {"labels": 60, "accuracy": 34.0, "weight_decay": 0.01}}}
    (root / config.results("quick-simclr") / "low_shot.json").write_text(json.dumps({"seeds": {"0": few}}))
    outs = [{"path": "data/encoders/quick/quick-simclr", "md5": "abc.dir"}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"pretrain@quick-simclr": {"outs": outs}}}))
    assert tracking.sync(settings("quick-simclr"), "quick-simclr", root) == 1
    assert first_view(root) == [("quick-simclr", ["quick-simclr/0", "quick-simclr/1"])]
    parent, seed, _ = rows(root)
    opened = client(root).get_experiment_by_name("quick").tags
    assert json.loads(opened[view.TAG])["selectedColumns"][:2] == ["metrics.`knn_accuracy`", "metrics.`cost_seconds`"]
    assert f"({view.address(seed.info.experiment_id)})" in opened[runs.NOTE]

    data = parent.data
    assert parent.info.status == "FINISHED" and data.params["method"] == "simclr" and data.params["seed"] == "all"
    assert data.metrics == {"knn_accuracy": 41.5, "knn_low": 40.5, "knn_high": 42.5, "cost_seconds": 13.0}
    assert (data.tags["family"], data.tags["encoder"], data.tags["data"]) == ("agree across views", "convnet", "scenes")
    assert data.tags["selfsup.knn.k"] == "20" and "Chen et al. 2020" in data.tags[runs.NOTE]
    assert data.tags["selfsup.knn_interval"] == "seeds" and data.tags["selfsup.cost_device"] == "cpu"
    (used,) = parent.inputs.dataset_inputs
    assert used.dataset.name == "scenes" and used.dataset.digest == "c" * 12

    data, info = seed.data, seed.info
    assert info.status == "FINISHED" and data.params["seed"] == "0" and data.params["encoder.width"] == "8"
    assert data.params["args.temperature"] == "0.2" and data.params["train.lr"] == "0.001"
    assert (data.metrics["knn_accuracy"], data.metrics["knn_low"], data.metrics["cost_seconds"]) == (41.5, 39.5, 12.5)
    assert data.tags["selfsup.cost_device"] == "cpu" and data.tags["selfsup.low_shot_way"] == "linear"
    assert (data.metrics["low_shot_linear_0.1_accuracy"], data.metrics["low_shot_linear_0.1_labels"]) == (34.0, 60)
    assert (data.params["knn.k"], data.params["low_shot.linear.0.1.weight_decay"]) == ("20", "0.01")  # chosen on val
    assert not [key for key in data.metrics if key.endswith(("_k", "_decay"))]
    assert {point.step for point in client(root).get_metric_history(info.run_id, "knn_accuracy")} == {0}, "a bar, no dot"
    assert sorted(v for k, v in data.metrics.items() if k.startswith("zero_shot_prompts_")) == [30.0, 40.0]
    curve = client(root).get_metric_history(info.run_id, "loss")
    assert {point.step: point.value for point in curve} == {row["images"]: row["loss"] for row in history()}
    assert 11_000 < max(p.timestamp for p in curve) - min(p.timestamp for p in curve) < 12_500  # cost_seconds, in ms
    assert seed.inputs.dataset_inputs[0].dataset.name == "scenes"
    assert [file.path for file in client(root).list_artifacts(info.run_id, "pictures")] == ["pictures/views.png"]
    version = client(root).search_model_versions("name = 'quick-simclr'", order_by=["version_number ASC"])[0]
    assert version.tags["dvc.md5"] == "abc.dir" and version.tags["selfsup.encoder"] == data.tags["selfsup.encoder"]
    assert version.run_id == info.run_id and version.source == f"{info.artifact_uri}/model"

    before = count(root)
    tracking.sync(settings("quick-simclr"), "quick-simclr", root)
    assert count(root) == before

    encoder(root, seed=1, knn=30.0)  # judged again, and worse: the same runs, their newest values
    tracking.sync(settings("quick-simclr"), root=root)
    assert [run.data.metrics["knn_accuracy"] for run in rows(root)] == [30.0, 30.0, 31.0]
    shutil.rmtree(folder)
    chosen = json.loads((root / config.results("quick-simclr") / "knn.json").read_text())
    chosen["seeds"]["0"]["k"] = 5  # a parameter of MLflow never changes: the seed's run is made anew
    (root / config.results("quick-simclr") / "knn.json").write_text(json.dumps(chosen))
    tracking.sync(settings("quick-simclr"), root=root)
    assert first_view(root) == [("quick-simclr", ["quick-simclr/0", "quick-simclr/1"])]
    assert (rows(root)[1].data.params["knn.k"], rows(root)[0].data.tags["selfsup.knn.k"]) == ("5", "5")
    assert len(client(root).get_metric_history(rows(root)[1].info.run_id, "loss")) == 100
    encoder(root, code="e" * 64)  # trained again with other code: a new run beside the old one
    tracking.sync(settings("quick-simclr"), root=root)
    assert sorted(map(len, dict(enumerate(seeds for _, seeds in first_view(root))).values())) == [1, 2]
    shutil.rmtree(folder.parent)
    assert tracking.sync(settings("quick-simclr"), root=root) == 0


def test_sync_finds_runs_of_other_experiments_and_seeds(root):
    encoder(root, "quick-moco")
    tracking.sync(settings("quick-moco"), root=root)
    for name, seed in (("quick-moco", 1), ("cifar10-moco", 0)):  # a seed more is of the same run
        encoder(root, name, seed)
    assert tracking.sync(settings("quick-moco"), root=root) == 2
    assert first_view(root) == [("quick-moco", ["quick-moco/0", "quick-moco/1"])]
    assert [run.data.metrics["knn_accuracy"] for run in rows(root)] == [41.5, 41.5, 42.5]
    assert first_view(root, "cifar10") == [("cifar10-moco", ["cifar10-moco/0"])]


def test_results_on_other_data_skipped_ones_and_those_of_a_former_training(root):
    encoder(root)
    results = root / config.results("quick-simclr")
    (results / "linear.json").write_text(json.dumps({"run": "quick-simclr", "skipped": "scenes has no labels"}))
    (results / "digits").mkdir()
    (results / "digits/knn.json").write_text(
        json.dumps({"accuracy": 71.0, "low": 70.0, "high": 72.0, "seeds": {"0": {"accuracy": 71.0, "k": 5}}}))
    (results / "retrieval.json").write_text(  # of three seeds, before it was trained again: not of this one
        json.dumps({"accuracy": 9.0, "seeds": {seed: {"accuracy": 9.0} for seed in "012"}}))
    tracking.sync(settings("quick-simclr"), root=root)
    parent, seed = rows(root)
    assert parent.data.metrics == {"knn_accuracy": 41.5, "knn_low": 40.5, "knn_high": 42.5, "cost_seconds": 12.5,
                                   "digits_knn_accuracy": 71.0, "digits_knn_low": 70.0, "digits_knn_high": 72.0}
    assert parent.data.tags["selfsup.linear_skipped"] == "scenes has no labels"
    assert seed.data.params["digits_knn.k"] == "5" and not [key for key in seed.data.metrics if "linear" in key]


def test_how_often_a_pretext_task_is_solved_is_no_judges_accuracy():
    row = {"images": 20, "step": 1, "accuracy": 0.5, "val_accuracy": 0.25, "accuracy_back": 0.75, "knn_val_accuracy": 61.0}
    assert {name: value for name, value, _ in names.points([row])} == {
        "pretext_accuracy": 0.5, "pretext_val_accuracy": 0.25, "pretext_accuracy_back": 0.75, "knn_val_accuracy": 61.0}


def test_defaults_are_parameters_where_the_code_that_trained_is_here(root):
    info = json.loads((encoder(root) / "encoder.json").read_text())
    assert "args.hidden" not in tracking.parameters(names.full(info))  # of other code: who knows
    from selfsup.training.code import code_hash
    run = settings("quick-simclr").runs["quick-simclr"]
    told = tracking.parameters(names.full(info | {"code": code_hash(run)}))
    assert (told["args.temperature"], told["args.hidden"], told["args.augment"]) == ("0.2", "2048", "simclr")
    assert (told["encoder.width"], told["encoder.norm"]) == ("8", "batch")
    assert names.fingerprint(names.full(info)) == names.fingerprint(info)
    assert names.full(info | {"method": "of_a_colleague"})["method"] == "of_a_colleague"


def test_the_report_is_an_artifact_and_stays_one_when_the_checkout_is_renamed(root):
    folder = root / "before"
    encoder(folder)
    shutil.move(root / "mlflow.db", folder)
    (folder / "data/report/quick").mkdir(parents=True)
    (folder / "data/report/quick/report.html").write_text("<p>a report")
    (folder / "params.yaml").write_text("experiment: quick")
    for _ in range(2):
        tracking.sync(settings("quick-simclr"), root=folder)
    assert first_view(folder) == [("quick-simclr", ["quick-simclr/0"]), ("report", [])]
    now = folder.rename(root / "50% now")
    with store.client(now) as mlflow:
        artifacts = {run.info.run_name: [file.path for file in mlflow.list_artifacts(run.info.run_id)] for run in rows(now)}
        where = mlflow.get_model_version("quick-simclr", "1").source
    assert artifacts == {"quick-simclr": [], "quick-simclr/0": ["model", "pictures"], "report": ["params.yaml", "report.html"]}
    assert where.startswith(str(now / "mlruns/quick")) and Path(where, "MLmodel").exists()


def test_a_model_version_is_loaded_from_the_checkout_and_then_from_dvc(root, monkeypatch):
    """By both of MLflow's loaders, and without a pickle; trained again since, or not there, it is brought from DVC's cache."""
    import mlflow
    import torch
    from dvc.repo import Repo

    import selfsup
    from selfsup import nets

    monkeypatch.chdir(root)
    folder = encoder(root)
    about = {"size": 16, "columns": ["image"], "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    info = json.loads((folder / "encoder.json").read_text())

    def train():
        made = nets.build("convnet", card=about, width=4)
        selfsup.encoder.save(folder, {"encoder": made}, {**info, **about, "dim": made.dim, "parts": {"encoder": made.config}})

    train()
    (root / "dvc.yaml").write_text("stages: {}")
    with Repo.init(no_scm=True) as repo:
        (stage,) = repo.add(str(folder.parent))
        outs = [{"path": "data/encoders/quick/quick-simclr", "md5": stage.outs[0].hash_info.value}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"pretrain@quick-simclr": {"outs": outs}}}))
    tracking.sync(settings("quick-simclr"), root=root)
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype="uint8")
    trained = selfsup.load(folder)
    expected = trained(trained.prepare(torch.from_numpy(images))).detach().numpy()

    def loaded():
        net = mlflow.pytorch.load_model("models:/quick-simclr/1")
        features = mlflow.pyfunc.load_model("models:/quick-simclr/1").predict(images)
        np.testing.assert_array_equal(net(net.prepare(torch.from_numpy(images))).detach().numpy(), features)
        return features

    np.testing.assert_allclose(loaded(), expected, atol=1e-6)
    train()  # again, to other weights
    np.testing.assert_allclose(loaded(), expected, atol=1e-6)
    shutil.rmtree(folder.parent)
    np.testing.assert_allclose(loaded(), expected, atol=1e-6)
    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(UserError, match="the weights .* of data/encoders/quick/quick-simclr/0 are neither in .* nor in DVC"):
        mlflow.pytorch.load_model("models:/quick-simclr/1")


def test_a_variant_of_dvc_is_recorded_in_the_repositorys_store(root, monkeypatch):
    copy = root.joinpath(".dvc", "tmp", "exps", "one")
    encoder(copy)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("DVC_EXP_NAME", "drier-wort")
    tracking.sync(settings("quick-simclr"), root=copy)
    assert not (copy / "mlflow.db").exists()
    assert [run.data.tags["dvc.experiment"] for run in rows(root)] == ["drier-wort"] * 2
    assert list(root.glob("mlruns/quick/*/artifacts/pictures/views.png"))


def test_judged_while_training_is_a_curve(root):
    folder = encoder(root)
    tracking.sync(settings("quick-simclr"), root=root)
    judged = [{"images": 500 * i, "step": 25 * i, "knn_val_accuracy": 20.0 + i} for i in (1, 2, 3)]
    (folder / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged))
    for _ in range(2):
        tracking.sync(settings("quick-simclr"), root=root)
        curve = client(root).get_metric_history(rows(root)[1].info.run_id, "knn_val_accuracy")
        assert [(point.step, point.value) for point in curve] == [(500, 21.0), (1000, 22.0), (1500, 23.0)]
    assert logged(root) == [row["images"] for row in history()]


def test_a_seed_that_stood_by_itself_is_nested(root):
    encoder(root)
    with store.client(root) as mlflow:  # as when every seed was a run of MLflow by itself
        experiment = runs.experiment(mlflow, root, "quick")
        for fingerprint in ("fdfd88bcb85f", "another"):  # the first is what this training's was then
            tags = {"selfsup.run": "quick-simclr", "selfsup.seed": "0", "selfsup.fingerprint": fingerprint}
            mlflow.create_run(experiment, tags=tags, run_name="quick-simclr/0")
    tracking.sync(settings("quick-simclr"), root=root)
    assert first_view(root) == [("quick-simclr", ["quick-simclr/0"]), ("quick-simclr/0", [])]
    assert len(rows(root)) == 3


def test_what_changes_the_training_changes_its_fingerprint(root):
    info = json.loads((encoder(root) / "encoder.json").read_text())
    same = names.fingerprint(info)
    for later in ({"labels": None}, {"seed": 5}, {"train": {**TRAIN, "judge_every": 500}}):
        assert names.fingerprint(info | later) == same
    assert names.fingerprint(info | {"init": "quick-moco", "init_hash": "a"}) != names.fingerprint(
        info | {"init": "quick-moco", "init_hash": "b"})
    assert names.whole(info | {"init_hash": "a"}) == names.whole(info)  # each seed its own: the run is one
    for later in ({"labels": 40}, {"init": "timm"}, {"from": "quick-moco"}, {"train": {**TRAIN, "lr": 0.5}}):
        assert names.fingerprint(info | later) != same
    assert tracking.parameters(info | {"labels": 40})["labels"] == "40" and "labels" not in tracking.parameters(info)


def test_damaged_files_are_named(root):
    folder = encoder(root)
    (folder / "history.jsonl").write_text('{"images": 1, "lo')
    with pytest.raises(UserError, match="history.jsonl is damaged"):
        tracking.sync(settings("quick-simclr"), root=root)


SYNC = """
import sys
sys.path.insert(0, sys.argv[1])
from test_tracking import settings, tracking
tracking.sync(settings("quick-simclr"), root=sys.argv[2])
"""


@pytest.mark.slow
def test_three_processes_at_once_on_a_fresh_store(tmp_path):
    for seed in (0, 1):
        encoder(tmp_path, seed=seed)
    env = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    command = [sys.executable, "-c", SYNC, str(Path(__file__).parent), str(tmp_path)]
    processes = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, errors
    assert first_view(tmp_path) == [("quick-simclr", ["quick-simclr/0", "quick-simclr/1"])]
    assert count(tmp_path)["metrics"] == 4 + 2 * (200 + 6) and count(tmp_path)["model_versions"] == 2


def test_odd_letters_in_the_repositorys_path(made, tmp_path):
    """The environment lies in it, too: a "%" there is none of Alembic's, a "?" none of the store's address."""
    import mlflow

    root = tmp_path / "50% of it's $HOME? [1]#é"
    encoder(root)
    shutil.copy2(made / "mlflow.db", root)
    (root / "site").mkdir()
    (root / "site/mlflow").symlink_to(Path(mlflow.__file__).parent)
    env = {**os.environ, "PYTHONPATH": f"{root / 'site'}{os.pathsep}{LIBRARY}"}
    done = subprocess.run([sys.executable, "-c", SYNC, str(Path(__file__).parent), "."], cwd=root, env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy2(root / "mlflow.db", tmp_path)
    assert first_view(tmp_path) == [("quick-simclr", ["quick-simclr/0"])]
    assert list(root.glob("mlruns/quick/*/artifacts/pictures/views.png"))


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


@contextlib.contextmanager
def server(answer):
    """An HTTP server whose every GET and POST is `answer(handler)`; gives its host and port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(OSError):  # the client has gone
                answer(self)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def reply(handler, status, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": "0", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def trickle(handler):
    """A byte now and then: no timeout between bytes is ever reached."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.1)


@pytest.mark.parametrize("probe", ["healthy", "trickling"])
def test_server_that_trickles_is_not_waited_for(tmp_path, monkeypatch, probe):
    monkeypatch.setattr(store, "CALL", 2)
    encoder(tmp_path)
    healthy = lambda handler: probe == "healthy" and handler.path == "/health"  # noqa: E731
    with server(lambda handler: reply(handler, 200) if healthy(handler) else trickle(handler)) as where:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{where}")
        with pytest.raises(UserError, match=f"waited 2 s for .* of the MLflow store http://{where}"):
            # urllib is done when the headers are there: for the probe they do not end
            if probe == "trickling":
                monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "end_headers", lambda self: (
                    self.flush_headers(), [self.wfile.write(b"X-A: b\r\n") or time.sleep(0.1) for _ in range(90)]))
            tracking.sync(settings("quick-simclr"), root=tmp_path)


def test_server_that_asks_to_come_back_in_an_hour_is_not_waited_for(tmp_path, monkeypatch):
    encoder(tmp_path)
    with server(lambda handler: reply(handler, 200 if handler.path == "/health" else 429, Retry_After="3600")) as where:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{where}")
        start = time.monotonic()
        with pytest.raises(UserError, match="cannot be used: .*429"):
            tracking.sync(settings("quick-simclr"), root=tmp_path)
        assert time.monotonic() - start < 30


def test_lock_held_by_a_stuck_process_is_said(root, monkeypatch):
    encoder(root)
    monkeypatch.setattr(store, "LOCK", 0.2)
    with store.lock(root), pytest.raises(UserError, match=rf"another process \({os.getpid()}\), which holds .*mlflow.lock"):
        tracking.sync(settings("quick-simclr"), root=root)


def test_user_and_password_in_the_address_are_given_and_never_shown(tmp_path, monkeypatch):
    encoder(tmp_path)
    asked = {}

    def answer(handler):
        asked[handler.path.split("?")[0]] = base64.b64decode(handler.headers["Authorization"].split()[1]).decode()
        reply(handler, 200 if handler.path == "/health" else 403)

    with server(answer) as where:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s%40cret@{where}")
        with pytest.raises(UserError, match=f"the MLflow store http://{where} cannot be used: .*403") as error:
            tracking.sync(settings("quick-simclr"), root=tmp_path)
    assert "cret" not in str(error.value)
    assert len(asked) > 1 and set(asked.values()) == {"me:s@cret"}


def test_an_experiment_deleted_in_the_ui_is_restored(root, capsys):
    encoder(root)
    tracking.sync(settings("quick-simclr"), root=root)
    client(root).delete_experiment(client(root).get_experiment_by_name("quick").experiment_id)
    tracking.sync(settings("quick-simclr"), root=root)
    assert "experiment quick had been deleted: it is restored" in capsys.readouterr().err
    assert first_view(root) == [("quick-simclr", ["quick-simclr/0"])]
    tracking.sync(settings("quick-simclr"), root=root)
    assert "had been deleted" not in capsys.readouterr().err


def test_mlflows_own_sentence_keeps_its_remedy(root):
    encoder(root)
    with sqlite3.connect(root / "mlflow.db") as db:
        db.execute("update alembic_version set version_num = '0a8213491aaa'")
    with pytest.raises(UserError, match="cannot be used: Detected out-of-date database schema .* run 'mlflow db upgrade"):
        tracking.sync(settings("quick-simclr"), root=root)


def track(root, seed=0):
    card(root)
    return tracking.Tracker(settings("quick-simclr"), settings("quick-simclr").runs["quick-simclr"], seed,
                            root / "data/encoders/quick/quick-simclr" / str(seed))


@pytest.mark.slow
def test_trackers_record_at_once_resume_and_are_completed_by_sync(root, monkeypatch):
    monkeypatch.setattr(live, "CLOSE", 300)  # however busy the machine
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.5")
    first, other = track(root), track(root, seed=1)
    start = time.monotonic()
    first.log(history(60))
    assert time.monotonic() - start < 1
    wait(lambda: len(logged(root)) == 60)
    other.close(knn_val_accuracy=61.5)
    assert rows(root)[0].data.metrics == {"knn_val_accuracy": 61.5}  # the row of the run itself
    assert first_view(root) == [("quick-simclr", ["quick-simclr/0", "quick-simclr/1"])]
    assert [run.info.status for run in rows(root)] == ["RUNNING", "RUNNING", "FINISHED"]
    first.process.stdin.close()  # what the death of the trainer does
    first.process.wait(300)
    assert [run.info.status for run in rows(root)] == ["KILLED", "KILLED", "FINISHED"]

    second = track(root)
    second.log(history(50))  # the checkpoint's
    for row in history()[50:]:
        second.log([row])
    second.close()
    assert [run.info.status for run in rows(root)] == ["FINISHED"] * 3
    parent, seed, _ = rows(root)
    assert seed.data.metrics["system/cpu_utilization_percentage"] >= 0
    assert seed.data.params["args.hidden"] == "2048"  # by default
    assert parent.data.params["args.temperature"] == seed.data.params["args.temperature"] == "0.2"
    assert logged(root) == [row["images"] for row in history()]

    from selfsup.training.code import code_hash
    encoder(root, code=code_hash(settings("quick-simclr").runs["quick-simclr"]))
    tracking.sync(settings("quick-simclr"), root=root)
    assert first_view(root) == [("quick-simclr", ["quick-simclr/0", "quick-simclr/1"])]
    assert [run.data.metrics["knn_accuracy"] for run in rows(root)[:2]] == [41.5, 41.5]
    assert logged(root) == [row["images"] for row in history()]


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
        assert time.monotonic() - start < 5  # where an answer would take for ever
        tracker.close()
    assert time.monotonic() - start < 12 and "make track" in capfd.readouterr().err


def test_recorder_killed_or_mlflow_missing_does_not_stop_training(tmp_path, monkeypatch, capsys):
    tracker = track(tmp_path)
    os.kill(tracker.process.pid, signal.SIGKILL)
    tracker.process.wait()
    tracker.log(history())
    tracker.close()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tracker = track(tmp_path)
    tracker.log(history())
    tracker.close()
    assert "mlflow is not installed" in capsys.readouterr().err
    with pytest.raises(UserError, match="mlflow is not installed"):
        encoder(tmp_path)
        tracking.sync(settings("quick-simclr"), root=tmp_path)
