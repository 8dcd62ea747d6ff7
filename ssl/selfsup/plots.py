"""What `dvc plots show` and `dvc plots diff` draw: the results and loss curves of an experiment as flat records."""

import json
from pathlib import Path

from selfsup import config


def write(params, root=Path(".")):
    """Write accuracy.json and loss.json into data/report/<experiment>, each a list of records."""
    accuracy, loss = [], []
    for name, run in params.runs.items():
        short = name.removeprefix(params.experiment + "-")
        for protocol in type(params.protocols).model_fields:
            file = root / config.results(name) / f"{protocol}.json"
            if file.exists():
                accuracy.append({"run": f"{protocol} {short}", "accuracy": json.loads(file.read_text())["accuracy"]})
        for seed in run.seeds:
            lines = (root / config.encoders(name) / str(seed) / "history.jsonl").read_text().splitlines()
            rows = [row for row in map(json.loads, lines) if "loss" in row]
            loss += [{"run": short, "seed": seed, "images": row["images"], "loss": row["loss"]} for row in rows]
    folder = root / "data/report" / params.experiment
    folder.mkdir(parents=True, exist_ok=True)
    for file, records in (("accuracy", accuracy), ("loss", loss)):
        (folder / f"{file}.json").write_text(json.dumps(records, indent=1) + "\n")
