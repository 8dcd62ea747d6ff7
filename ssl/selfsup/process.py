"""One trainer a run, and none left behind: a lock on the run's folder, and death with the process that started us."""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

from .errors import UserError


@contextlib.contextmanager
def sole_writer(folder, what, patience=5.0):
    """Hold the lock of `folder`. Raises UserError if another process still has it after `patience` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{what} is being trained by another process, which holds {file.name}") from None
                time.sleep(0.1)
        yield


def die_with_launcher():
    """End this process when the one that launched it, or the `dvc` above that, is killed: an orphan would go on
    training and keep the run's lock. Linux only; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The signal reaches children only, and dvc is two or three generations up (dvc, sh, accelerate, this process).
    chain, pid = [], os.getpid()
    while (pid := parent(pid)) > 1:
        chain.append(pid)
        if any(Path(word).name == "dvc" for word in command(pid)):
            threading.Thread(target=_watch, args=(chain,), daemon=True).start()
            return


def _watch(chain):
    child_of = dict(zip(chain, chain[1:]))  # a process whose parent dies is given another
    while os.getppid() == chain[0] and all(parent(pid) == above for pid, above in child_of.items()):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def parent(pid):
    """Parent's process id, 0 if `pid` is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command(pid):
    """The words of the command line of `pid`, [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def check_process_count(actual):
    """`accelerate launch` starts a single process on CPU whatever number it was asked for: say so instead.

    Raises UserError if torchrun, the launcher's command line or `accelerate config` asked for more than `actual`.
    """
    words = [w for word in command(os.getppid()) for w in word.split("=")]
    given = (words[i + 1] for i, w in enumerate(words[:-1]) if w in ("--num_processes", "--num-processes"))
    asked = os.environ.get("WORLD_SIZE") or next(given, None)
    if asked is None and any("accelerate" in word for word in words):
        from accelerate.commands.config.config_args import default_config_file, load_config_from_file

        if os.path.exists(default_config_file):
            asked = load_config_from_file(None).num_processes
    if asked is not None and int(asked) > actual:
        raise UserError(
            f"{asked} processes were asked for but {actual} started: accelerate launch runs one process on CPU; "
            f"use `torchrun --nproc_per_node {asked} pipelines/pretrain.py RUN`"
        )
