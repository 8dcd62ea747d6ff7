"""What is written in the MLflow store: experiments, runs, data sets, models, numbers."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from selfsup import config
from selfsup.tracking import model, names, store

PARENT = "mlflow.parentRunId"  # MLflow's own: the UI nests by it
COMMIT = "mlflow.source.git.commit"
NOTE = "mlflow.note.content"  # the description
MODEL = "model"  # the folder of a run's artefacts


def experiment(client, root, name):
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":  # in the UI, which keeps it and its name
            client.restore_experiment(found.experiment_id)
            print(f"MLflow's experiment {name} had been deleted: it is restored, with its runs", file=sys.stderr)
        return found.experiment_id
    place = None if os.environ.get("MLFLOW_TRACKING_URI") else str(store.home(root).resolve() / "mlruns" / name)
    # The kind opens the UI on the table of runs; without it, on pages about language models.
    return client.create_experiment(name, place, tags={"mlflow.experimentKind": "custom_model_development"})


def open_run(client, experiment, root, info, parent=None, age=0, chosen={}):
    """The MLflow run of this training with its parameters and data set, nested in `parent`; call it under the lock.

    If there is none it is made, `age` seconds ago. info: contents of encoder.json, `names.full` of it, and `names.whole` of
    that for a parent. chosen: parameters that a judge chose. Where they are others than before, the
    run is made anew, since a parameter of MLflow never changes; the old one goes to MLflow's trash.
    """
    identity = names.identity(info)
    where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
    found = client.search_runs([experiment], where, max_results=1, order_by=["attributes.start_time ASC"])
    nested = {PARENT: parent.info.run_id} if parent else {}
    row = found[0] if found else None
    if row and any(row.data.params.get(key, value) != value for key, value in chosen.items()):
        client.delete_run(row.info.run_id)
        row = None
    if row is None:
        source = {"mlflow.source.name": "pipelines/pretrain.py", "mlflow.source.type": "LOCAL"}
        commit = parent.data.tags.get(COMMIT) if parent else _commit(root, str(config.results(info["run"])))
        tags = {**identity, **nested, **source, **({COMMIT: commit} if commit else {})}
        if note := info.get("about", {}).get("description"):
            tags[NOTE] = note  # once: who writes another one keeps it
        if variant := os.environ.get("DVC_EXP_NAME"):
            tags["dvc.experiment"] = variant
        title = f"{info['run']}/{info['seed']}" if parent else info["run"]
        row = client.create_run(experiment, int(1000 * (time.time() - age)), tags, title)
    # A parameter of MLflow never changes, so that one which is there must not be written again.
    params = {key: value for key, value in (names.parameters(info) | chosen).items() if key not in row.data.params}
    adopt = {key: value for key, value in (nested | names.tags(info)).items() if row.data.tags.get(key) != value}
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


def register(client, row, info, encoder, md5):
    """The encoder as a version of the registered model that is called like its run: its address and hash in DVC, where
    the bytes stay, and a few files in the artefacts of `row` by which MLflow loads it.

    info: contents of encoder.json; encoder: SHA-256 of the weights; md5: of the run's output, as dvc.lock has it."""
    name, run_id, path = info["run"], row.info.run_id, str(config.encoders(info["run"]))
    tags = {"selfsup.seed": str(info["seed"]), "selfsup.encoder": encoder, "dvc.path": path, "dvc.md5": md5}
    tags = {key: value for key, value in tags.items() if value}
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    for version in [version for version in found if version.source.startswith("dvc:")]:  # as was the rule once: not to be loaded
        client.delete_model_version(name, version.version)
        found.remove(version)
    changed = {key: value for key, value in tags.items() if not found or found[0].tags.get(key) != value}
    if not changed:
        return
    with tempfile.TemporaryDirectory() as folder:
        model.write(Path(folder), info, {"path": path, "seed": info["seed"], "weights": encoder, "md5": md5})
        client.log_artifacts(run_id, folder, MODEL)
    if found:
        for key, value in changed.items():
            client.set_model_version_tag(name, found[0].version, key, value)
        return
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.create_model_version(name, f"{row.info.artifact_uri}/{MODEL}", run_id=run_id, tags=tags, await_creation_for=0)


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


@contextlib.contextmanager
def machine(client, row):
    """Record how busy the machine is meanwhile, where that is asked for as MLflow has it: by the environment's
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as asked
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    if not asked.get():
        yield
        return
    monitor = SystemMetricsMonitor(row.info.run_id, resume_logging=True, tracking_uri=client.uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
