"""A second trainer is refused, an orphan dies, and a silently single process is noticed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfsup import process
from selfsup.errors import UserError

ENV = {**os.environ, "PYTHONPATH": "ssl"}


def hold(folder, ready):
    with process.sole_writer(folder, "it"):
        ready.set()
        time.sleep(60)


def test_second_writer_is_refused_and_a_killed_one_leaves_the_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    first = context.Process(target=hold, args=(tmp_path, ready))
    first.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="another process"), process.sole_writer(tmp_path, "run", patience=0.2):
        pass
    first.kill()
    first.join()
    with process.sole_writer(tmp_path, "run", patience=5):
        pass


def alive(pid):
    return process.parent(pid) > 0 and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("levels", [1, 3])
def test_orphan_dies_when_dvc_is_killed(tmp_path, levels):
    """`dvc` (here a script of that name) → shells → the trainer: killing the top ends the bottom."""
    worker = "from selfsup import process; import os, time; process.die_with_launcher(); print(os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, "-c", worker]
    middle = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    for _ in range(levels - 1):
        command = [sys.executable, "-c", middle, *command]
    dvc = tmp_path / "dvc"
    dvc.write_text(middle)
    top = subprocess.Popen([sys.executable, dvc, *command], stdout=subprocess.PIPE, text=True, env=ENV)
    pid = int(top.stdout.readline())
    assert alive(pid)
    top.send_signal(signal.SIGKILL)
    top.wait()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(pid)


def test_single_process_in_place_of_several_is_an_error():
    code = "from selfsup import process, errors; errors.main(process.check_process_count)(1)"
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    env = {k: v for k, v in ENV.items() if k != "WORLD_SIZE"}
    for extra, status in ([], 0), (["--num_processes", "2"], 1), (["--num_processes=2"], 1), (["--num_processes", "1"], 0):
        done = subprocess.run([sys.executable, "-c", parent, code, *extra], env=env, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert status == 0 or ("torchrun --nproc_per_node 2" in done.stderr and done.stderr.count("\n") == 1)
