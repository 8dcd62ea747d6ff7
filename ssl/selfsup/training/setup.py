"""What a run trains: its method around an encoder, with inputs that its data have."""

import inspect
from dataclasses import replace

import torch

from .. import methods, nets
from ..data import columns
from ..errors import UserError, nearest
from .state import Teacher


def accelerator(train, cpu=False):
    """Accelerate's, at the precision of config.Train. Autocast casts a weight wherever it is used, and keeps no casts: a
    step that is captured (capture.py) has no place for them, and a weight's gradients are then summed in float32."""
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs

    kept = [AutocastKwargs(cache_enabled=False)]
    return Accelerator(cpu=cpu, mixed_precision="bf16" if train.precision == "bf16" else "no", kwargs_handlers=kept)


def seen(run, card):
    """The data card as what a run trains sees it: `size` is that of its views, where these have one of their own."""
    size = getattr(inputs_of(run), "size", None)
    return {**card, "size": size} if size else card


def build(run, seed, card, start=None):
    """The method of `run` around a fresh encoder, initialised from the seed alone, and by `start` if it has weights.

    An argument may be one of its `__init__`, a field of its `inputs`, as in {augment: moco_v1}, or both.
    """
    torch.manual_seed(seed)
    card = seen(run, card)
    cls = methods.load(run.method)
    takes = inspect.signature(cls.__init__).parameters
    extra = {"card": card} if "card" in takes else {}
    if "teacher" in takes:
        if start is not None and start.teacher is not None:
            extra["teacher"] = Teacher(start.teacher, card, **start.parts)
        elif takes["teacher"].default is inspect.Parameter.empty:
            raise UserError(f"method {run.method} needs another run's encoder: name that run as runs.{run.name}.from")
    if "pretrained" in run.encoder:
        raise UserError(f"runs.{run.name}.encoder.pretrained is now the run's own: `init: timm`")
    own = {name: value for name, value in run.args.items() if name in takes}
    net = nets.build(**run.encoder, card=card)
    if start:
        start.initialise(net)
        nets.normalise(net, card)  # again: what it starts from may hold the numbers of other data
    check_fits(run, net)
    method = cls(net, **extra, **own)
    method.inputs = inputs_of(run, method.inputs)
    return method


def inputs_of(run, inputs=None):
    """What the run's samples become: the method's inputs, with those of `run.args` that are fields of theirs, and the
    column that the run's encoder takes where theirs is not the method's to say."""
    inputs = inputs or methods.load(run.method).inputs
    column = {"column": nets.takes(run.encoder["name"])} if hasattr(inputs, "column") else {}
    return replace(inputs, **column, **{name: value for name, value in run.args.items() if hasattr(inputs, name)})


def check_fits(run, net):
    """UserError where the run's method has nothing to feed its encoder: of a video each frame is an image."""
    given = inputs_of(run).columns
    if net.takes not in given and not (net.takes == "image" and "frames" in given):
        raise UserError(f"runs.{run.name}.encoder.name: {run.encoder['name']} takes the column '{net.takes}', and method "
                        f"{run.method} reads {', '.join(given)}")


def check_columns(run, wanted, card):
    columns.refuse_judges(run.method, wanted)
    for column in wanted:
        if column not in card["columns"]:
            raise UserError(
                f"method {run.method} needs the column '{column}', which data set {run.data} does not have "
                f"(it has {', '.join(card['columns'])}){nearest(column, card['columns'])}"
            )
