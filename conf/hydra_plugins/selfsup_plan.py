"""Found by Hydra wherever DVC composes params.yaml (.dvc/config: hydra.plugins_path): the resolver behind `plan` in
conf/config.yaml, so that `dvc exp run` writes what `make experiment` writes."""

import sys
from pathlib import Path

from omegaconf import OmegaConf

LIBRARY = str(Path(__file__).parents[2] / "ssl")


def plan(_root_):
    if LIBRARY not in sys.path:
        sys.path.insert(0, LIBRARY)  # before an installed copy
    from selfsup.config import checker, compose

    rest = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != compose.OWN])
    found = checker.check("conf", OmegaConf.to_container(rest, resolve=True)).plan
    return OmegaConf.create(found)  # a plain dict is refused


OmegaConf.register_new_resolver("plan", plan, replace=True)
