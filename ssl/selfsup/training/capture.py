"""A step recorded once as a CUDA graph and replayed: the device then waits for no launch of the host's.

Half of a small network's step is the host, launching kernels one by one. A graph is all launches of one step, inputs,
forward, backward, update and averages, with the addresses that they were given: so a step works in the same memory each
time (methods/base.py), and what differs between steps lies in tensors: the batch, the rate, the share of the budget that
is spent, the seed of torch's generator. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import sys

import torch

from ..core import distributed

WARM = 3  # steps made as usual before: they allocate the optimiser's state, and constants that are kept


class Captured:
    """A Step (step.py) as it is called, recorded at the fourth call.

    Nothing is computed while it is recorded: all of its steps are steps of the training. What a step returns is written
    over by the next one. A batch of another shape, and all of them where recording fails, are made as usual.
    """

    def __init__(self, step, device, name):
        self.step, self.device, self.name = step, device, name
        self.batch, self.replay, self.out, self.made = None, None, None, 0
        for group in step.optimizer.param_groups:  # here: a checkpoint's lie on the host
            group["lr"] = torch.zeros((), device=device)

    def __call__(self, number, batch):
        self.step.begin(number)
        if self.made < 0 or not self.filled(batch):
            return self.step.work(batch)
        if self.made < WARM:
            self.made += 1
            return self.warm()
        if self.replay is None:
            try:
                self.replay, self.out = self.record()
            except RuntimeError as error:
                self.made = -1
                self.step.optimizer.zero_grad()  # whatever was recorded of them holds no numbers
                said = "the step cannot be captured as a CUDA graph, and is made as usual"
                print(f"{self.name}: {said}: {str(error).partition(chr(10))[0]}", file=sys.stderr)
                return self.step.work(batch)
        self.replay()
        return self.out

    def filled(self, batch):
        """Whether the batch fits where the recorded step reads it; then it is there."""
        if self.batch is None:
            self.batch = {name: torch.empty_like(column, device=self.device) for name, column in batch.items()}
        if any(self.batch[name].shape != column.shape for name, column in batch.items()):
            return False
        for name, column in batch.items():
            self.batch[name].copy_(column, non_blocking=True)
        return True

    def warm(self):
        """A step as usual, on a stream of its own, as one has to before recording."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            out = self.step.work(self.batch)
        here.wait_stream(aside)
        return {name: value.detach() for name, value in out.items()}

    def record(self):
        """(what makes the step again, what it gives)"""
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: another one may be pinning the next batch, which is no part of it.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            out = self.step.work(self.batch)
        return graph.replay, {name: value.detach() for name, value in out.items()}


def wanted(run, device):
    """Whether the run's step is to be captured here; where it could be but for how it is trained, that is said."""
    if device.type != "cuda" or run.train.capture == "off":
        return False
    reason = None
    if distributed.world() > 1:
        reason = "several GPUs"
    elif run.train.accumulate:
        reason = "train.accumulate"
    if reason and distributed.rank() == 0:
        print(f"{run.name}: the step is not captured as a CUDA graph: {reason}", file=sys.stderr)
    return reason is None
