"""Networks by name: an encoder is one file here, found by its name. There is no list to keep."""

import importlib
import inspect
from pathlib import Path

import torch.nn as nn

from .. import layers
from ..errors import UserError

HEADS = {"linear": layers.linear, "mlp": layers.mlp, "text_transformer": layers.TextTransformer, "mask": layers.Mask,
         "hypercolumns": layers.Hypercolumns, "sound_net": layers.SoundNet, "fusion": layers.Fusion,
         "standardised": layers.standardised, "initial": layers.Initial}  # parts that stand beside an encoder
# Arguments, and what of the data they follow: keys of the card, and those that `told` finds in its schema.
SIZES = {"size": "size", "channels": "channels", "img_size": "size", "vocabulary": "vocabulary", "length": "caption_length",
         "rate": "rate", "coordinates": "coordinates"}


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


def takes(name):
    """The column of the data that the network `name` takes."""
    return getattr(network(name), "takes", "image")


def build(name, card=None, **kwargs):
    """The network `name` with `.config` recording how it was built; a name not ours is looked up in timm.

    Encoders map images (N, C, H, W), normalised floats, or what another column becomes, to features (N, encoder.dim);
    `encoder.features(x)` is the map (N, dim, h, w) before pooling and `encoder.layers(x)` the list of maps from shallow
    to deep. `encoder.takes` names the column of the data that it is made for, and `encoder.prepare(column)` makes of it
    what `forward` takes. From a data card come the arguments SIZES, unless they are given, and what images are normalised
    with.
    Weights start at random: `pretrained`, which the configuration of older encoder folders has, says where the weights
    beside it came from, and is passed over. `pretrained()` below has timm's.
    Raises UserError for a name that neither we nor timm know, for arguments that the network does not take, or for data
    without its column or of a size that it cannot encode.
    """
    card = card or {}
    kwargs.pop("pretrained", None)
    config = configured(card, name, **kwargs)
    try:
        net = maker(name)(**{key: value for key, value in config.items() if key != "name"})
    except TypeError as error:
        raise UserError(f"encoder: {name} was given arguments it does not take ({error})") from None
    net.config = config
    column = getattr(net, "takes", None)  # a head takes what the method gives it
    if column is not None and column not in card.get("columns", [column]):
        raise UserError(f"encoder.name: {name} takes the column '{column}', which the data set does not have "
                        f"(it has {', '.join(card['columns'])})")
    if column == "image" and getattr(net, "channels", None) != card.get("channels", getattr(net, "channels", None)):
        raise UserError(f"encoder: {name} takes images with {net.channels} channels, and the data's have "
                        f"{card['channels']}")
    if "size" in card and hasattr(net, "can_encode"):
        net.can_encode(card["size"])
    if column == "image":
        net.size = card.get("size")
    normalise(net, card)
    return net


def pretrained(card, name, **kwargs):
    """The timm model `name` as `build` makes it, with the weights that timm has for it: from its cache or, where there
    is a network, from timm's hub."""
    config = configured(card, name, **kwargs)
    return maker(name)(pretrained=True, **{key: value for key, value in config.items() if key != "name"})


def normalise(net, card):
    """Tell a network what the images of a data card are normalised with, if it asks for it."""
    if "mean" in card and hasattr(net, "normalised_with"):
        net.normalised_with(card)


def maker(name):
    """What makes the network `name`, one of timm's if it is none of ours."""
    # Not by an import statement: runs with our own networks do not depend on that file.
    return network(name) or importlib.import_module(f"{__name__}.timm").maker(name, names())


def configured(card, name, **kwargs):
    """The configuration of an encoder with the arguments that follow the data, as encoder.json records it."""
    return {"name": name, **kwargs, **sizes(maker(name), card, kwargs)}


def sizes(make, card, given):
    """The arguments of the network `make` that follow the data: those of SIZES that it names, that are not given, and
    that differ from what they are by default; None there stands for any."""
    asked, known = inspect.signature(make).parameters, told(card)
    return {key: known[of] for key, of in SIZES.items()
            if key in asked and of in known and key not in given and asked[key].default not in (None, known[of])}


def told(card):
    """A data card with what its schema says of its sound's rate and of its points' coordinates."""
    sound, points = (card.get("schema", {}).get(name) for name in ("sound", "points"))
    rate = {"rate": sound.get("rate", 16000)} if sound else {}  # the default of data.columns.Sound
    return {**card, **rate} | ({"coordinates": points["shape"][-1]} if points and points["shape"] else {})
