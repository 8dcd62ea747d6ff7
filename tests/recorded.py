"""A CUDA graph without CUDA: the operations of a step, recorded and made again in the memory that they had."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from selfsup.core import precision
from selfsup.training.capture import Captured

SHAPES = ("t_", "transpose_", "squeeze_", "unsqueeze_")  # change a tensor's shape, nothing in memory


class Recording(TorchDispatchMode):
    """Each operation with what it was given and what it gave. What was an address stays one, what was a number of the
    host's stays that number: as in a graph."""

    def __init__(self):
        super().__init__()
        self.made, self.wide = [], set()  # wide: what gives float64

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.wide |= {str(function) for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.dtype == torch.float64}
        if function.overloadpacket.__name__ not in SHAPES:
            own = tree_map_only(torch.Tensor, lambda value: value.detach(), out)  # whatever its shape will be later
            self.made.append((function, args, kwargs or {}, own))
        return out

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, out in self.made:
            for old, new in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(new, torch.Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or made in place
                    old.copy_(new)


class OnHost(Captured):
    """Captured where there is no GPU. Recording computes here what a GPU only notes, so that it is taken back."""

    def warm(self):
        return {name: value.detach() for name, value in self.step.work(self.batch).items()}

    def record(self):
        optimizer = self.step.optimizer
        state = [value for of in optimizer.state.values() for value in of.values() if isinstance(value, torch.Tensor)]
        state += self.step.net.state_dict().values()
        before, generator, recording = [value.detach().clone() for value in state], torch.get_rng_state(), Recording()
        with recording:
            out = self.step.work(self.batch)
        assert not recording.wide or precision.wide("cpu") == torch.float64, f"Apple's GPUs have no float64: {recording.wide}"
        with torch.no_grad():
            for value, was in zip(state, before, strict=True):
                value.copy_(was)
        torch.set_rng_state(generator)
        return recording.replay, {name: value.detach() for name, value in out.items()}
