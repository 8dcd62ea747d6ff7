"""The recording of a run while it trains: a Tracker in the trainer, and the process at the other end of its pipe."""

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

from selfsup import artefacts
from selfsup.errors import UserError
from selfsup.tracking import names, runs, store

CLOSE = 30  # seconds that the end of a training waits for its last rows to be recorded


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
        from selfsup import nets
        from selfsup.training.code import code_hash
        from selfsup.training.start import Start

        root = Path(folder).resolve().parents[4]
        card = root / "data/shards" / run.data / "card.json"
        if not card.exists():
            return  # training will say so
        card = artefacts.read(card, artefacts.Card, "make it again with `dvc repro`")
        info = {  # as encoder.json will have it
            "run": run.name, "method": run.method, "seed": seed, "args": run.args, "train": run.train.model_dump(),
            "data": {"name": run.data, "hash": card["hash"]}, "parts": {"encoder": nets.configured(card, **run.encoder)},
            "code": code_hash(run), "init": run.init, "from": run.from_, "labels": run.labels,
            **{f"{key}_hash": value for key, value in Start(run, seed, root / "data/encoders").origin().items()},
        }
        library = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "selfsup.tracking"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            cwd=root, env={**os.environ, "PYTHONPATH": library}, start_new_session=True,  # Ctrl-C is for the trainer
        )
        self.log([{"experiment": params.experiment, "info": names.full(info)}])

    def log(self, rows):
        """rows: of the history, each with `images` (the step axis) and numbers by name. Costs microseconds."""
        if self.process is None:
            return
        try:
            self.process.stdin.writelines(json.dumps(row) + "\n" for row in rows)
            self.process.stdin.flush()
        except OSError:  # the recorder gave up, and has said why
            self.process = None

    def close(self, **found):
        """Call it when training is complete; a run whose trainer ends without it is shown as killed. found: numbers that
        the table of runs is to show, for who has no results that `sync` would add."""
        self.log([{"status": "FINISHED", **found}])
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
    # From the start, or a trainer that logs much would wait while mlflow is imported.
    threading.Thread(target=_listen, args=(rows, ready), daemon=True).start()
    root = Path.cwd()
    try:
        with store.client(root) as client:
            with store.lock(root):
                experiment = runs.experiment(client, root, header["experiment"])
                parent = runs.open_run(client, experiment, root, names.whole(header["info"]))
                row = runs.open_run(client, experiment, root, header["info"], parent)
                client.update_run(row.info.run_id, status="RUNNING")
                runs.settle(client, experiment, parent)
            known, status = runs.known(client, row), None
            ready.set()
            with runs.machine(client, row):
                while status is None:
                    batch = _take(rows)
                    status = batch[-1].get("status")
                    points = names.points(row for row in batch if "status" not in row)
                    runs.log(client, row, [point for point in points if (point[0], point[2]) not in known])
            found = [(key, value, 0) for key, value in batch[-1].items() if names.number(value)]  # at 0, as sync has them
            with store.lock(root):
                runs.log(client, parent, found)
                client.set_terminated(row.info.run_id, status)
                runs.settle(client, experiment, parent)
    except UserError as error:
        _warn(error)


def _listen(rows, ready):
    """Put what the trainer writes into the queue `rows`, a status last. `ready`: there is a run to record it in."""
    for line in sys.stdin:
        if line.endswith("\n"):  # else the trainer died in the middle of it
            row = json.loads(line)
            rows.put(row)
            if "status" in row:
                return
    if not ready.is_set():
        os._exit(0)  # a trainer that died at once leaves nothing worth the wait
    rows.put({"status": "KILLED"})


def _take(rows, seconds=2):
    """What arrives in the next seconds, at least one row; a status comes last."""
    batch, end = [rows.get()], time.monotonic() + seconds
    while "status" not in batch[-1] and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            batch.append(rows.get(timeout=left))
    return batch
