"""Networks by name: an encoder is one file here, found by its name. There is no list to keep."""

import importlib
import inspect
from pathlib import Path

import torch.nn as nn

from .. import layers
from ..errors import UserError, nearest

HEADS = {"linear": layers.linear, "text_transformer": layers.TextTransformer}  # parts that stand beside an encoder


def names():
    """The encoders of this folder; any other name is looked up in timm."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py") if file.stem != "timm")


def network(name):
    """What makes the network: the class that nets/<name>.py defines, a head; None for a name that is not ours."""
    if name in HEADS:
        return HEADS[name]
    if name not in names():
        return None
    module = importlib.import_module(f"{__name__}.{name}")
    (cls,) = (
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, nn.Module) and c.__module__ == module.__name__
    )
    return cls


def build(name, **kwargs):
    """The network `name` with `.config` recording how it was built; a name not ours is looked up in timm.

    Encoders map images (N, C, H, W), normalised floats, to features (N, encoder.dim); `encoder.features(x)` is the
    map (N, dim, h, w) before pooling and `encoder.layers(x)` the list of maps from shallow to deep.
    Raises UserError for a name that neither we nor timm know, or for arguments that the network does not take.
    """
    make = network(name)
    try:
        if make is not None:
            net = make(**kwargs)
        else:
            from .timm import Timm

            net = Timm(name, **kwargs)
    except KeyError:
        import timm

        known = [*names(), *timm.list_models()]
        raise UserError(f"encoder.name: unknown network '{name}'{nearest(name, known)}") from None
    except TypeError as error:
        raise UserError(f"encoder: {name} was given arguments it does not take ({error})") from None
    net.config = {"name": name, **kwargs}
    return net
