"""The MLflow store: a client to it, and what is written there. Here alone mlflow is imported, when first needed."""

import base64
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from selfsup import config, process
from selfsup.errors import UserError
from selfsup.tracking import names

PARENT = "mlflow.parentRunId"  # MLflow's own: the UI nests by it
COMMIT = "mlflow.source.git.commit"
SETTINGS = {  # MLflow's own: minutes of retries, a usage report to its makers and a link on stdout for each run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # else as long as the server says
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
}
CALL = 60  # seconds for a call of the client; a timeout of requests counts from byte to byte
LOCK = 120  # seconds for the lock: whoever holds it makes a few calls
SAID = 600  # letters of MLflow's own sentences, which end with what to do


@contextlib.contextmanager
def client(root):
    """An MLflow client; a store that cannot be used becomes one sentence, here and in the block."""
    file = root / "mlflow.db"
    # Where it can be, without the folder: in an address a "?" means something else.
    own = f"sqlite:///{file.name if root == Path.cwd() else file}"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or own
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("mlflow is not installed: `pip install -r requirements.txt` brings it")
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    if uri.startswith("http"):
        with process.limit(CALL, _late("an answer", uri)):
            _probe(uri)  # says in milliseconds what mlflow would after seconds of import and a minute of attempts
    _spell_percent()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # Initialising takes seconds; a second process that joins in, or a kill in the middle, leaves a broken database.
        with lock(root):
            if uri == own and not file.exists():
                new = file.with_suffix(".db.new")
                new.unlink(missing_ok=True)
                MlflowClient(f"{own}.new").search_experiments(max_results=1)
                os.replace(new, file)
            made = Limited(MlflowClient(uri), uri)
            made.search_experiments(max_results=1)
        yield made
    except (MlflowException, SQLAlchemyError, OSError) as error:
        said = str(error) if isinstance(error, MlflowException) else str(error).partition("\n")[0]  # then comes SQL
        said = " ".join(said.replace(uri, _public(uri)).split())
        raise UserError(f"the MLflow store {_public(uri)} cannot be used: {said[:SAID]}") from error


class Limited:
    """An MLflow client that gives each call CALL seconds, whatever a server does to keep it waiting."""

    def __init__(self, client, uri):
        self.client, self.uri = client, uri

    def __getattr__(self, name):
        call = getattr(self.client, name)

        def limited(*args, **options):
            with process.limit(CALL, _late(name, self.uri)):
                return call(*args, **options)

        return limited


def _spell_percent():
    """MLflow tells Alembic where it is installed, in our own folder perhaps; there a "%" means something else."""
    from alembic import config as alembic

    class Config(alembic.Config):
        def set_main_option(self, name, value):
            super().set_main_option(name, value.replace("%", "%%") if name == "script_location" else value)

    if alembic.Config.__module__ != __name__:
        alembic.Config = Config


def _late(what, uri):
    return f"waited {CALL} s for {what} of the MLflow store {_public(uri)}"


def _probe(uri):
    parts = urllib.parse.urlsplit(uri.rstrip("/") + "/health")
    who, at, where = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=where).geturl())
    if at:  # urllib would take it for a part of the host's name
        request.add_header("Authorization", "Basic " + base64.b64encode(urllib.parse.unquote(who).encode()).decode())
    try:
        urllib.request.urlopen(request, timeout=5).close()
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
def lock(root):
    """One process of this repository at a time: two that look for a run and then make it would make it twice."""
    path = root / "data/runs/mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with process.locked(path, LOCK, f"MLflow's runs have been written for {LOCK} s"):
        yield


def experiment(client, root, name):
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":  # in the UI, which keeps it and its name
            client.restore_experiment(found.experiment_id)
            print(f"MLflow's experiment {name} had been deleted: it is restored, with its runs", file=sys.stderr)
        return found.experiment_id
    place = None if os.environ.get("MLFLOW_TRACKING_URI") else str(root / "mlruns" / name)
    # The kind opens the UI on the table of runs; without it, on pages about language models.
    return client.create_experiment(name, place, tags={"mlflow.experimentKind": "custom_model_development"})


def open_run(client, experiment, root, info, parent=None, age=0):
    """The MLflow run of this training with its parameters and data set, nested in `parent`; call it under the lock.

    If there is none it is made, `age` seconds ago. info: contents of encoder.json, `names.whole` of it for a parent.
    """
    identity = names.identity(info)
    where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    found = client.search_runs([experiment], where, max_results=1, order_by=["attributes.start_time ASC"])
    nested = {PARENT: parent.info.run_id} if parent else {}
    if found:
        row = found[0]
    else:
        source = {"mlflow.source.name": "pipelines/pretrain.py", "mlflow.source.type": "LOCAL"}
        commit = parent.data.tags.get(COMMIT) if parent else _commit(root, str(config.results(info["run"])))
        tags = {**identity, **nested, **source, **({COMMIT: commit} if commit else {})}
        title = f"{info['run']}/{info['seed']}" if parent else info["run"]
        row = client.create_run(experiment, int(1000 * (time.time() - age)), tags, title)
    # A parameter of MLflow never changes, so that one which is there must not be written again.
    params = {key: value for key, value in names.parameters(info).items() if key not in row.data.params}
    adopt = {key: value for key, value in nested.items() if row.data.tags.get(key) != value}
    log(client, row, params=params, tags=adopt)
    if not row.inputs.dataset_inputs:
        _log_dataset(client, row, info["data"])
    return row


def settle(client, experiment, parent):
    """Give a run the state that its seeds have: it runs while one of them does. Call it under the lock."""
    seeds = client.search_runs([experiment], f"tags.`{PARENT}` = '{parent.info.run_id}'")
    states = {seed.info.status for seed in seeds}
    state = next((state for state in ("RUNNING", "KILLED") if state in states), "FINISHED")
    if state == "RUNNING":
        client.update_run(parent.info.run_id, status=state)
    elif client.get_run(parent.info.run_id).info.status != state:
        client.set_terminated(parent.info.run_id, state)


def _commit(root, path):
    """The commit that holds these results, else the one checked out; None outside git."""
    for where in (["--", path], []):
        command = ["git", "-C", str(root), "log", "-1", "--format=%H", *where]
        with contextlib.suppress(OSError):
            found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
            if found:
                return found


def _log_dataset(client, row, data):
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": f"data/shards/{data['name']}"})
    profile = json.dumps({"sha256": data["hash"]})
    dataset = Dataset(data["name"], data["hash"][:12], "local", source, profile=profile)  # the table shows it
    client.log_inputs(row.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def register(client, row, name, seed, encoder, md5):
    """The encoder as a version of the registered model `name`: its address and hash in DVC, where the bytes stay."""
    run_id, path = row.info.run_id, str(config.encoders(name))
    tags = {"selfsup.seed": str(seed), "selfsup.encoder": encoder, "dvc.path": path, "dvc.md5": md5}
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


def known(client, row):
    """The (name, images) that an MLflow run already has a value for."""
    return {(key, point.step) for key in row.data.metrics for point in client.get_metric_history(row.info.run_id, key)}


def log(client, row, points=(), params={}, tags={}, when=None):
    """Few large requests: 1,000 metrics take 0.1 s so, 6 s one by one. when: images -> milliseconds, now if None."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(1000 * time.time())
    metrics = [Metric(key, value, int(when(images)) if when else now, images) for key, value, images in points]
    params = [Param(key, value) for key, value in params.items()]
    tags = [RunTag(key, value) for key, value in tags.items()]
    while metrics or params or tags:
        # MLflow's limits are 1000 entries in all, 100 of them parameters and 100 tags.
        client.log_batch(row.info.run_id, metrics[:800], params[:100], tags[:100])
        metrics, params, tags = metrics[800:], params[100:], tags[100:]
