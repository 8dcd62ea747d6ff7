"""An encoder as a model that MLflow loads: a folder of a few kilobytes, which says where DVC has the weights.

`mlflow.pyfunc.load_model` reads it by `_load_pyfunc`, and `mlflow.pytorch.load_model` by `torch.load`, for which MLflow lets
a model name the module that unpickles it. Ours is this one: what it reads is JSON, and no pickle is ever run.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import selfsup
from selfsup import artefacts
from selfsup.errors import UserError

DATA = "encoder"  # of the folder: what both of MLflow's loaders are given


def write(folder, info, where):
    """Write the model into `folder`. info: contents of encoder.json; where: path, seed, weights and md5 of `load`."""
    import mlflow
    import torch
    import yaml

    flavours = {
        "python_function": {"loader_module": __name__, "data": DATA, "python_version": sys.version.split()[0]},
        "pytorch": {"model_data": DATA, "pytorch_version": str(torch.__version__)},
    }
    told = {"flavors": flavours, "mlflow_version": mlflow.__version__, "metadata": where, **signature(info)}
    (folder / DATA).mkdir()
    (folder / "MLmodel").write_text(yaml.safe_dump(told, sort_keys=False))
    (folder / DATA / "where.json").write_text(json.dumps(where, indent=1) + "\n")
    (folder / DATA / "pickle_module_info.txt").write_text(__name__)
    torch.save(where, folder / DATA / "model.pth", pickle_module=sys.modules[__name__])


def signature(info):
    """What goes in and out, for the model's page: of images, as they are stored, and of nothing else."""
    if info.get("takes", "image") != "image" or not {"mean", "size", "dim"} <= info.keys():
        return {}

    def tensor(dtype, *shape):
        return json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]}}])

    images = tensor("uint8", len(info["mean"]), info["size"], info["size"])
    return {"signature": {"inputs": images, "outputs": tensor("float32", info["dim"]), "params": None}}


# What MLflow's loaders call


class Pickler:
    """What torch.save asks of a module that pickles; its words are JSON."""

    def __init__(self, file, protocol=None):
        self.file = file

    def dump(self, where):
        self.file.write(json.dumps(where).encode())


class Unpickler:
    """What torch.load asks of it."""

    def __init__(self, file, **options):
        self.file = file

    def load(self):
        return load(**json.loads(self.file.read()))


def _load_pyfunc(folder, model_config=None):
    return Features(load(**json.loads((Path(folder) / "where.json").read_text())))


class Features:
    """The model as mlflow.pyfunc has it: `predict` of a column as it is stored, images uint8 (N, C, size, size) or token ids
    (N, L), gives features (N, dim), NumPy arrays both."""

    def __init__(self, net):
        self.net = net

    def predict(self, column, params=None):
        import numpy as np
        import torch

        column = np.asarray(column)
        with torch.inference_mode():
            parts = torch.from_numpy(np.ascontiguousarray(column)).split(256)
            return torch.cat([self.net(self.net.prepare(part)) for part in parts]).float().numpy()


def load(path, seed, weights, md5=None):
    """The trained encoder of a run whose weights have the SHA-256 `weights`: as it lies in the checkout, or else, since it
    was trained again or not pulled yet, as DVC keeps it in its cache or remote under `md5`.

    path: data/encoders/<experiment>/<run>. The checkout is the one that the working folder lies in, else that of this
    library. Raises UserError where it is in neither."""
    roots = checkouts()
    for root in roots:
        file = root / path / str(seed) / "weights.safetensors"
        if file.exists() and artefacts.sha256(file) == weights:
            return selfsup.load(file.parent)
    for root in roots if md5 else ():
        with tempfile.TemporaryDirectory() as folder:
            if bring(root, md5, str(seed), Path(folder)) and artefacts.sha256(Path(folder) / "weights.safetensors") == weights:
                return selfsup.load(folder)
    places = f"neither in {', '.join(map(str, roots))} nor in DVC's cache or remote there" if roots else "not here"
    raise UserError(f"the weights {weights[:12]} of {path}/{seed} are {places}: work in a checkout whose remote has them, or "
                    "`dvc pull`")


def checkouts():
    """Folders with a dvc.yaml: above the working folder, and above this file."""
    above = (Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents)
    return list(dict.fromkeys(folder for folder in above if (folder / "dvc.yaml").exists()))


def bring(root, md5, seed, folder):
    """Copy a seed's encoder from the output of hash `md5` of DVC, in its cache or else its remote, into `folder`; whether
    it is there."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        with Repo(str(root)) as repo:
            for pulled in (False, True):
                if pulled:
                    repo.cloud.pull([HashInfo("md5", md5)])
                with contextlib.suppress(OSError, ValueError, KeyError):
                    listed = json.loads(Path(repo.cache.local.oid_to_path(md5)).read_text())
                    files = {entry["relpath"]: repo.cache.local.oid_to_path(entry["md5"]) for entry in listed}
                    for name in ("encoder.json", "weights.safetensors"):
                        shutil.copy(files[f"{seed}/{name}"], folder / name)
                    return True
    except DvcException:
        pass
    return False
