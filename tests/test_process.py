"""A second trainer is refused, orphans die, Ctrl-C is one line, and what a launcher cannot do is noticed."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from selfsup import launch, process
from selfsup.errors import UserError
from tests.test_bad_inputs import PARAMS, SCENES

ROOT = Path(__file__).parents[1]
ENV = {**{name: value for name, value in os.environ.items() if name != "SELFSUP_DVC"},
       "PYTHONPATH": str(ROOT / "ssl"), "SELFSUP_TRACKING": "off"}
CALL = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
SHARD = ["pipelines/python", "pipelines/shard.py", "tiny"]


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
    with pytest.raises(UserError, match=rf"another process \({first.pid}\), which holds"):
        with process.sole_writer(tmp_path, "run", patience=0.2):
            pass
    first.kill()
    first.join()
    with process.sole_writer(tmp_path, "run", patience=5):
        pass


def eventually(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path):
    """A working folder in which the shard stage has minutes to do, with a script that is called `dvc`."""
    for name in ("pipelines", "ssl"):
        (tmp_path / name).symlink_to(ROOT / name)
    params = {**PARAMS, "datasets": {"tiny": {**SCENES, "size": 64, "train": 100_000}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "dvc").write_text(CALL)
    return tmp_path


def start(folder, *words, **env):
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [str(word) for word in words]

    def heard():  # a shell's background job, as these tests may be one, ignores Ctrl-C, and so do those it starts
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(words, cwd=folder, env={**ENV, **env}, start_new_session=True, preexec_fn=heard, **out)


def those_in(folder):
    """Processes whose working folder it is."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(link) == str(folder) and process.parent(pid := int(link.parent.name)):
                found.append(pid)
        except OSError:
            pass
    return found


def works(folder):
    """The stage has workers, which have its command line. Counting processes is not enough: pipelines/python starts
    some to look for `dvc`, and one that is killed before it was found is nobody's ancestor."""
    return sum(process.command(pid)[1:2] == SHARD[1:2] for pid in those_in(folder)) > 2


def test_a_stage_and_its_workers_die_when_dvc_is_killed(folder):
    """`dvc` (here a script of that name) → others → the stage → workers."""
    between = [word for _ in range(2) for word in (sys.executable, "-c", CALL)]
    top = start(folder, sys.executable, folder / "dvc", *between, *SHARD)
    eventually(lambda: works(folder))
    top.kill()
    top.wait()
    eventually(lambda: not those_in(folder))


def test_a_trainer_whose_dvc_was_killed_before_it_started_dies_too(folder):
    """Killed while the launcher still imports: then nobody above the trainer is called `dvc`."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    code = "from selfsup import process; process.guard(); import time; time.sleep(60)"
    assert start(folder, sys.executable, "-c", code, SELFSUP_DVC=str(dead.pid)).wait(30) == -signal.SIGKILL
    slow = "import time; open('importing', 'w'); time.sleep(1); open('launched', 'w'); time.sleep(60)"
    (folder / "slow.py").write_text(slow)
    path = os.pathsep.join([ENV["PYTHONPATH"], str(folder)])
    launcher = [sys.executable, "-m", "selfsup.launch", "-m", "slow"]
    top = start(folder, sys.executable, folder / "dvc", *launcher, PYTHONPATH=path)
    eventually((folder / "importing").exists)
    top.kill()
    eventually(lambda: not those_in(folder))
    assert not (folder / "launched").exists()


def test_every_stage_is_guarded_before_its_slow_imports():
    for script in (ROOT / "pipelines").glob("*.py"):
        head, guard, rest = script.read_text().partition('if __name__ == "__main__":\n    process.guard()')
        assert guard and "import process" in head and "import torch" not in head, script
        assert "from selfsup import" in rest, script


NAP = """
from selfsup import process
import time
process.guard()
open("ready", "w")
"""


@pytest.mark.parametrize("what, last", [
    ("a stage with workers", None),
    ("the trainer of a launcher", "process.goes_on('it goes on from step 7'); time.sleep(60)"),
    ("one that forked a worker", "from multiprocessing import Process as P; P(target=time.sleep, args=(60,)).start(); open('started', 'w')"),
    ("one that is busy in C", "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"),
])
def test_ctrl_c_is_one_line_and_status_130(folder, what, last):
    (folder / "stage.py").write_text(f"{NAP}{last}\n")
    if last is None:
        running = start(folder, sys.executable, *SHARD[1:])
        eventually(lambda: works(folder))
    else:
        launcher = ["-m", "selfsup.launch", "-m", "accelerate.commands.launch"] if "launcher" in what else []
        running = start(folder, sys.executable, *launcher, "stage.py")
        eventually((folder / ("started" if "forked" in what else "ready")).exists)
    asked = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    status = running.wait(30)
    assert time.monotonic() - asked < 5 and status == 130
    printed = running.communicate()[0].splitlines()
    said = "interrupted: it goes on from step 7" if "launcher" in what else "interrupted"
    assert [line for line in printed if line and "images/s" not in line] == [said]
    eventually(lambda: not those_in(folder))
    assert not list((folder / "data").rglob("*.tar"))


def test_ctrl_c_in_the_middle_of_a_fork_is_not_the_workers(folder):
    # Python seeds `random` in a new child before anything of ours runs there; an exception in it would be printed.
    (folder / "stage.py").write_text(
        "import os, signal\n"
        "os.register_at_fork(after_in_child=lambda: (os.kill(os.getpid(), signal.SIGINT), [i for i in range(9)]))\n"
        f"{NAP}\n"
        "child = os.fork()\n"
        "os._exit(7) if child == 0 else print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n")  # in the parent nothing stays blocked
    running = start(folder, sys.executable, "stage.py")
    assert running.communicate(timeout=60)[0].split() == ["7", "set()"] and running.returncode == 0


def test_a_worker_whose_stage_has_left_is_silent_and_its_other_faults_are_not(folder):
    (folder / "stage.py").write_text(f"{NAP}\n" + """
import os, sys
for error in BrokenPipeError("left"), EOFError("left"), KeyError("a bug"):
    if os.fork() == 0:
        sys.excepthook(type(error), error, None)  # as multiprocessing does in a worker's thread
        os._exit(0)
    os.wait()
sys.excepthook(EOFError, EOFError("its own"), None)
""")
    running = start(folder, sys.executable, "stage.py")
    assert running.communicate(timeout=60)[0].splitlines() == ["KeyError: 'a bug'", "EOFError: its own"]


def test_on_a_disk_without_locks_one_trusts(tmp_path, monkeypatch):
    def lacking(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", lacking)
    with process.sole_writer(tmp_path, "it", patience=0):
        assert (tmp_path / "lock").exists()


def test_a_launcher_ends_as_its_trainer_without_a_traceback(folder):
    ends = ("import sys; sys.exit(3)", 3, ""), ("import os; os.kill(os.getpid(), 9)", 137, "SIGKILL")
    for code, status, said in ends:
        (folder / "stage.py").write_text(code)
        running = start(folder, sys.executable, "-m", "selfsup.launch", "-m", "accelerate.commands.launch", "stage.py")
        printed = running.communicate(timeout=60)[0]
        assert running.returncode == status and said in printed and "Traceback" not in printed
    (folder / "stage.py").write_text("import os, sys; os.environ['RANK'] == '0' and print('error: so'); sys.exit(3)")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]  # as accelerate does for several GPUs
    running = start(folder, sys.executable, "-m", "selfsup.launch", *torchrun, "stage.py")
    assert running.communicate(timeout=60)[0] == "error: so\n" and running.returncode == 3


def test_accelerate_has_nothing_to_warn_of(monkeypatch):
    from accelerate.commands import launch as theirs

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(theirs, "default_config_file", "/nowhere")
    warnings = []
    monkeypatch.setattr(theirs.logger, "warning", warnings.append)

    def asked(*words):
        args = theirs.launch_command_parser().parse_args([*words, "stage.py"])
        theirs._validate_launch_command(args)
        return args.multi_gpu, args.num_processes

    assert asked(*launch.chosen(2)) == (True, 2) and not warnings
    assert asked() == (True, 2) and len(warnings) == 1, "or it need not be told"


@pytest.mark.parametrize("config, said", [
    ({"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}}, "asks for FSDP,"),
    ({"distributed_type": "DEEPSPEED", "mixed_precision": "fp8"}, "asks for DEEPSPEED and fp8,"),
    ({"distributed_type": "NO", "dynamo_backend": "INDUCTOR"}, "asks for torch.compile,"),
    ({"distributed_type": "NO", "of_a_later_version": 1}, "unknown keys"),
    ({"distributed_type": "HORSES"}, "HORSES"),
    ("a: b: c", "cannot be used"), (None, "cannot be used"),
    ({"distributed_type": "MULTI_GPU", "num_processes": 2, "mixed_precision": "bf16"}, None),
])
def test_a_left_over_accelerate_config_is_one_sentence(tmp_path, monkeypatch, config, said):
    from accelerate.commands.config import config_args

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    path = tmp_path / "accelerate/default_config.yaml"
    monkeypatch.setattr(config_args, "default_config_file", str(path))  # read from HF_HOME when it was imported
    launch.check_accelerate_config()
    path.parent.mkdir()
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    if said is None:
        launch.check_accelerate_config()
    else:
        with pytest.raises(UserError, match=f"{path} .*{said}.*; run `accelerate config` anew"):
            launch.check_accelerate_config()


@pytest.mark.parametrize("env", [{"XDG_CACHE_HOME": "cache"}, {"HF_HOME": "home", "XDG_CACHE_HOME": "cache"}])
def test_the_file_of_accelerate_config_is_where_accelerate_has_it(tmp_path, env):
    code = ("import os; from accelerate.commands.config.config_args import default_config_file as path\n"
            "from selfsup import launch; assert launch.config_file() is None\n"
            "os.makedirs(os.path.dirname(path)); open(path, 'w'); assert launch.config_file() == path, path")
    clean = {key: value for key, value in ENV.items() if key not in ("HF_HOME", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**clean, "HOME": str(tmp_path), **env}, check=True)


def test_single_process_in_place_of_several_is_an_error():
    code = "from selfsup import launch, errors; errors.main(launch.check_process_count)(1)"
    parent = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    env = {k: v for k, v in ENV.items() if k != "WORLD_SIZE"}
    for extra, status in ([], 0), (["--num_processes", "2"], 1), (["--num_processes=2"], 1), (["--num_processes", "1"], 0):
        done = subprocess.run([sys.executable, "-c", parent, code, *extra], env=env, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert status == 0 or ("torchrun --nproc_per_node 2" in done.stderr and done.stderr.count("\n") == 1)
