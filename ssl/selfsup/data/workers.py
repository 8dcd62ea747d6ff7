"""Worker processes that read batches, and how their death ends a run: with one sentence, soon."""

import contextlib
import os
import re
from multiprocessing.queues import Queue

import torch

from selfsup import process
from selfsup.core.files import naming
from selfsup.errors import UserError

PATIENCE = 600  # seconds that a batch may take


def chosen(workers, streaming, device):
    """How many processes of a rank read its batches: `workers`, or for "auto" as many as it has cores where it streams to
    a GPU; elsewhere none, since they would take the cores from what trains, or have nothing to do."""
    if workers != "auto":
        return workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # ranks on this machine, as torchrun says
    return max(1, process.cores() // here) if streaming and device == "cuda" else 0


def joined(pieces, pin=False):
    """One batch of its pieces, dicts of tensors. `pin`: in memory that a GPU copies from while the host goes on."""
    whole = {}
    for name, first in pieces[0].items():
        parts, place = [piece[name] for piece in pieces], None
        if pin and not first.is_cuda:
            place = torch.empty(sum(map(len, parts)), *first.shape[1:], dtype=first.dtype, pin_memory=True)
        whole[name] = torch.cat(parts, out=place) if place is not None or len(parts) > 1 else first
    return whole


def batches(dataset, workers, sampler=None):
    """What `dataset` has for each of `sampler`, in order, read by so many worker processes. Raises UserError where one
    dies, or none answers for PATIENCE seconds."""
    loader = torch.utils.data.DataLoader(
        dataset, None, sampler=sampler, num_workers=workers, timeout=PATIENCE, worker_init_fn=_prepare)
    with deaths():
        with naming("/dev/shm"):  # which holds their locks, too
            started = iter(loader)
        try:
            yield from started
        except (EOFError, ConnectionError) as error:  # it died between two words with this process
            if "in DataLoader worker" in str(error):
                raise
            raise ended("exited unexpectedly") from None
        finally:
            started._shutdown_workers()  # torch still listens for the others, whose death would interrupt that sentence


@contextlib.contextmanager
def deaths():
    """Torch notices a dead worker by a signal, and raises wherever the main thread is at that moment: this goes around
    the whole of a training."""
    try:
        yield
    except RuntimeError as error:
        death = re.match(r"DataLoader worker [(]pid(?:[(]s[)])? [\d, ]+[)] ([^.]*)", str(error))
        if death is None and not str(error).startswith("DataLoader timed out"):
            raise
        how = death[1] if death else f"does not answer for {PATIENCE} seconds"
        raise ended(how) from None


def ended(how):
    return UserError(f"train.workers: a process that reads the data {how}; it may want for memory, or for room in "
                     f"/dev/shm (`df -h /dev/shm`): use fewer workers, or 0")


def _prepare(worker):
    # Else the thread that hands a batch over, where that fails, says so in a traceback, and the batch never comes.
    Queue._on_queue_feeder_error = staticmethod(lambda error, batch: os._exit(1))
