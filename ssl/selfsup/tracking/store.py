"""The MLflow store and a client to it. mlflow is imported when first needed."""

import base64
import contextlib
import importlib.util
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from selfsup import process
from selfsup.errors import UserError

SETTINGS = {  # MLflow's own: minutes of retries, a usage report to its makers and a link on stdout for each run
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # else as long as the server says
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
}
PLACES = [("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"),
          ("model_versions", "storage_location")]  # columns of MLflow's tables
CALL = 60  # seconds for a call of the client; a timeout of requests counts from byte to byte
LOCK = 120  # seconds for the lock: whoever holds it makes a few calls
SAID = 600  # letters of MLflow's own sentences, which end with what to do


def home(root):
    """The repository whose store it is: `root`, or, where that is DVC's copy of it for an experiment (`dvc exp run --temp`,
    `--queue`), which is thrown away afterwards, the repository itself."""
    above = Path(os.environ.get("DVC_ROOT") or root).resolve()
    return above if above / ".dvc/tmp" in Path(root).resolve().parents else Path(root)


@contextlib.contextmanager
def client(root):
    """An MLflow client; a store that cannot be used becomes one sentence, here and in the block."""
    root = home(root)
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
            if uri == own:
                follow(file)
        yield made
    except (MlflowException, SQLAlchemyError, OSError) as error:
        said = str(error) if isinstance(error, MlflowException) else str(error).partition("\n")[0]  # then comes SQL
        said = " ".join(said.replace(uri, _public(uri)).split())
        raise UserError(f"the MLflow store {_public(uri)} cannot be used: {said[:SAID]}") from error


def follow(file):
    """Have pictures and models looked for beside the store, in mlruns/, where they lie since the folder of both was renamed,
    moved or copied: MLflow notes places from the root of the disk on, and has no command for it."""
    with contextlib.closing(sqlite3.connect(file, timeout=LOCK)) as db, db:
        for place, in db.execute("select artifact_location from experiments").fetchall():
            before, now = Path(place or ""), file.parent.resolve() / "mlruns" / Path(place or "").name
            if before.parent.name != "mlruns" or before == now or before.exists() and not now.exists():
                continue
            for table, column in PLACES:
                db.execute(f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or "
                           f"substr({column}, 1, ?) = ?", (str(now), len(place) + 1, place, len(place) + 1, f"{place}/"))


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
    path = home(root) / "data/runs/mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with process.locked(path, LOCK, f"MLflow's runs have been written for {LOCK} s"):
        yield
