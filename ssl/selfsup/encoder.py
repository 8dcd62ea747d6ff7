"""The encoder folder: what training leaves behind and a team shares. No pickle: safetensors, JSON and PNG only."""

import json
import sys
from pathlib import Path

from . import artefacts
from .core import files
from .errors import UserError


def save(folder, parts, info):
    """Write weights.safetensors and encoder.json. parts: name -> module made by nets.build; info: JSON-able facts."""
    from safetensors.torch import save as serialised

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"{part}.{key}": t.contiguous().cpu() for part, m in parts.items() for key, t in m.state_dict().items()}
    files.write(folder / "weights.safetensors", serialised(weights))
    about = {"parts": {part: module.config for part, module in parts.items()}}
    if (takes := parts["encoder"].takes) != "image":
        about["takes"] = takes
    info = {**about, **info}
    files.write(folder / "encoder.json", json.dumps(info, indent=1, sort_keys=True) + "\n")


def seeds(folder):
    """Seeds trained under data/encoders/<experiment>/<run>, in order."""
    found = [int(f.parent.name) for f in Path(folder).glob("*/encoder.json") if f.parent.name.isdigit()]
    return sorted(found)


def load(folder, seed=None, part="encoder"):
    """A trained part, in eval mode: images (N, C, size, size), normalised by .mean and .std -> features (N, .dim).

    folder: data/encoders/<experiment>/<run> (the lowest seed, or `seed`) or one seed's folder. The module also carries
    .size (pixels) and .info, the contents of encoder.json, and .prepare normalises images of 8 or 16 bits. An encoder of
    another column says so in .takes. Raises UserError for a folder that is missing or damaged, or whose weights are not
    those that the repository's results speak of (`vouch`).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .nets import build

    folder = Path(folder)
    if not (folder / "encoder.json").exists():
        there = seeds(folder)
        if not there or (seed is not None and seed not in there):
            what = f"no seed {seed}" if there else "no encoder"
            raise UserError(f"{folder}: {what} here; run `dvc pull` or `dvc repro` to get it")
        folder = folder / str(there[0] if seed is None else seed)
    info = artefacts.encoder(folder)
    parts = info["parts"]
    try:
        (folder / "weights.safetensors").open("rb").close()  # of one that may not be read, safetensors says it is not there
        vouch(folder)
        weights = load_file(folder / "weights.safetensors")
        if part not in parts:
            raise UserError(f"{folder}: has no part '{part}', only {', '.join(parts)}")
        net = build(**parts[part])
        net.load_state_dict({k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(f"{part}.")})
        for key in ("mean", "std", "size"):  # data without images have none
            if key in info or getattr(net, "takes", None) == "image":
                setattr(net, key, info[key])
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError, FileNotFoundError) as error:
        what = type(error).__name__ + ": " + str(error).partition("\n")[0].rstrip(":")
        raise UserError(f"{folder}: damaged encoder ({what}); {artefacts.remedy(folder / 'weights.safetensors')}") from error
    net.info = info
    return net.eval().requires_grad_(False)


def stored(net):
    """Pixels a side of the images that a loaded encoder was trained from, of which its views may be smaller; None where
    it takes none."""
    column = net.info.get("column") if net.takes == "image" else None
    return column["shape"][-1] if column else net.size


def vouch(folder):
    """Hold the weights of an encoder folder to their hash in the results, data/results/<experiment>/<run>/cost.json,
    which git keeps: DVC's storage is shared, and whoever may write to it could change what it holds.

    Raises UserError where they differ. Where nothing vouches for them, as outside of any checkout, stderr says so."""
    folder = Path(folder).resolve()
    known = None
    if len(folder.parents) > 4 and (folder.parents[4] / "dvc.yaml").exists():
        costs = folder.parents[4] / "data/results" / folder.parents[1].name / folder.parents[0].name / "cost.json"
        known = artefacts.costs(costs)["seeds"].get(folder.name, {}).get("weights") if costs.exists() else None
    if known is None:
        print(f"{folder}: no results here vouch for these weights", file=sys.stderr)
    elif artefacts.sha256(folder / "weights.safetensors") != known:
        raise UserError(f"{folder}/weights.safetensors is not what {costs} says that was trained; "
                        f"{artefacts.remedy(folder / 'weights.safetensors')}")
