"""Encoders for other libraries: as ONNX, as weights that timm or torchvision know and the lines that load them, or as
the folder that Hugging Face's hub holds of a network of timm's.

An export takes what the encoder takes, images (N, channels, size, size) in 0 … 1 less `mean` and divided by `std`,
and gives the same features (N, dim): before anybody sees it, it is loaded again and compared. The lines are written and
not run here, since what they say comes from an encoder that somebody may have shared.
"""

import json

import torch

from selfsup import counterparts
from selfsup.core.middle import middle
from selfsup.encoder import stored
from selfsup.errors import UserError

TOLERANCE = 1e-4  # of the largest feature, since another library may sum in another order
FILE = '''\
"""The encoder {run}, seed {seed}, in {library}.

features(images): float (N, {channels}, {size}, {size}){rgb} in 0 … 1, normalised as (images - mean) / std -> (N, {dim}).
"""

from pathlib import Path

import {library}
import torch
from safetensors.torch import load_file

mean = torch.tensor({mean})[:, None, None]
std = torch.tensor({std})[:, None, None]
{lines}
model.load_state_dict(load_file(Path(__file__).with_name("{weights}")))
model.eval()


def features(images):
    return {features}
'''
CARD = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
---
The encoder {run}, seed {seed}, trained by {method}: {architecture} of timm, images of {size} pixels -> {dim} features.
With transformers `AutoModel.from_pretrained(folder)(pixel_values=images).pooler_output` are the features, and
`AutoImageProcessor.from_pretrained(folder)` makes the images; with timm `create_model("local-dir:" + folder,
pretrained=True)(images)`. On the hub the folder's name is the repository's, for timm after `hf-hub:`.
"""


def write(encoder, to, out):
    """Write `encoder`, of selfsup.load, to the path `out` for "onnx", "timm", "torchvision" or "hf" (a folder); -> the
    largest difference that a feature then has on random images. The lines that load weights are at `beside(out, to)`.

    Raises UserError where the library has no such architecture, or the features differ."""
    if encoder.takes != "image":
        raise UserError(f"the encoder takes the column '{encoder.takes}', and only encoders of images can be exported")
    if to == "onnx":
        again = onnx(encoder, out)
    else:
        again = (folder if to == "hf" else weights)(encoder, counterpart(encoder, to), to, out)
    x = counterparts.example(encoder)
    with torch.no_grad():
        wanted, got = encoder(x), again(x)
    difference = (got - wanted).abs().max().item()
    if not difference <= TOLERANCE * wanted.abs().max().item():
        raise UserError(f"{to} computes other features, by up to {difference:.2g}: the export is not kept")
    return difference


def counterpart(encoder, to):
    """The Network that the library `to` has; UserError, which names the others that have one, where it has none."""
    network = counterparts.KNOWN[to](encoder)
    if network is None:
        others = [name for name, known in counterparts.KNOWN.items() if name != to and known(encoder) is not None]
        words = ", ".join(f"`--to {name}`" for name in others) + " or " * bool(others) + "`--to onnx`"
        raise UserError(f"{to} has no network like the encoder's, {encoder.config['name']}; {words} writes it")
    return network


def beside(out, to):
    """Where the lines go that load the weights `out`. Not `out.py`, which may be a script of the user's."""
    return out.with_name(f"{out.stem.removesuffix(f'.{to}')}.{to}.py")


def onnx(encoder, out):
    """Write ONNX, for any number of images; -> the function it computes. Its metadata hold mean, std and size."""
    import onnxruntime
    from onnxscript import opset18 as op

    def cdist(x1, x2, p: float, compute_mode=None):  # of a palette's colours; torch has no translation of its own
        return op.ReduceL2(op.Sub(op.Unsqueeze(x1, [-2]), op.Unsqueeze(x2, [-3])), [-1], keepdims=False)

    x = torch.zeros(2, encoder.channels, encoder.size, encoder.size)  # of one image the tracer would make a constant
    program = torch.onnx.export(encoder, (x,), dynamo=True, verbose=False, input_names=["image"],
                                output_names=["feature"], dynamic_shapes=({0: torch.export.Dim("batch")},),
                                custom_translation_table={torch.ops.aten._cdist_forward.default: cdist})
    about = {key: encoder.info[key] for key in ("run", "seed", "mean", "std", "size")}
    program.model.metadata_props.update({key: json.dumps(value) for key, value in about.items()})
    program.save(out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])


def weights(encoder, network, library, out):
    """Write a state dict under the library's names and the lines that load it; -> the function that they define."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in network.state.items()}, out)
    about = {key: encoder.info[key] for key in ("run", "seed", "size", "mean", "std", "dim")}
    expression, function = network.features
    code = FILE.format(library=library, lines=network.lines(), features=expression, weights=out.name,
                       channels=encoder.channels, rgb=", RGB" * (encoder.channels == 3), **about)
    beside(out, library).write_text(code, encoding="utf-8")
    return function(network.build())


def folder(encoder, network, library, out):
    """Write the folder `out` as timm does it for the hub, config.json and model.safetensors, and a card, README.md; ->
    what timm loads of it. config.json holds how images are made, too, for transformers' image processor."""
    import timm
    from timm.models import save_for_hf

    (architecture,), model = network.arguments, network.build()
    whole = stored(encoder)
    about = {key: encoder.info[key] for key in ("run", "seed", "method", "size", "dim")}
    save_for_hf(model, out, safe_serialization=True,
                data_config={"input_size": [encoder.channels, encoder.size, encoder.size], "mean": encoder.mean,
                             "std": encoder.std, "interpolation": "bicubic", "crop_mode": "center",
                             "crop_pct": middle(whole, encoder.size)[1] / whole})
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)  # it stands beside them, and transformers would give it twice
    if encoder.info.get("init") != "timm":  # what timm says of weights of its own is not true of these
        for key in ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"):
            config["pretrained_cfg"].pop(key, None)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(CARD.format(architecture=architecture, **about), encoding="utf-8")
    return timm.create_model(f"local-dir:{out}", pretrained=True).eval()
