"""A stage among other processes: alone at its work, gone with those that started it, and quiet at Ctrl-C."""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path

from .errors import UserError

GRACE = 1.5  # seconds from Ctrl-C to the end of a process, however busy it is
INTERRUPTED = 130  # exit status, as a shell has it of a program that SIGINT ended
ABOVE = ("dvc", "snakemake")  # those who start stages
LOCKLESS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of a disk that has no locks, as some shared ones


@contextlib.contextmanager
def sole_writer(folder, what, patience=5.0):
    """Hold the lock of `folder`. Raises UserError if another process still has it after `patience` seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", patience, f"{what} is being trained"):
        yield


@contextlib.contextmanager
def locked(path, patience, what):
    """Hold the lock file `path`, which says who holds it. Raises UserError, beginning with the words `what`, if another
    process still has it after `patience` seconds."""
    with open(path, "a+") as file:
        deadline = time.monotonic() + patience
        while not taken(file):
            if time.monotonic() > deadline:
                file.seek(0)
                holder = file.read(20).strip()
                raise UserError(f"{what} by another process{holder and f' ({holder})'}, which holds {path}")
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def taken(file):
    """Whether the lock of an open file is this process's now; on a disk that has no locks it always is."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
    return True


class _Late(BaseException):
    """Past those who catch every Exception and try again."""


@contextlib.contextmanager
def limit(seconds, what):
    """Give the block `seconds`; then it ends with the UserError `what`. In the main thread, where signals are heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number, frame):
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Late:
        raise UserError(what) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cores():
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# Started and ended with others


def guard(grace=GRACE):
    """The first thing that a stage's script does, before all that takes seconds to import."""
    answer_interrupts(grace)
    die_with_launcher()
    os.register_at_fork(after_in_child=_speak_as_worker)


def die_with_launcher():
    """End this process when the one that launched it, or the DVC or Snakemake above that, is killed: an orphan would go
    on, publish what nobody has asked for any more, and keep locks. Linux only; elsewhere nothing happens.

    SELFSUP_DVC is the process id of the DVC above, from pipelines/python: whoever is killed while a launcher still
    imports is no ancestor any more by the time that we are started."""
    if not sys.platform.startswith("linux"):
        return
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup: to outlive its shell
        die_with_parent()
    dvc = int(os.environ.get("SELFSUP_DVC") or 0)
    above = [dvc, *ancestors(dvc)] if dvc else ancestors(os.getpid())
    started = {pid: since(pid) for pid in above if pid == dvc or any(Path(word).name in ABOVE for word in command(pid))}
    if started:
        threading.Thread(target=_watch, args=(started,), daemon=True).start()


def die_with_parent(parent=None):
    """Have the kernel kill this process when its parent ends; at once if that is not `parent` any more."""
    if sys.platform.startswith("linux"):
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:
        os._exit(1)


def worker(parent):
    """What a forked worker of the process `parent` begins with: it ends with that, which also answers Ctrl-C for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)


def _speak_as_worker():
    sys.excepthook = unless_left


def unless_left(kind, error, trace):
    """What a thread of a worker that hands over memory calls where the process that asked for it has stopped in the
    middle: on the death of a fellow, which that process has a sentence for."""
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


def _watch(started):
    while all(when and since(pid) == when for pid, when in started.items()):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _status(pid):
    """The fields of /proc/PID/stat behind the name, [] if the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def parent(pid):
    """Parent's process id, 0 if `pid` is gone."""
    return int((_status(pid) or [0, 0])[1])


def since(pid):
    """When the process `pid` was started, in the kernel's ticks, which tells it from a later one; None if it is gone."""
    return (_status(pid) or [None] * 20)[19]


def ancestors(pid):
    found = []
    while (pid := parent(pid)) > 1:
        found.append(pid)
    return found


def command(pid):
    """The words of the command line of `pid`, [] if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


# Ctrl-C


def answer_interrupts(grace=GRACE):
    """Let Ctrl-C end this process with one line and exit status 130: what is open is put away, if that takes no more
    than `grace` seconds. Of several processes that train together one says so."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, interrupted):  # ignored: in the background
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)  # written to at once; Python waits for the end of a call
    threading.Thread(target=_deadline, args=(reading, grace), daemon=True).start()
    # We answer for workers, from their first moment on: what Python does after a fork is no place for an exception.
    block, unblock = (functools.partial(signal.pthread_sigmask, how, {signal.SIGINT})
                      for how in (signal.SIG_BLOCK, signal.SIG_UNBLOCK))
    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=_deaf)
    signal.signal(signal.SIGINT, interrupted)


def _deaf():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def interrupted(number, frame):
    """The handler of Ctrl-C."""
    signal.signal(signal.SIGINT, lambda *_: None)  # once is enough
    _say()
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") not in ("__main__", "runpy"):
        _leave()  # Python is shutting down, and waits for threads or workers: an exception would be lost there
    raise SystemExit(INTERRUPTED)


def _deadline(reading, grace):
    while signal.SIGINT not in os.read(reading, 64):
        pass
    time.sleep(grace)
    if signal.getsignal(signal.SIGINT) == interrupted:  # it has not come to that
        _say()
    _leave()


def _leave():
    """End now, with workers that nobody waits for any more."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()
    os._exit(INTERRUPTED)


def goes_on(sentence):
    """What Ctrl-C says beside that it has ended this process, from here on."""
    global _kept
    _kept = f": {sentence}".encode()


_kept = b""


def _say():
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"\ninterrupted" + _kept + b"\n")  # print is not safe here; a progress bar has left its line open
