"""What `dvc plots show` and `dvc plots diff` draw: the results and loss curves of an experiment as flat records. A run on
data without labels has a curve and no result."""

import json
from pathlib import Path

from selfsup import artefacts, config
from selfsup.core import files
from selfsup.report.rows import judged


def write(params, root=Path(".")):
    """Write data/results/<experiment>.accuracy.json and data/report/<experiment>/loss.json, each a list of records."""
    accuracy, loss = [], []
    for name, run in params.runs.items():
        short = name.removeprefix(params.experiment + "-")
        for protocol, result in judged(params, root / config.results(name)).items():
            accuracy.append({"run": f"{protocol} {short}", "accuracy": result["accuracy"]})
        for seed in run.seeds:
            history = artefacts.rows(root / config.encoders(name) / str(seed) / "history.jsonl")
            rows = [row for row in history if "loss" in row]
            loss += [{"run": short, "seed": seed, "images": row["images"], "loss": row["loss"]} for row in rows]
    report = root / "data/report" / params.experiment
    report.mkdir(parents=True, exist_ok=True)
    for file, records in ((root / f"data/results/{params.experiment}.accuracy.json", accuracy), (report / "loss.json", loss)):
        files.write(file, json.dumps(records, indent=1) + "\n")
