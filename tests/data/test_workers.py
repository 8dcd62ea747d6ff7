"""Processes that read batches, and die."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_sharer
import os
import resource
import signal
import sys
import time

import pytest
import torch

from selfsup import process
from selfsup.data import workers
from selfsup.errors import UserError


@pytest.fixture(autouse=True)
def as_a_stage(monkeypatch):
    """Workers inherit it here; from `process.guard` they have it, since this is theirs alone."""
    monkeypatch.setattr(sys, "excepthook", process.unless_left)


class Numbers(torch.utils.data.Dataset):
    """Batches of 1 MB. `act` is done before one of them, by the worker."""

    def __init__(self, act=lambda: None):
        self.act = act

    def __getitem__(self, step):
        if step == 3:
            self.act()
        return {"x": torch.full((1 << 18,), float(step))}


def test_in_order():
    assert [batch["x"][0].item() for batch in workers.batches(Numbers(), 2, range(6))] == [0, 1, 2, 3, 4, 5]


def no_room():
    # Shared memory is files: a limit on their size is what a full /dev/shm is.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("act", [
    lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os.kill(os.getpid(), signal.SIGBUS), lambda: os._exit(1),
    no_room])
def test_a_dead_worker_ends_it_with_a_sentence(act, capfd):
    began = time.monotonic()
    with pytest.raises(UserError, match="(is killed by|exited unexp).*/dev/shm") as info:
        list(workers.batches(Numbers(act), 2, range(8)))
    assert str(info.value).startswith("train.workers: a process that reads the data ")
    assert not multiprocessing.active_children()  # whose death torch would report wherever the main thread then is
    assert time.monotonic() - began < 60
    assert "Traceback" not in capfd.readouterr().err


def test_a_fellow_dies_while_a_batch_is_taken(monkeypatch, capfd):
    # The trainer has asked for the batch's memory, and is gone before it is sent.
    def asked(ident):
        multiprocessing.connection.Client(ident[0], authkey=multiprocessing.current_process().authkey).close()
        time.sleep(.5)  # in which the worker would speak
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(multiprocessing.resource_sharer._ResourceSharer, "get_connection", staticmethod(asked))
    with pytest.raises(UserError, match="is killed by signal: Killed"):
        list(workers.batches(Numbers(), 1, range(8)))
    assert not capfd.readouterr().err


def test_a_silent_worker_ends_it(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1)
    with pytest.raises(UserError, match="does not answer for 1 seconds"):
        list(workers.batches(Numbers(lambda: time.sleep(5)), 2, range(8)))


def test_a_death_is_noticed_while_nobody_waits():
    with pytest.raises(UserError, match="is killed by signal: Killed"), workers.deaths():
        source = workers.batches(Numbers(), 1, range(100))
        next(source)
        child = int(open(f"/proc/self/task/{os.getpid()}/children").read().split()[-1])
        os.kill(child, signal.SIGKILL)
        time.sleep(30)


def torn(error):
    raise error


class Torn:
    """What its sender does not live to hand over in full."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return torn, (self.error,)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_death_in_the_middle_of_a_batch(error):
    with pytest.raises(UserError, match="exited unexpectedly.*/dev/shm"):
        list(workers.batches([Torn(error)], 1, [0]))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), EOFError("a bug")])
def test_other_faults_keep_their_traceback(error):
    with pytest.raises(type(error), match="a bug"):
        list(workers.batches(Numbers(lambda: torn(error)), 1, range(8)))
