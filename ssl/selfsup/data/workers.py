"""Worker processes that read batches, and how their death ends a run: with one sentence, soon."""

import contextlib
import os
import re
from multiprocessing.queues import Queue

import torch

from selfsup.core.files import naming
from selfsup.errors import UserError

PATIENCE = 600  # seconds that a batch may take


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
