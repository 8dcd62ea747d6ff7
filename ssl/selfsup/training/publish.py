"""What a training leaves behind: the encoder folder, complete or not at all."""

import io
import json
import os
import shutil

import torch

from .. import data, encoder
from ..core import distributed, files
from ..data import columns
from ..methods import base
from .checkpoint import settings
from .setup import seen


def describe(run, seed, card, method, steps, code, start):
    """The facts of encoder.json."""
    taken = columns.of(card).get(method.encoder.takes)
    size = seen(run, card)["size"]
    ordinary = taken in (None, columns.picture(size))  # else `embed` needs to know how its files are read
    info = {} if ordinary else {"column": taken.entry()}
    info |= {"dim": method.encoder.dim, "mean": card["mean"], "std": card["std"], "size": size}
    info |= {"run": run.name, "method": run.method, "seed": seed, "data": {"name": run.data, "hash": card["hash"]}}
    info |= {"args": run.args, "train": settings(run.train), "images": steps * run.train.batch, "steps": steps}
    info |= {"code": code, "classes": card["classes"]} | ({} if run.labels is None else {"labels": run.labels})
    return info | start.described()


@torch.no_grad()
def shown(method, shards, cache, prepare, count=16):
    """What explains the method: its pictures of validation samples, with what a transformer's patches attend to, and
    its tables of texts."""
    name = "val" if data.tars.card_of(shards)["counts"]["val"] else "train"
    split = data.open(shards, name, reader="auto", cache=cache, columns=method.inputs.columns)
    with distributed.alone():
        batch = prepare(next(iter(split.in_order(count))))
        pictures = method.pictures(batch)
        if "attention" not in pictures and (attended := attention(method, batch)) is not None:
            pictures = {**pictures, "attention": attended}
        return pictures, method.texts(batch, split.tokenizer) if split.tokenizer else {}


def attention(method, batch, count=8):
    """methods.base.attention of what the encoder is given, an image's first view; None where that has no patches."""
    x = batch.get("image")
    if x is None or x.dim() not in (4, 5) or method.encoder.takes != "image":
        return None
    return base.attention(method.encoder, (x[:, 0] if x.dim() == 5 else x)[:count])


def publish(method, info, progress, images, texts, out):
    """Write the encoder folder under another name, then rename it: nobody sees half of one."""
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        encoder.save(temporary, method.parts(), info)
        for name, rows in (("history", progress.history), ("judged", progress.judged)):
            if rows or name == "history":
                files.write(temporary / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        (temporary / "pictures").mkdir()
        if texts:
            told = {name: {"headings": heads, "rows": rows} for name, (heads, rows) in texts.items()}
            files.write(temporary / "texts.json", json.dumps(told, indent=1) + "\n")
        for name, image in images.items():
            files.write(temporary / f"pictures/{name}.png", _png(image))
        shutil.rmtree(out, ignore_errors=True)
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _png(image):
    from PIL import Image

    pixels = (image.float().cpu().clamp(0, 1) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels).save(file, "PNG")
    return file.getvalue()
