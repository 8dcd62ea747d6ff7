"""The training loop: one method, one seed, from shards to an encoder folder.

Killed at any moment and started again, it ends with the same bytes: everything that changes is in the checkpoint, and
every random number is a function of (seed, step) or of (seed, epoch, sample).
"""

import contextlib
import functools
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch

from .. import data
from ..core import bars, curves, distributed, rng
from ..core.precision import wide
from ..data.workers import chosen, deaths
from ..errors import UserError
from ..process import goes_on, sole_writer
from . import accumulate, optim
from .capture import Captured, wanted
from .checkpoint import Checkpoint, fingerprint
from .code import code_hash
from .measure import cost, diverged, embed, flops, held_out, judged, scalars, sound, spread_of, validate
from .publish import describe, publish, shown
from .setup import build, check_columns, inputs_of
from .start import Start
from .step import Step, placed

LOGGED = 200  # rows of history a run
WARMING = 0.1  # share of the budget before which embeddings may still be all alike


def pretrain(
    run,
    seed,
    accelerator,
    shards,
    out,
    scratch="data/runs",
    cache="data/cache",
    tracker=None,
    judge=None,
    encoders="data/encoders",
):
    """Train one seed of a run (config.Run) on the shards in folder `shards`; write the encoder folder `out`.

    judge: called every `train.judge_every` images with the encoder, in evaluation mode, and the number of steps so far;
    what it returns, {name: number}, goes into judged.jsonl beside history.jsonl. It changes nothing that is learned.
    encoders: the folder in which the encoders that `run.init` and `run.from_` name lie by experiment.
    Returns what it cost. Raises UserError for a missing column, a non-finite loss, or a second trainer of the same run.
    """
    torch.set_num_threads(run.train.threads)
    inputs = inputs_of(run)
    check_columns(run, inputs.columns, data.tars.card_of(shards))
    # Columns that it has no use for cost nothing.
    read = {"reader": run.train.reader, "cache": cache, "columns": inputs.columns}
    split = data.open(shards, "train", **read, labels=run.labels, seed=seed)
    start, code, main = Start(run, seed, encoders, split.card), code_hash(run), accelerator.is_main_process
    folder = Path(scratch) / f"{run.name}-{seed}-{fingerprint(run, seed, split.card, code, start.origin())}"
    with sole_writer(folder, f"{run.name} seed {seed}") if main else contextlib.nullcontext():
        training = Training(run, seed, accelerator, split, start, folder, tracker if main else None, judge)
        batches = training.held_out(shards, read)
        with deaths():
            training.loop()
        training.finish(batches)
        if main:
            info = describe(run, seed, split.card, training.method, training.steps, code, start)
            publish(training.method, info, training.progress, *shown(training.method, shards, cache, training.prepare),
                    Path(out))
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return training.progress.cost


class Training:
    """A method with what trains it, as it was left by whoever trained it last."""

    def __init__(self, run, seed, accelerator, split, start, folder, tracker=None, judge=None):
        train, device, card = run.train, accelerator.device, split.card
        self.run, self.seed, self.split, self.device, self.tracker = run, seed, split, device, tracker
        self.main = accelerator.is_main_process
        self.judge = judge if train.judge_every else None
        self.mean, self.std = (torch.tensor(card[key], device=device) for key in ("mean", "std"))
        method = build(run, seed, card, start)
        accumulate.check(run, method)
        if distributed.world() > 1 and device.type == "cuda":
            method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
        self.method = self.model = placed(method, device)
        self.optimizer, self.steps, self.captured = None, 0, wanted(run, device)
        if any(p.requires_grad for p in method.parameters()):
            # They are where they belong; asked to place them, Accelerate would import DTensor to look for some.
            optimizer = optim.build(method, train, self.captured)
            self.model, self.optimizer = accelerator.prepare(method, optimizer, device_placement=[False, False])
            self.steps = train.images // train.batch
        self.workers = chosen(train.workers, split.reader == "streaming", device.type)
        if device.type == "cuda" and split.reader == "resident" and not self.workers:  # a worker has no GPU
            split.hold(device, torch.cuda.get_device_properties(device).total_memory)
        parts = (method, self.model, train.accumulate, accelerator.autocast)
        self.accumulation = accumulate.Accumulation(*parts) if train.accumulate and self.steps else None
        self.first = None  # loss of the first step, on the device; of who goes on from a checkpoint it was a number
        self.checkpoint = Checkpoint(folder, method, self.optimizer, train.checkpoint_every, self.main)
        self.progress = self.checkpoint.load(device)
        self.started, self.warned = time.monotonic() - self.progress.seconds, False
        self.tell()
        if tracker:
            tracker.log(self.progress.history)
            tracker.log(self.progress.judged)

    def prepare(self, batch):
        """A batch of the loader's, on the device, through the method's inputs."""
        batch = {name: column.to(self.device, non_blocking=True) for name, column in batch.items()}
        return self.method.inputs(batch, self.seed, self.mean, self.std)

    def loop(self):
        """All steps that are not done yet. What changes here is in method, optimiser or progress: in checkpoints."""
        train, progress, first, step = self.run.train, self.progress, self.progress.step, self.stepper()
        every = max(1, self.steps // LOGGED)
        place, batches = (distributed.rank(), distributed.world()), ()
        if self.steps:
            asked = self.seed, train.batch, train.images, *place, first, self.workers, self.method.order
            batches = self.split.batches(*asked, pin=self.device.type == "cuda")
        title = f"{self.run.name} seed {self.seed}"
        bar = bars.bar(batches, title, self.steps, initial=first, disable=not self.main)
        self.method.train()
        for number, batch in enumerate(bar, first):
            epoch = number * train.batch // len(self.split)
            if number == 0 or epoch != (number - 1) * train.batch // len(self.split):
                self.before_epoch(epoch, batch)
            if number == 0:
                progress.flops = self.tried(self.prepare(batch))
            out = step(number, batch)
            self.first = out["loss"].detach() if number == 0 else self.first
            progress.step += 1
            for name, value in scalars(out).items():
                progress.sums[name] = progress.sums.get(name, 0) + value.detach().to(wide(self.device))
            if progress.step % every == 0 or progress.step == self.steps:
                loss = self.record_steps(out, number % every + 1, optim.learning_rate(number, self.steps, train))
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if self.judge and progress.step * train.batch % train.judge_every < train.batch:
                self.record_judged()
            if self.checkpoint.due():
                self.finite("the loss", float(out["loss"].detach()))
                self.save()

    def stepper(self):
        """What makes a step: its number and a batch of the loader's -> what the method says of it."""
        whole = self.method, self.model, self.optimizer, self.run.train, self.seed, self.steps, self.method.after_step
        step = Step(*whole, self.accumulation, self.prepare)
        if not (self.captured and self.steps):
            return step
        return Captured(step, self.device, f"{self.run.name} seed {self.seed}")

    def tried(self, batch):
        """What a step of the first batch costs, before anything is trained."""
        try:
            if self.accumulation:
                return flops(self.method, self.accumulation.cut(batch)[0], accumulate.alone)
            return flops(self.method, batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # BatchNorm's
                raise
            raise UserError(
                f"runs.{self.run.name}.train.batch: {self.run.train.batch} images over {distributed.world()} processes "
                "leave BatchNorm one value to take statistics of; take a larger batch or fewer processes"
            ) from None

    def before_epoch(self, epoch, batch):
        torch.manual_seed(rng.key(self.seed, epoch, -1))
        first = functools.partial(self.prepare, batch)
        self.method.before_epoch(Epoch(epoch, self.seed, self.features, forget(self.optimizer), self.record, first))
        self.method.train()

    def features(self, net=None):
        features = embed(net or self.method.encoder, self.split)
        self.finite("the features", float(features.square().sum()))  # of what has no squares there are no clusters
        return features

    def finite(self, what, value):
        """UserError if the number `value`, of `what`, is none any more."""
        if not math.isfinite(value):
            first = None if self.first is None else float(self.first)
            raise diverged(what, value, self.run, self.seed, self.progress.step, self.method, first)

    def sound(self):
        """UserError if weights are no numbers any more, whatever the last loss was: it was that of the step before."""
        fault = torch.tensor(math.nan if not sound(self.method) else 0.0, device=self.device)
        self.finite("a weight", float(distributed.total(fault)))

    def record(self, **row):
        """A row of the history, and of the tracker; UserError if it holds what is no number."""
        for name, value in row.items():
            self.finite("the loss" if name == "loss" else name, value)
        self.log(self.progress.history, row)

    def log(self, rows, row):
        rows.append({"step": self.progress.step, "images": self.progress.step * self.run.train.batch, **row})
        if self.tracker:
            self.tracker.log(rows[-1:])

    def record_steps(self, out, since, lr):
        """The scalars' means over the `since` last steps, how the last one's embeddings spread. Returns the loss."""
        means = {name: float(distributed.mean(value)) / since for name, value in self.progress.sums.items()}
        self.progress.sums, spread = {}, {name: float(value) for name, value in spread_of(out).items()}
        self.record(**means, **spread, lr=lr)
        self.warn(spread)
        return means["loss"]

    def warn(self, spread):
        """Once, while it happens: that a run has collapsed is not worth waiting for."""
        if self.main and not self.warned and curves.collapsed(spread) and self.progress.step > WARMING * self.steps:
            print(f"\n{self.run.name} seed {self.seed}: embeddings have collapsed at step {self.progress.step} of {self.steps}: "
                  f"spread {spread['std']:.2f} of 1, effective rank {spread['rank']:.1f}", file=sys.stderr)
            self.warned = True

    def record_judged(self):
        """What the judge says now. The clock stands still meanwhile: it is no cost of the training."""
        paused = time.monotonic()
        self.sound()
        if self.main:
            encoder = self.method.parts()["encoder"]  # the one that is kept, which may be an average
            self.log(self.progress.judged, judged(self.judge, encoder, self.split.card, self.progress.step))
            self.method.train()
        self.started += time.monotonic() - paused

    def held_out(self, shards, read):
        """The batches of val for `finish`; None, before training and with the reason, where val does not make any."""
        if not self.steps or not self.method.held_out:
            return None
        val = data.open(shards, "val", **read) if self.split.card["counts"]["val"] else ()
        try:
            return held_out(self.method, val, self.run.train.batch, self.seed)
        except UserError as error:
            if self.main:
                print(f"{self.run.name} seed {self.seed}: no val_loss: {error}", file=sys.stderr)
            return None

    def finish(self, batches):
        """The objective on the held-out `batches`, if there are any, and what it all cost; once."""
        self.method.eval()
        if self.progress.cost:
            return
        if self.steps:
            self.sound()
        if batches is not None and not any("val_loss" in row for row in self.progress.history):
            forward = self.accumulation.evaluate if self.accumulation else self.method
            self.record(**validate(forward, batches, self.prepare))
        seconds, batch = time.monotonic() - self.started, self.run.train.batch
        self.progress.cost = cost(self.method, self.steps, batch, seconds, self.progress.flops, self.device)
        if self.steps:
            self.save()

    def save(self):
        self.progress.seconds = time.monotonic() - self.started
        self.checkpoint.save(self.progress)
        self.tell()

    def tell(self):
        """Whoever is stopped by Ctrl-C, what has not to be done again."""
        if self.steps:
            goes_on(f"{self.run.name} seed {self.seed} goes on from step {self.progress.step} of {self.steps} when it is run again")


@dataclass
class Epoch:
    """What `Method.before_epoch` is given."""

    epoch: int
    seed: int
    embed: Callable  # (net, by default the encoder) -> features (N, dim) of all training samples, float32 on the CPU
    restart: Callable  # (module) forget the optimiser's state of a module whose weights were drawn anew
    log: Callable  # (name=value) into the history
    first: Callable  # () -> the epoch's first batch, as `forward` is given it


def forget(optimizer):
    """In place: all of torch's optimisers start from zeros."""

    def restart(module):
        for p in module.parameters():
            for value in optimizer.state[p].values() if p in optimizer.state else ():
                value.zero_()

    return restart
