"""ui.py: open MLflow on this repository's runs (`make ui`). Words that follow are `mlflow ui`'s own, as --port 5001."""

import argparse
import os
import sys
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors  # noqa: E402
from selfsup.tracking import store, view  # noqa: E402


@errors.main
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="5000")
    args, more = parser.parse_known_args()
    name = config.load().experiment
    with store.client(Path.cwd()) as client:  # mends what a folder that was renamed has left, too
        found = client.get_experiment_by_name(name)
        uri = client.uri
    if found is None:
        print(f"no run of {name} is in MLflow yet: `make repro` or `make track` adds them", file=sys.stderr)
    else:
        print(f"the runs of {name}: http://{args.host}:{args.port}{view.address(found.experiment_id)}", flush=True)
    words = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", args.host, "--port", args.port, *more]
    os.execve(sys.executable, words, {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})


if __name__ == "__main__":
    main()
