"""The checkpoint of a training: all that changes, so that who is killed goes on as if nothing had been."""

import hashlib
import json
import os
import sys
import time
import zipfile
from dataclasses import dataclass, field

import torch

from ..core import files


@dataclass
class Progress:
    """How far a training is, beside its weights; all of it is in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    flops: int = 0  # of a step, an image
    history: list = field(default_factory=list)
    judged: list = field(default_factory=list)
    sums: dict = field(default_factory=dict)  # of scalars over the steps since the last record, on the device
    cost: dict | None = None  # once it is done


class Checkpoint:
    """One file in `folder` that holds method, optimiser and progress; written by rank 0, every `every` seconds."""

    def __init__(self, folder, method, optimizer, every, writes):
        self.path, self.every, self.writes = folder / "checkpoint.pt", every, writes
        self.method, self.optimizer = method, optimizer
        self.saved_at = time.monotonic()

    def load(self, device):
        """Make method and optimiser what they were when last saved; returns the Progress of then, or a new one. A file
        that is not what was saved is set aside, and said to be."""
        if (saved := self._read()) is None:
            return Progress()
        self.method.load_state_dict(saved["method"])
        if self.optimizer:
            self.optimizer.load_state_dict(saved["optimizer"])
        sums = {name: value.to(device) for name, value in saved["progress"]["sums"].items()}
        return Progress(**saved["progress"] | {"sums": sums})

    def _read(self):
        """On the CPU, whatever it was saved on: what a device lacks is no damage. None where there is nothing."""
        try:
            with zipfile.ZipFile(self.path) as file:  # as torch writes it: with checksums, which torch does not read
                if (name := file.testzip()) is not None:
                    raise zipfile.BadZipFile(f"{name} is not what was saved")
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (PermissionError, MemoryError):
            raise
        except Exception as error:  # zipfile and torch raise what they stumble over
            if self.writes:
                aside = self.path.with_suffix(".damaged")
                os.replace(self.path, aside)
                print(f"{self.path} is damaged ({error}): it lies in {aside.name}, and training starts from the "
                      f"beginning", file=sys.stderr)
            return None

    def due(self):
        return time.monotonic() - self.saved_at > self.every

    def save(self, progress):
        """Write-then-rename: a reader finds the old checkpoint or the new one, never half of one."""
        if self.writes:
            state = {"method": self.method.state_dict(), "progress": vars(progress)}
            if self.optimizer:
                state["optimizer"] = self.optimizer.state_dict()
            with files.replacing(self.path) as file:
                torch.save(state, file)
        self.saved_at = time.monotonic()


def fingerprint(run, seed, card, code, origin=None):
    """Names a training: the same only if parameters, data, code and torch are. Where its checkpoints lie.

    origin: what start.Start says of other weights that went into it. What a run does not set leaves no trace, nor does
    what changes nothing that is learned.
    """
    what = run.model_dump(include={"method", "encoder", "args"}) | {"train": settings(run.train)}
    for name in ("checkpoint_every", "judge_every", "capture", "workers"):
        what["train"].pop(name, None)
    if origin:
        what["origin"] = origin
    if run.labels is not None:
        what["labels"] = run.labels
    text = json.dumps([what, seed, card["hash"], code, torch.__version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def settings(train):
    """config.Train as a dict of what is set."""
    return {name: value for name, value in train.model_dump().items() if value is not None}
