"""clean.py: remove what is made again when it is needed (`make clean-scratch`): checkpoints of the chosen experiment's
trainings that stand in dvc.lock, decoded images (data/cache), drawn plots. What is interrupted keeps its checkpoint."""

import argparse
import contextlib
import shutil
from pathlib import Path

from selfsup import process

if __name__ == "__main__":
    process.guard()  # first of all: what follows takes seconds to import

from selfsup import config, errors  # noqa: E402

RUNS, OTHERS = Path("data/runs"), (Path("data/cache"), Path("dvc_plots"))


def done(params):
    """Folders of checkpoints of runs whose stage is as dvc.lock says."""
    from dvc.repo import Repo

    with Repo() as repo:
        stale = set(repo.status())
    # A folder is called <run>-<seed>-<12 hex digits>, and one run's name may be the beginning of another's.
    folders = {folder: folder.name.rsplit("-", 2)[0] for folder in RUNS.glob("*-*-*") if folder.is_dir()}
    return [folder for folder, run in folders.items() if run in params.runs and f"pretrain@{run}" not in stale]


def busy(folder):
    """Whether a training holds the lock of its folder."""
    with contextlib.suppress(FileNotFoundError), open(folder / "lock") as file:
        return not process.taken(file)
    return False


@errors.main
def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    if training := next(filter(busy, RUNS.glob("*-*-*")), None):
        raise errors.UserError(f"a training runs, which holds {training}: wait for its end, then clean")
    freed = 0
    for folder in [*done(config.load()), *filter(Path.is_dir, OTHERS)]:
        freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder)
    print(f"{freed / 1e6:,.0f} MB are free again")


if __name__ == "__main__":
    main()
