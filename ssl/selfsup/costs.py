"""What an encoder costs: parameters, multiply-adds, and the memory that training keeps for the way back, counted while it
runs on tensors without content; the catalogue of encoders, and a warning before a training whose images are too much."""

import inspect
import os
import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from selfsup import nets
from selfsup.config import signature
from selfsup.errors import UserError

SIZES = (32, 64, 224)  # pixels
TOKENS = 1024  # above which attention, which compares each with each, is what an image costs
LARGE = 2**19  # pixels of a batch of small images, below which it fits anywhere and nothing need be counted


@dataclass
class Cost:
    """Of an image, forwards: multiply-adds, bytes kept for the way back in float32, tokens that attend to each other
    (None of an encoder without)."""

    parameters: int
    multiply_adds: int
    kept: int
    tokens: int | None


class _Attention(TorchFunctionMode):
    """Attention as its fused kernels do it on other devices than this one: they keep no matrix of all pairs of tokens."""

    multiply_adds = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        q, k, v = args[:3]
        self.multiply_adds += q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return _Fused.apply(q, k, v)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


def cost(name, size, channels=3, **arguments):
    """The Cost of the encoder `name` of images, of `size` pixels a side. Raises UserError as nets.build."""
    from torch.utils.flop_counter import FlopCounterMode

    card = {"size": size, "channels": channels, "mean": [0.5] * channels, "std": [0.25] * channels}
    kept, count = {}, 8  # images: what a batch keeps but once should not count
    with torch.device("meta"):
        net = nets.build(name, card, **arguments).train()
        own = {value.untyped_storage()._cdata for value in net.parameters()}

        def keep(value):
            storage = value.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return value

        x = torch.zeros(count, channels, size, size)
        with FlopCounterMode(display=False) as counter, _Attention() as attention:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
                net(x)
    patch = getattr(net, "patch", None)
    tokens = (size // patch) ** 2 if patch else None
    return Cost(sum(value.numel() for value in net.parameters()),
                (counter.get_total_flops() // 2 + attention.multiply_adds) // count,
                sum(storage.nbytes() for storage in kept.values()) // count, tokens)


def warn(run, inputs, card, memory, processes=1):
    """Sentences on what will take more than its user may think. inputs: of the run's method, which knows how many views
    of an image there are; card: of the data, with the `size` that the encoder sees; memory: of the device, in bytes."""
    views, size = getattr(inputs, "count", 2 if hasattr(inputs, "small") else 1), card.get("size")
    batch = run.train.batch // processes // (run.train.accumulate or 1)
    if nets.takes(run.encoder["name"]) != "image" or not size or size < 64 and batch * views * size**2 < LARGE:
        return
    arguments = {key: value for key, value in run.encoder.items() if key not in ("name", "channels", "size")}
    found = cost(run.encoder["name"], size, card["channels"], **arguments)
    if (found.tokens or 0) > TOKENS:
        key = "patch" if run.encoder["name"] == "vit" else "patch_size"
        sides = (side for side in (2, 4, 8, 16, 32, 64) if size % side == 0)
        patch = next((side for side in sides if (size // side) ** 2 <= TOKENS / 2), None)
        better = f": `{key}: {patch}` makes {(size // patch) ** 2:,} of it" if patch else ""
        yield (f"an image of {size} pixels is {found.tokens:,} tokens to {run.encoder['name']}, each of which attends to "
               f"all others{better}")
    kept = found.kept * batch * views // (2 if run.train.precision == "bf16" else 1)
    if kept > memory:
        yield (f"{run.encoder['name']} keeps up to {kept / 1e9:,.0f} GB of a batch for the way back, and there are "
               f"{memory / 1e9:,.0f}: lower train.batch, set train.accumulate, or `size` of the data")


def memory(device):
    """Bytes of memory that a device has, all of them."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# The catalogue


def names():
    """Our encoders, those of images first."""
    return sorted(nets.names(), key=lambda name: (nets.takes(name) != "image", nets.takes(name), name))


def summary(name):
    """What an encoder's file says first."""
    return " ".join(sys.modules[nets.network(name).__module__].__doc__.split())


def arguments(name):
    """{argument: (type, default)} of one of ours, inspect.Parameter.empty where there is none."""
    given = inspect.signature(nets.network(name)).parameters.values()
    return {one.name: (one.annotation, one.default) for one in given}


def rows(name):
    """Lines on what the encoder `name` costs at SIZES, with the arguments that it has unless others are given."""
    given = {"half": {"name": "convnet"}} if name == "split" else {}
    for size in SIZES:
        try:
            found = cost(name, size, **given)
        except UserError as error:
            yield f"{size} px", str(error)
            continue
        tokens = f", {found.tokens:,} tokens" if found.tokens else ""
        yield f"{size} px", (f"{million(found.parameters)} M parameters, {million(found.multiply_adds)} M multiply-adds an "
                             f"image, {million(found.kept)} MB kept for the way back{tokens}")


def million(number):
    """In millions, three digits of it: "0.979", "27.2", "1,820"."""
    value = number / 1e6
    return f"{value:,.{max(0, 2 - len(str(int(value))) + (value >= 1))}f}" if value >= 1 else f"{value:.3g}"


def entry(name, full=False):
    """(the encoder's summary, [(heading, line)]); `full` with the type of each argument."""
    if nets.network(name) is None:
        nets.maker(name)  # UserError where timm knows none of this name
        told = "those of timm.create_model that are numbers or words, as patch_size, depth, drop_path_rate"
        return "One of timm's models, up to its last feature map.", [("arguments", told), *rows(name)]
    known = arguments(name)
    told = [key if default is inspect.Parameter.empty else f"{key}={default!r}" for key, (_, default) in known.items()]
    lines = [("takes", nets.takes(name))] if nets.takes(name) != "image" else []
    if full:
        lines += [("" if i else "arguments", f"{text:16}  {signature.words(kind)}".rstrip())
                  for i, (text, (kind, _)) in enumerate(zip(told, known.values()))]
    else:
        lines += [("arguments", ", ".join(told))]
    return summary(name), lines + (list(rows(name)) if nets.takes(name) == "image" else [])
