"""Self-supervised learning, every method under one protocol. `selfsup.load(folder)` gives a trained encoder back."""

from .encoder import load

__all__ = ["load"]
