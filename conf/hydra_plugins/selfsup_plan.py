"""Found by Hydra wherever DVC composes params.yaml (.dvc/config: hydra.plugins_path): the resolver behind `plan` in
conf/config.yaml, so that `dvc exp run` writes what `make experiment` writes."""

import sys
from pathlib import Path

LIBRARY = str(Path(__file__).parents[2] / "ssl")
if LIBRARY not in sys.path:
    sys.path.insert(0, LIBRARY)  # before an installed copy

from selfsup.config import compose  # noqa: E402

compose.register()
