"""MLflow shows the runs. Files are the truth and MLflow a view of them: `sync` rebuilds it from the files at any time.

One MLflow run for a run of ours with its parameters, data and code: the results of every protocol as summarised over
the seeds, what a seed costs on average, parameters, data set. Nested in it one for each seed: curves over images seen,
its own results, pictures, and the encoder as a model version whose bytes stay in DVC. An MLflow run of a seed that
stands by itself, as was the rule once, is nested when its training comes by again. The store is MLFLOW_TRACKING_URI, or
mlflow.db and mlruns/ in the repository. SELFSUP_TRACKING=off trains without it.

While a run trains, a second process does the recording: importing mlflow takes seconds and 200 MB, and a dead server
minutes, none of which should reach the training loop. It reads rows from a pipe and ends when the trainer does.
"""

from selfsup.tracking.files import sync
from selfsup.tracking.live import Tracker
from selfsup.tracking.names import parameters

__all__ = ["Tracker", "parameters", "sync"]
