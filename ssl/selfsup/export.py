"""Encoders for other libraries: as ONNX, or as weights that timm or torchvision know and the lines that load them.

An export takes what the encoder takes, images (N, channels, size, size) in 0 … 1 less `mean` and divided by `std`,
and gives the same features (N, dim): before anybody sees it, it is loaded again and compared. The lines are written and
not run here, since what they say comes from an encoder that somebody may have shared.
"""

import importlib
import json
from dataclasses import dataclass

import torch

from selfsup import nets
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
RENAMED = {  # in a ViT of timm
    "embed.": "patch_embed.proj.", ".qkv.": ".attn.qkv.", ".out.": ".attn.proj.", ".mlp.0.": ".mlp.fc1.",
    ".mlp.2.": ".mlp.fc2.",
}


def write(encoder, to, out):
    """Write `encoder`, of selfsup.load, to the path `out` for "onnx", "timm" or "torchvision"; -> the largest
    difference that a feature then has on random images. The lines that load weights are at `beside(out, to)`.

    Raises UserError where the library has no such architecture, or the features differ."""
    if encoder.takes != "image":
        raise UserError(f"the encoder takes the column '{encoder.takes}', and only encoders of images can be exported")
    again = onnx(encoder, out) if to == "onnx" else weights(encoder, to, out)
    x = torch.randn(3, encoder.channels, encoder.size, encoder.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, got = encoder(x), again(x)
    difference = (got - wanted).abs().max().item()
    if not difference <= TOLERANCE * wanted.abs().max().item():
        raise UserError(f"{to} computes other features, by up to {difference:.2g}: the export is not kept")
    return difference


def beside(out, to):
    """Where the lines go that load the weights `out`. Not `out`.py, which may be a script of the user's."""
    return out.with_suffix(f".{to}.py")


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


@dataclass
class Network:
    """One that another library makes, `maker`(*arguments, **options), and the state dict that makes it ours."""

    maker: str
    arguments: tuple
    options: dict
    state: dict
    swaps: tuple = ()  # (attribute, class in torch.nn, its arguments, its options, why): what takes another's place
    normalised: bool | None = None  # features are the mean over the last map, normalised or not; None: the output itself

    def build(self):
        """-> the function images -> features."""
        where, name = self.maker.rsplit(".", 1)
        model = getattr(importlib.import_module(where), name)(*self.arguments, **self.options)
        if self.normalised is not None:
            model.prune_intermediate_layers(1, prune_norm=not self.normalised, prune_head=True)
        for attribute, layer, arguments, options, _ in self.swaps:
            setattr(model, attribute, getattr(torch.nn, layer)(*arguments, **options))
        model.load_state_dict(self.state)
        model.eval()
        if self.normalised is None:
            return model
        return lambda x: model.forward_intermediates(x, norm=self.normalised, output_fmt="NCHW",
                                                     intermediates_only=True)[-1].mean((2, 3))

    def lines(self):
        """`build` as text -> (the lines that make `model`, what its features are)."""
        made = [f"model = {call(self.maker, self.arguments, self.options)}"]
        if self.normalised is not None:
            made.append(f"model.prune_intermediate_layers(1, prune_norm={not self.normalised}, prune_head=True)")
        made += [f"model.{attribute} = {call(f'torch.nn.{layer}', arguments, options)}  # {why}"
                 for attribute, layer, arguments, options, why in self.swaps]
        if self.normalised is None:
            return "\n".join(made), "model(images)"
        return "\n".join(made), (f'model.forward_intermediates(images, norm={self.normalised}, output_fmt="NCHW", '
                                 "intermediates_only=True)[-1].mean((2, 3))")


def call(maker, arguments, options):
    words = [repr(value) for value in arguments]
    words += [f"{key}={'torch.nn.LayerNorm' if value is torch.nn.LayerNorm else repr(value)}" for key, value in options.items()]
    return f"{maker}({', '.join(words)})"


def weights(encoder, library, out):
    """Write a state dict under the library's names and the lines that load it; -> the function that they define."""
    from safetensors.torch import save_file

    network = {"timm": timm, "torchvision": torchvision}[library](encoder)
    if network is None:
        raise UserError(f"{library} has no network like the encoder's, {encoder.config['name']}; `--to onnx` takes any")
    save_file({name: value.contiguous() for name, value in network.state.items()}, out)
    lines, features = network.lines()
    about = {key: encoder.info[key] for key in ("run", "seed", "size", "mean", "std", "dim")}
    code = FILE.format(library=library, lines=lines, features=features, weights=out.name, channels=encoder.channels,
                       rgb=", RGB" * (encoder.channels == 3), **about)
    beside(out, library).write_text(code, encoding="utf-8")
    return network.build()


def timm(encoder):
    """-> Network, or None for what timm does not have."""
    config = dict(encoder.config)
    name = config.pop("name")
    if name == "resnet18":
        return Network("timm.create_model", ("resnet18",), {"num_classes": 0}, resnet18(encoder), stem(encoder))
    if name == "vit":
        # timm's smallest ViT in our size. No class token: features are the mean over patches, after the last norm.
        options = {"img_size": encoder.grid * encoder.patch, "patch_size": encoder.patch, "embed_dim": encoder.dim,
                   "depth": len(encoder.blocks), "num_heads": encoder.blocks[0].heads, "in_chans": encoder.channels,
                   "num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": False,
                   "norm_layer": torch.nn.LayerNorm}
        state = {"pos_embed": encoder.position[None]}
        for key, value in encoder.state_dict().items():
            for ours, theirs in RENAMED.items():
                key = key.replace(ours, theirs)
            state[key] = value
        return Network("timm.create_model", ("vit_tiny_patch16_224",), options, state)
    if nets.network(name) is not None:
        return None
    config.pop("pretrained", None)  # the weights are ours
    if config.pop("channels", 3) != 3:
        config["in_chans"] = encoder.channels
    return Network("timm.create_model", (name,), {**config, "num_classes": 0}, encoder.net.state_dict(),
                   normalised=bool(encoder.normalised))


def torchvision(encoder):
    """As `timm`. torchvision has our ResNet-18 but for the stem, and timm's ResNets, with the same names."""
    from torchvision import models

    config = dict(encoder.config)
    config.pop("pretrained", None)
    name = config.pop("name").partition(".")[0]  # what follows the dot names timm's weights
    headless = (("fc", "Identity", (), {}, "features, no classes"),)
    if name == "resnet18":
        return Network("torchvision.models.resnet18", (), {"weights": None}, resnet18(encoder), headless + stem(encoder))
    if name.startswith(("resnet", "resnext", "wide_resnet")) and name in models.list_models() and not config:
        return Network(f"torchvision.models.{name}", (), {"weights": None}, encoder.net.state_dict(), headless)


def stem(encoder):
    """Ours differs from the usual network only in its stem, 3×3 of stride 1 and no max-pooling: the CIFAR convention."""
    return (("conv1", "Conv2d", (encoder.channels, 64, 3, 1, 1), {"bias": False}, "the stem for small images has stride 1"),
            ("maxpool", "Identity", (), {}, "and no max-pooling"))


def resnet18(encoder):
    """The state dict of our ResNet-18 as torchvision and timm name it."""
    names = {"stem.0": "conv1", "stem.1": "bn1", **{f"stages.{i}": f"layer{i + 1}" for i in range(4)}}
    return {next(theirs + key[len(ours):] for ours, theirs in names.items() if key.startswith(ours + ".")): value
            for key, value in encoder.state_dict().items()}
