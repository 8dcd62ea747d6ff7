"""MLflow shows the runs. Files are the truth and MLflow a view of them: `sync` rebuilds it from the files at any time.

One MLflow run per (run, seed, parameters + data + code): curves over images seen, parameters, the final metrics of
every protocol, pictures, the data set, and the encoder as a model version whose bytes stay in DVC. The store is
MLFLOW_TRACKING_URI, or mlflow.db and mlruns/ in the repository. SELFSUP_TRACKING=off trains without it.

While a run trains, a second process does the recording: importing mlflow takes seconds and 200 MB, and a dead server
minutes, none of which should reach the training loop. It reads rows from a pipe and ends when the trainer does.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import math
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from selfsup import config
from selfsup.errors import UserError

CLOSE = 30  # seconds that the end of a training waits for its last rows to be recorded
SETTINGS = {  # MLflow's own: minutes of retries, a usage report to its makers and a link on stdout for each run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
}


class Tracker:
    """Records a run while it trains. Whatever happens to MLflow, training goes on: one warning, then silence.

    params, run: of `config`; folder: the encoder folder to come, config.encoders(run)/<seed>. Rank 0 only.
    """

    def __init__(self, params, run, seed, folder):
        self.process = None
        if os.environ.get("SELFSUP_TRACKING") == "off":
            return
        if importlib.util.find_spec("mlflow") is None:
            print("mlflow is not installed: training without it, `make track` adds the run later", file=sys.stderr)
            return
        from selfsup.training.code import code_hash

        root = Path(folder).resolve().parents[4]
        card = root / "data/shards" / run.data / "card.json"
        if not card.exists():
            return  # training will say so
        info = {"run": run.name, "method": run.method, "seed": seed, "args": run.args, "train": run.train.model_dump(),
                "data": {"name": run.data, "hash": _read(card)["hash"]}, "parts": {"encoder": run.encoder},
                "code": code_hash(run)}  # as encoder.json will have it
        library = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "selfsup.tracking"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            cwd=root, env={**os.environ, "PYTHONPATH": library}, start_new_session=True,  # Ctrl-C is for the trainer
        )
        self.log([{"experiment": params.experiment, "tags": _identity(info), "params": parameters(info)}])

    def log(self, rows):
        """rows: of the history, each with `images` (the step axis) and numbers by name. Costs microseconds."""
        if self.process is None:
            return
        try:
            self.process.stdin.writelines(json.dumps(row) + "\n" for row in rows)
            self.process.stdin.flush()
        except OSError:  # the recorder gave up, and has said why
            self.process = None

    def close(self):
        """Call it when training is complete; a run whose trainer ends without it is shown as killed."""
        self.log([{"status": "FINISHED"}])
        if self.process is None:
            return
        try:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self.process.wait(CLOSE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            _warn(f"MLflow took more than {CLOSE} s to record the end of the run")
        self.process = None


def sync(params, runs=None, root="."):
    """Bring MLflow up to date with the files of `runs` (a name, several, or all found); returns how many it then holds.

    Adds what is missing and nothing twice. Raises UserError, one sentence, when the store cannot be reached.
    """
    if os.environ.get("SELFSUP_TRACKING") == "off":
        return 0
    root = Path(root).resolve()
    if runs is None:
        runs = sorted(folder.name for folder in (root / "data/encoders").glob("*/*") if folder.is_dir())
    names = [runs] if isinstance(runs, str) else runs
    files = [file for name in names for file in sorted((root / config.encoders(name)).glob("*/encoder.json"))]
    if not files:
        return 0
    hashes = _dvc_hashes(root / "dvc.lock")
    # Alone, for two processes that look for a run and then make it would make it twice.
    with _client(root) as client, _lock(root):
        experiments = {}
        for file in files:
            name = file.parts[-3]
            experiment = params.experiment if name in params.runs else name.partition("-")[0]
            if experiment not in experiments:
                experiments[experiment] = _experiment(client, root, experiment)
            _complete(client, experiments[experiment], root, file.parent, hashes)
    return len(files)


def _complete(client, experiment, root, folder, hashes):
    """Make or complete the MLflow run of one encoder folder."""
    name = folder.parent.name
    info = _read(folder / "encoder.json")
    seed = info["seed"]
    results = {file.stem: _read(file).get("seeds", {}).get(str(seed), {})
               for file in sorted((root / config.results(name)).glob("*.json"))}
    seconds = results.get("cost", {}).get("seconds") or 0
    row = _open(client, experiment, root, _identity(info), age=seconds, results=str(config.results(name)))
    run_id, have = row.info.run_id, row.data

    # A prompt's braces are not for MLflow's names.
    finals = {re.sub(r"[^\w\-. :/]+", "_", key, flags=re.ASCII): value for key, value in _flat(results, separator="_")}
    metrics = {key: value for key, value in finals.items() if _number(value) and have.metrics.get(key) != value}
    tags = {
        "selfsup.code": info["code"],
        "selfsup.data": info["data"]["hash"],
        "selfsup.encoder": _sha256(folder / "weights.safetensors"),
        "selfsup.history": _sha256(folder / "history.jsonl"),
        "selfsup.pictures": _sha256(*sorted(folder.glob("pictures/*.png"))),
        **{f"selfsup.{key}": value for key, value in finals.items() if isinstance(value, str)},
    }
    new = {key: value for key, value in tags.items() if have.tags.get(key) != value}
    points = [(key, float(value), info["images"]) for key, value in metrics.items()]
    if "selfsup.history" in new:
        known = _known(client, row)
        points += [point for point in _points(_lines(folder / "history.jsonl")) if (point[0], point[2]) not in known]
    if "selfsup.pictures" in new and (folder / "pictures").is_dir():
        client.log_artifacts(run_id, str(folder / "pictures"), "pictures")
    # A parameter of MLflow never changes, and the trainer may have written it already.
    values = {key: value for key, value in parameters(info).items() if key not in have.params}
    start = row.info.start_time
    _log(client, run_id, points, values,
         when=lambda images: start + 1000 * seconds * images / max(info["images"], 1))
    if not row.inputs.dataset_inputs:
        _log_dataset(client, run_id, info["data"])
    _register(client, run_id, name, seed, tags["selfsup.encoder"], hashes)
    _log(client, run_id, tags=new)  # last: these tags say that all the above is there
    if row.info.status != "FINISHED":
        client.set_terminated(run_id)


def _register(client, run_id, name, seed, encoder, hashes):
    """The encoder as a version of the registered model `name`: its address and hash in DVC, where the bytes stay."""
    path = str(config.encoders(name))
    tags = {"selfsup.seed": str(seed), "selfsup.encoder": encoder, "dvc.path": path, "dvc.md5": hashes.get(path)}
    tags = {key: value for key, value in tags.items() if value}
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if found:
        for key, value in tags.items():
            if found[0].tags.get(key) != value:
                client.set_model_version_tag(name, found[0].version, key, value)
        return
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    # A server takes local paths only from its own artefact folder; any other scheme is kept as it is.
    client.create_model_version(name, f"dvc://{path}/{seed}", run_id=run_id, tags=tags, await_creation_for=0)


def _log_dataset(client, run_id, data):
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": f"data/shards/{data['name']}"})
    profile = json.dumps({"sha256": data["hash"]})
    dataset = Dataset(data["name"], data["hash"][:12], "local", source, profile=profile)  # the table shows it
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _experiment(client, root, name):
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    place = None if os.environ.get("MLFLOW_TRACKING_URI") else str(root / "mlruns" / name)
    # The kind opens the UI on the table of runs; without it, on pages about language models.
    return client.create_experiment(name, place, tags={"mlflow.experimentKind": "custom_model_development"})


def _open(client, experiment, root, identity, age=0, results=None):
    """The MLflow run with these tags, made if there is none, `age` seconds ago."""
    where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    found = client.search_runs([experiment], where, max_results=1, order_by=["attributes.start_time ASC"])
    if found:
        return found[0]
    source = {"mlflow.source.name": "pipelines/pretrain.py", "mlflow.source.type": "LOCAL"}
    commit = _commit(root, results)
    if commit:
        source["mlflow.source.git.commit"] = commit
    title = f"{identity['selfsup.run']}/{identity['selfsup.seed']}"
    start = int(1000 * (time.time() - age))
    return client.create_run(experiment, start_time=start, tags={**identity, **source}, run_name=title)


def _commit(root, path):
    """The commit that holds these results, else the one checked out; None outside git."""
    for where in ([["--", path]] if path else []) + [[]]:
        command = ["git", "-C", str(root), "log", "-1", "--format=%H", *where]
        with contextlib.suppress(OSError):
            found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
            if found:
                return found


def _identity(info):
    """Tags that tell this training from others: a change of parameters, data or code makes a new MLflow run."""
    what = [info["method"], info["data"]["hash"], info["parts"]["encoder"], info["args"], info["train"], info["code"]]
    fingerprint = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return {"selfsup.run": info["run"], "selfsup.seed": str(info["seed"]), "selfsup.fingerprint": fingerprint}


def parameters(info):
    """Flat names to text, as MLflow searches them: method, data, seed, encoder.width, args.temperature, train.lr …"""
    parts = {**info["parts"], "args": info["args"], "train": info["train"]}
    return {"method": info["method"], "data": info["data"]["name"], "seed": str(info["seed"])} | {
        key: str(value)[:6000] for key, value in _flat(parts, separator=".")}


def _flat(value, separator, prefix=""):
    """Nested mappings as (joined name, value)."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", inner


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _points(rows):
    """History rows -> (name, value, images seen)."""
    for row in rows:
        for key, value in row.items():
            if key not in ("step", "images") and isinstance(value, (int, float)):
                yield key, float(value), row["images"]


def _known(client, row):
    """The (name, images) that a run already has a value for."""
    return {(key, point.step) for key in row.data.metrics for point in client.get_metric_history(row.info.run_id, key)}


def _log(client, run_id, points=(), params={}, tags={}, when=None):
    """Few large requests: 1,000 metrics take 0.1 s so, and 6 s one by one. when(images) -> milliseconds."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(1000 * time.time())
    metrics = [Metric(key, value, int(when(images)) if when else now, images) for key, value, images in points]
    params = [Param(key, value) for key, value in params.items()]
    tags = [RunTag(key, value) for key, value in tags.items()]
    while metrics or params or tags:
        # MLflow's limits are 1000 entries in all, 100 of them parameters and 100 tags.
        client.log_batch(run_id, metrics[:800], params[:100], tags[:100])
        metrics, params, tags = metrics[800:], params[100:], tags[100:]


@contextlib.contextmanager
def _client(root):
    """An MLflow client; a store that cannot be used becomes one sentence, here and in the block."""
    file = root / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{file}"
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("mlflow is not installed: `pip install -r requirements.txt` brings it")
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if uri.startswith("http"):
        _probe(uri)  # says in milliseconds what mlflow would after seconds of import and a minute of attempts
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # Initialising takes seconds; a second process that joins in, or a kill in the middle, leaves a broken database.
        with _lock(root):
            if uri == f"sqlite:///{file}" and not file.exists():
                new = file.with_suffix(".db.new")
                new.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
                os.replace(new, file)
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        yield client
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split("\n")[0].split())[:200]
        raise UserError(f"the MLflow store {_public(uri)} cannot be used: {reason}") from error


def _probe(uri):
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers: behind a log-in, perhaps
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"no MLflow server answers at {_public(uri)} (MLFLOW_TRACKING_URI): {reason}") from None


def _public(uri):
    """The address without a password."""
    scheme, found, rest = uri.partition("://")
    return scheme + found + rest.rpartition("@")[2]


@contextlib.contextmanager
def _lock(root):
    """One process of this repository at a time."""
    path = root / "data/runs/mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _dvc_hashes(path):
    """Path of an output -> its hash, from dvc.lock."""
    if not path.exists():
        return {}
    import yaml

    try:
        stages = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _read(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; get it again with `dvc checkout` or git") from None


def _lines(path):
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; get it again with `dvc checkout`") from None


def _sha256(*paths):
    """Of one file the usual SHA-256; of several, over their names and bytes."""
    digest = hashlib.sha256()
    for path in paths:
        if len(paths) > 1:
            digest.update(path.name.encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _warn(sentence):
    print(f"warning: {sentence}; training goes on, and `make track` adds what is missing", file=sys.stderr, flush=True)


def record():
    """The recording process of a Tracker: on stdin a header, then history rows, then a status; one JSON a line."""
    os.nice(10)  # the trainer goes first
    header = sys.stdin.readline()
    if not header.endswith("\n"):
        return
    header = json.loads(header)
    rows, ready = queue.SimpleQueue(), threading.Event()

    def read():
        for line in sys.stdin:
            if line.endswith("\n"):  # else the trainer died in the middle of it
                row = json.loads(line)
                rows.put(row)
                if "status" in row:
                    return
        if not ready.is_set():
            os._exit(0)  # a trainer that died at once leaves nothing worth the wait
        rows.put({"status": "KILLED"})

    # From the start, or a trainer that logs much would wait while mlflow is imported.
    threading.Thread(target=read, daemon=True).start()
    root = Path.cwd()
    try:
        with _client(root) as client:
            with _lock(root):
                row = _open(client, _experiment(client, root, header["experiment"]), root, header["tags"])
            run_id, known, status = row.info.run_id, _known(client, row), None
            client.update_run(run_id, status="RUNNING")
            params = {key: value for key, value in header["params"].items() if key not in row.data.params}
            _log(client, run_id, params=params)
            ready.set()
            while status is None:
                batch = _take(rows)
                status = batch[-1].get("status")
                points = _points(row for row in batch if "status" not in row)
                _log(client, run_id, [point for point in points if (point[0], point[2]) not in known])
            client.set_terminated(run_id, status)
    except UserError as error:
        _warn(error)


def _take(rows, seconds=2):
    """What arrives in the next seconds, at least one row; a status comes last."""
    batch, end = [rows.get()], time.monotonic() + seconds
    while "status" not in batch[-1] and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            batch.append(rows.get(timeout=left))
    return batch


if __name__ == "__main__":
    record()
