"""Self-supervised learning, every method under one protocol. `selfsup.load(folder)` gives a trained encoder back."""

from . import encoder

__all__ = ["load"]


def load(folder, seed=None, part="encoder", frozen=False):
    """A trained encoder, or another part of its folder, in eval mode: images (N, C, size, size), normalised by .mean and
    .std -> features (N, .dim); `encoder.load` says the rest. To train it on, call `.train()`, for BatchNorm's statistics;
    with `frozen` its weights take no gradient."""
    return encoder.load(folder, seed, part).requires_grad_(not frozen)
