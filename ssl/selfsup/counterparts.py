"""An encoder as other libraries know it: the network of theirs that computes the same, with weights under their names."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from selfsup import nets

RENAMED = {  # in a ViT of timm
    "embed.": "patch_embed.proj.", ".qkv.": ".attn.qkv.", ".out.": ".attn.proj.", ".mlp.0.": ".mlp.fc1.",
    ".mlp.2.": ".mlp.fc2.",
}
IN_TORCHVISION = {  # of a ViT of timm
    "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj.": "conv_proj.",
    "blocks.": "encoder.layers.encoder_layer_", ".norm1.": ".ln_1.", ".norm2.": ".ln_2.",
    ".attn.qkv.": ".self_attention.in_proj_", ".attn.proj.": ".self_attention.out_proj.", ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.3.", "norm.": "encoder.ln.",
}
OUTPUT = ("model(images)", lambda model: model)


@dataclass
class Network:
    """One that another library makes, `maker`(*arguments, **options), and the state dict that makes it ours."""

    maker: str
    arguments: tuple
    options: dict
    state: dict
    swaps: tuple = ()  # (attribute, class in torch.nn, its arguments, its options, why): what takes another's place
    pruned: dict | None = None  # how timm's prune_intermediate_layers(1, …) is called first, if it is
    features: tuple[str, Callable] = OUTPUT  # an expression in `model` and `images`, and model -> the function it is

    def made(self):
        """The model with whatever weights."""
        where, name = self.maker.rsplit(".", 1)
        model = getattr(importlib.import_module(where), name)(*self.arguments, **self.options)
        if self.pruned is not None:
            model.prune_intermediate_layers(1, **self.pruned)
        for attribute, layer, arguments, options, _ in self.swaps:
            setattr(model, attribute, getattr(torch.nn, layer)(*arguments, **options))
        return model

    def build(self):
        """The model with ours."""
        model = self.made()
        model.load_state_dict(self.state)
        return model.eval()

    def lines(self):
        """`made` as text."""
        made = [f"model = {call(self.maker, self.arguments, self.options)}"]
        if self.pruned is not None:
            made.append(call("model.prune_intermediate_layers", (1,), self.pruned))
        made += [f"model.{attribute} = {call(f'torch.nn.{layer}', arguments, options)}  # {why}"
                 for attribute, layer, arguments, options, why in self.swaps]
        return "\n".join(made)

    def fits(self):
        """Whether the other library makes it, and of these very weights."""
        try:
            with torch.device("meta"):
                theirs = self.made().state_dict()
        except (RuntimeError, TypeError, ValueError, KeyError, AssertionError):  # whatever it says of arguments
            return False
        theirs, ours = ({name: value.shape for name, value in state.items()} for state in (theirs, self.state))
        return theirs == ours


def call(maker, arguments, options):
    return f"{maker}({', '.join([*map(repr, arguments), *(f'{key}={value!r}' for key, value in options.items())])})"


def timm(encoder):
    """-> Network, or None for what timm does not have."""
    name, options = described(encoder)
    if name == "vit":
        return vit(encoder)
    if name == "resnet18":
        return Network("timm.create_model", ("resnet18",), {"num_classes": 0}, resnet18(encoder), stem(encoder))
    if nets.network(name) is not None:
        return None
    normalised = bool(encoder.normalised)
    last = (f'model.forward_intermediates(images, norm={normalised}, output_fmt="NCHW", intermediates_only=True)[-1]'
            ".mean((2, 3))")
    return Network("timm.create_model", (name,), {**options, "num_classes": 0}, encoder.net.state_dict(),
                   pruned={"prune_norm": not normalised, "prune_head": True},
                   features=(last, lambda model: lambda x: model.forward_intermediates(
                       x, norm=normalised, output_fmt="NCHW", intermediates_only=True)[-1].mean((2, 3))))


def hf(encoder):
    """-> Network of timm's whose own output is the features, and whose options can be written as JSON: what Hugging
    Face's hub stores, and `transformers` loads. None for what cannot be said so."""
    name, options = described(encoder)
    if name == "vit":
        return vit(encoder)
    if nets.network(name) is not None:
        return None
    average = {"global_pool": "avg"}  # transformers have a class token that they would give else
    for more in ({}, average, {**average, "fc_norm": False}, {**average, "use_fc_norm": False}):
        network = Network("timm.create_model", (name,), {**options, **more, "num_classes": 0}, encoder.net.state_dict())
        if network.fits() and close(encoder, network.build()):
            return network


def torchvision(encoder):
    """As `timm`. torchvision has our ResNet-18 but for the stem, some networks that timm has under the same names, with
    the same names of weights, and timm's plain ViTs under others."""
    from timm.models.vision_transformer import VisionTransformer
    from torchvision import models

    name, options = described(encoder)
    if name == "resnet18":
        swaps = headless("fc") + stem(encoder)
        return Network("torchvision.models.resnet18", (), {"weights": None}, resnet18(encoder), swaps)
    if nets.network(name) is not None:
        return None
    name, channels = name.partition(".")[0], options.pop("in_chans", 3)  # what follows the dot names timm's weights
    if isinstance(encoder.net, VisionTransformer):
        network = plain_vit(encoder)
    elif name not in models.list_models(module=models) or options:
        return None
    else:
        swaps = headless("fc" if name.startswith(("res", "wide_res")) else "classifier")
        if name.startswith("vgg"):
            swaps += (("avgpool", "AdaptiveAvgPool2d", (1,), {}, "the mean over the map"),)
        if channels != 3:
            first = encoder.net.conv1 if hasattr(encoder.net, "conv1") else None
            swaps += () if first is None else (convolution("conv1", first),)
        network = Network(f"torchvision.models.{name}", (), {"weights": None}, encoder.net.state_dict(), swaps)
    return network if network and network.fits() else None


KNOWN = {"timm": timm, "torchvision": torchvision, "hf": hf}


def described(encoder):
    """The encoder's name and, in timm's words, the arguments it was built with."""
    options = {key: value for key, value in encoder.config.items() if key not in ("name", "pretrained")}
    if options.pop("channels", 3) != 3:
        options["in_chans"] = encoder.channels
    return encoder.config["name"], options


@torch.no_grad()
def close(encoder, model, tolerance=1e-4):
    """Whether they give the same features, to the `tolerance` of the largest."""
    wanted, got = (of(example(encoder)) for of in (encoder, model))
    return wanted.shape == got.shape and bool((got - wanted).abs().max() <= tolerance * wanted.abs().max())


def example(encoder):
    """Three images of noise."""
    return torch.randn(3, encoder.channels, encoder.size, encoder.size, generator=torch.Generator().manual_seed(0))


def headless(attribute):
    return ((attribute, "Identity", (), {}, "features, no classes"),)


def convolution(attribute, like):
    """A swap for one of other channels."""
    sizes = (like.in_channels, like.out_channels, *(side[0] for side in (like.kernel_size, like.stride, like.padding)))
    return (attribute, "Conv2d", sizes, {"bias": like.bias is not None}, f"images have {like.in_channels} channels")


def vit(encoder):
    """Our small ViT is one of timm's: without class token, with the mean over patches, normalised first, as features.
    Of timm's those made for CLIP have LayerNorms with our epsilon, and but for it a norm before the blocks."""
    options = {"img_size": encoder.grid * encoder.patch, "patch_size": encoder.patch, "embed_dim": encoder.dim,
               "depth": len(encoder.blocks), "num_heads": encoder.blocks[0].heads, "in_chans": encoder.channels,
               "num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": False, "pre_norm": False}
    state = {"pos_embed": encoder.position[None]}
    for key, value in encoder.state_dict().items():
        state[renamed(key, RENAMED)] = value
    return Network("timm.create_model", ("vit_xsmall_patch16_clip_224",), options, state)


def renamed(key, names):
    for ours, theirs in names.items():
        key = key.replace(ours, theirs) if ours.startswith(".") or key.startswith(ours) else key
    return key


def plain_vit(encoder):
    """A ViT of timm's with a class token and nothing that the first ViT had not, in torchvision; None for others."""
    net = encoder.net
    if not getattr(net, "num_prefix_tokens", 0) == 1 or not hasattr(net.blocks[0], "attn"):
        return None
    options = {"image_size": encoder.size, "patch_size": net.patch_embed.patch_size[0], "num_layers": len(net.blocks),
               "num_heads": net.blocks[0].attn.num_heads, "hidden_dim": encoder.dim,
               "mlp_dim": net.blocks[0].mlp.fc1.out_features}
    state = {renamed(key, IN_TORCHVISION): value for key, value in net.state_dict().items()}
    swaps = headless("heads")
    if encoder.channels != 3:
        swaps += (convolution("conv_proj", net.patch_embed.proj),)
    tokens = "torch.cat([model.class_token.expand(len(images), -1, -1), model._process_input(images)], 1)"
    return Network("torchvision.models.VisionTransformer", (), options, state, swaps,
                   features=(f"model.encoder({tokens})[:, 1:].mean(1)", lambda model: lambda x: model.encoder(
                       torch.cat([model.class_token.expand(len(x), -1, -1), model._process_input(x)], 1))[:, 1:].mean(1)))


def stem(encoder):
    """Ours differs from the usual network only in its stem, 3×3 of stride 1 and no max-pooling: the CIFAR convention."""
    return (("conv1", "Conv2d", (encoder.channels, 64, 3, 1, 1), {"bias": False}, "the stem for small images has stride 1"),
            ("maxpool", "Identity", (), {}, "and no max-pooling"))


def resnet18(encoder):
    """The state dict of our ResNet-18 as torchvision and timm name it."""
    names = {"stem.0": "conv1", "stem.1": "bn1", **{f"stages.{i}": f"layer{i + 1}" for i in range(4)}}
    return {next(theirs + key[len(ours):] for ours, theirs in names.items() if key.startswith(ours + ".")): value
            for key, value in encoder.state_dict().items()}
