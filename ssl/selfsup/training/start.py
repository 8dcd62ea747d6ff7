"""What a run starts from beside its seed: weights trained before (`init`), the encoder of another run (`from`)."""

import hashlib
import sys
from pathlib import Path

import torch

from .. import encoder, nets
from ..errors import UserError
from .setup import seen


class Start:
    """The weights that go into a run, none unless it names some; and what became of them, for encoder.json.

    run.init: another run's name, an encoder folder (a path, with a "/"), or "timm" for what timm has for this very
    architecture. run.from_: a run's name or the folder of its encoders; that encoder is `teacher`. Of a run's encoders
    it is the one of the same seed, or else of the lowest; `parts` is what else lies in that folder. encoders: the
    folder in which runs' encoders lie, by experiment. Raises UserError where there is none.
    """

    def __init__(self, run, seed, encoders="data/encoders", card=None):
        self.run, self.weights, self.teacher, self.fits, self.parts = run, None, None, None, {}
        if init := run.init:
            self.weights = pretrained(run, seen(run, card or {})) if init == "timm" else self._load(init, seed, encoders).state_dict()
        if from_ := run.from_:
            self.teacher = self._load(from_, seed, encoders)
            further = [part for part in self.teacher.info["parts"] if part != "encoder"]
            self.parts = {part: self._load(from_, seed, encoders, part) for part in further}

    def _load(self, where, seed, encoders, part="encoder"):
        folder = Path(where) if "/" in where else Path(encoders) / where.partition("-")[0] / where
        seeds = encoder.seeds(folder)
        return encoder.load(folder / str(seed if seed in seeds else seeds[0]) if seeds else folder, part=part)

    def origin(self):
        """What distinguishes this start from others, for `fingerprint`: hashes of the weights; {} if there are none."""
        given = {"init": self.weights, "from": self.teacher and self.teacher.state_dict()}
        for part, module in self.parts.items():
            given["from"] |= {f"{part}.{name}": value for name, value in module.state_dict().items()}
        return {name: digest(weights) for name, weights in given.items() if weights}

    def initialise(self, net):
        """Copy into `net` what fits by name and shape, and print what does not; UserError if nothing does."""
        if self.weights is None:
            return
        own, theirs = net.state_dict(), self.weights
        shared = own.keys() & theirs.keys()
        fits = {name: theirs[name] for name in shared if theirs[name].shape == own[name].shape}
        if not fits:
            raise UserError(
                f"runs.{self.run.name}.init: nothing of {self.run.init} fits the encoder {self.run.encoder['name']}; "
                "name a run or folder with this encoder"
            )
        net.load_state_dict(fits, strict=False)
        self.fits = {
            "missing": sorted(own.keys() - theirs.keys()),  # stay as the seed has drawn them
            "unexpected": sorted(theirs.keys() - own.keys()),
            "other_shape": sorted(shared - fits.keys()),
        }
        for what, names in self.fits.items():
            if names:
                print(f"runs.{self.run.name}.init: {what.replace('_', ' ')}: {', '.join(names)}", file=sys.stderr)

    def described(self):
        origin = self.origin()
        told = {"init": self.run.init, "init_hash": origin["init"], "init_unfit": self.fits} if "init" in origin else {}
        return told | ({"from": self.run.from_, "from_hash": origin["from"]} if "from" in origin else {})


def pretrained(run, card):
    """The weights that timm has for the run's encoder, built for the images of a data card: a state_dict."""
    name = run.encoder["name"]
    if name in nets.names():
        raise UserError(f"runs.{run.name}.init: timm has no weights for our own network {name}; take one of timm's")
    try:
        with torch.random.fork_rng(devices=[]):
            return nets.pretrained(card, **run.encoder).state_dict()
    except UserError:
        raise
    except Exception as error:  # timm lets through whatever its hub, the network and the file raise
        raise UserError(
            f"runs.{run.name}.init: timm has no weights of {name} in its cache and cannot get any "
            f"({type(error).__name__}); where there is a network, have timm download them once"
        ) from error


def digest(weights):
    """sha256 of a state_dict, names and numbers."""
    hashed = hashlib.sha256()
    for name, value in sorted(weights.items()):
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
