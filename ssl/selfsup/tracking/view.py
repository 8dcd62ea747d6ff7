"""How an experiment opens in MLflow: its description, and the table of runs with the columns that are compared.

Columns of the table are no property of an experiment but of a browser, or of a view that somebody has shared, which MLflow
keeps as a tag of the experiment. So there is one, and the experiment's description, and `make ui`, say its address.
"""

import hashlib
import json
import os

from selfsup.tracking import runs

KEY = "results"
TAG = f"mlflow.sharedViewState.{KEY}"
FIRST = ("knn_accuracy", "linear_accuracy")
FILES = ("report.html", "table.md")


def address(experiment):
    """Where the table opens, from the server's address on."""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"


def shape(client, experiment, name, accuracies):
    """Give an experiment its view and description. accuracies: names of metrics in percent, of all its runs."""
    order = sorted(accuracies, key=lambda key: (FIRST.index(key) if key in FIRST else len(FIRST), key))
    columns = [*(f"metrics.`{key}`" for key in (*order, "cost_seconds")), "tags.`family`", "tags.`encoder`", "tags.`data`"]
    state = json.dumps({"selectedColumns": columns})  # unsorted, since MLflow nests seeds in no other order
    tags = client.get_experiment(experiment).tags
    if tags.get(TAG) != state:
        client.set_experiment_tag(experiment, TAG, state)
    if runs.NOTE not in tags:  # once: who writes another one keeps it
        client.set_experiment_tag(experiment, runs.NOTE, (
            f"The runs of the experiment {name}, one row each, its seeds nested in it. "
            f"[The table with accuracies in percent]({address(experiment)}). Curves over images seen are of training: "
            "`pretext_accuracy` is how often the pretext task is solved, 0 to 1. The report is among the artifacts of the run "
            "`report`."))


def attach(client, experiment, root, name):
    """Keep the experiment's report and its params.yaml as artifacts of an MLflow run `report`, if there is a report. That of
    a variant, which `dvc exp run` made, has a run of its own."""
    folder = root / "data/report" / name
    files = [path for path in (*(folder / file for file in FILES), root / "params.yaml") if path.exists()]
    if not (folder / FILES[0]).exists():
        return
    variant = os.environ.get("DVC_EXP_NAME", "")
    title = f"report {variant}".strip()
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    found = client.search_runs([experiment], f"tags.`selfsup.report_of` = '{title}'", max_results=1)
    if found and found[0].data.tags.get("selfsup.report") == state:
        return
    row = found[0] if found else client.create_run(experiment, tags={"selfsup.report_of": title}, run_name=title)
    for path in files:
        client.log_artifact(row.info.run_id, str(path))
    client.set_tag(row.info.run_id, "selfsup.report", state)
    if row.info.status != "FINISHED":
        client.set_terminated(row.info.run_id)
