"""params of `quick`, on which tests build theirs, whichever experiment is chosen here."""

import functools
import tempfile
from pathlib import Path

import yaml

from selfsup.config import compose

ROOT = Path(__file__).parents[1]


@functools.cache
def text():
    chosen = (ROOT / "params.yaml").read_text()
    if chosen.startswith("experiment: quick\n"):  # as composed: tests/test_layout.py compares them
        return chosen
    with tempfile.TemporaryDirectory() as folder:
        compose.write(Path(folder) / "params.yaml", ROOT / "conf", "experiment=quick")
        return (Path(folder) / "params.yaml").read_text()


def params():
    """Without the plan, which is composed from the rest."""
    return {key: value for key, value in yaml.safe_load(text()).items() if key != compose.OWN}


def plan():
    return yaml.safe_load(text())[compose.OWN]
