"""What a method is."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..core.precision import float32
from ..inputs.views import View


class Method(nn.Module):
    """A pretext task around an encoder. The trainer calls `forward` (through DDP) and the hooks below; nothing else.

    A method never logs, moves devices or opens files. Everything that changes during training is a parameter or a
    registered buffer, so that a checkpoint holds it. `forward` and `after_step` read no value back from the device and
    make no constant on it from numbers of the host, since a GPU would wait. Under autocast networks alone round: what is
    made of their outputs is `@float32` (core/precision.py), the loss too. A test holds every method to this.

    A subclass's `__init__(self, encoder, **options)` has the paper's values as defaults, with types and ranges
    (`arguments`) against which a run's `args` are held. It may name `card`, to be given the data card (classes, counts,
    size in pixels, vocabulary), and `teacher`, to be given the encoder of the run that `from` names: frozen, images ->
    features (N, teacher.dim), and what else that run's folder holds, see state.Teacher. `teacher=None` asks for none.
    """

    inputs = View()  # what a sample becomes: see views.py
    order = None  # who is in a batch, see data/order.py; every sample once an epoch unless said, here or in __init__
    held_out = True  # False where the objective exists for training images only
    # Whether loss and scalars are means over the images of terms of their own, and `forward` changes no state that it
    # reads (BatchNorm's statistics apart): then a batch's gradient is the mean of its parts' (training/accumulate.py).
    means = False
    sensitive = None  # (argument, second value), tried by `make tune` beside the rate; None: one rate more in its place

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch):
        """{"loss": scalar, other scalars to record}. batch["key"] (N,) seeds a sample's own noise (rng.uniform).

        A loss over a batch's embeddings alone is not written here but as two methods: `project(batch)` gives a tuple of
        tensors in the order of the images, as many rows of each, and `objective(*embeddings)` is what this returns. So a
        batch can be embedded in parts (training/accumulate.py).

        Scalars are recorded as their mean over the steps since the last record. An "embedding" (n, d) beside them is
        what family C has its spread measured of, std and rank; as that is dear, of the recorded step alone."""
        return self.objective(*self.project(batch))

    def before_epoch(self, run):
        """Called before the first step of an epoch. run: training.loop.Epoch."""

    def after_step(self, progress):
        """Called after each optimiser step; progress, a scalar in (0, 1] on the device, is the share of the budget that is
        spent. What it makes a tensor of stays where it is (`copy_`, `fill_`), see training/capture.py."""

    def param_groups(self):
        """Optimiser groups; "lr_scale" multiplies the learning rate (a critic's own rate)."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def parts(self):
        """What the encoder folder holds: name -> module made by nets.build."""
        return {"encoder": self.encoder}

    def pictures(self, batch):
        """Pictures that explain the method, drawn after training from validation images: name -> (3, H, W) or (H, W)
        floats in 0..1. `batch` has been through `inputs`. The default shows the views an image becomes. The docstring of
        this method says of each picture, for who has not read the paper, what its rows and columns are, what black and
        white, as here; the report shows that below it (config/catalogue.py).

        views: A column is an image of val, a row one of the views that training makes of it, and so what the method is
        shown. Colours are stretched: the lowest value of all views is black, the highest white."""
        return {"views": rows(denormalise(batch["image"][:8]))} if "image" in batch else {}

    def texts(self, batch, tokenizer):
        """Tables that explain the method, of the batch that `pictures` is given: name -> (headings, rows of as many
        strings). Asked of methods that read texts; `tokenizer`: of their data."""
        return {}


def denormalise(x):
    """Images for the eye: each (..., C, H, W) stretched to 0..1 over the whole tensor."""
    low, high = x.amin(), x.amax()
    return (x - low) / (high - low).clamp(min=1e-6)


@torch.no_grad()
def rows(x):
    """A sheet (C, H, W) of images (N, C, h, w), one a column, or (N, V, C, h, w), one sample a column, one view a row."""
    if x.dim() == 4:
        x = x[:, None]
    x = F.pad(x.float(), (1, 1, 1, 1), value=1.0)
    n, v, c, h, w = x.shape
    return x.permute(2, 1, 3, 0, 4).reshape(c, v * h, n * w).clamp(0, 1)


@torch.no_grad()
def attention(encoder, x):
    """A sheet of images (N, C, H, W): each, and below it for each head of the encoder's last block how much its patches
    are attended to, on average over those that attend, from black to white. None of an encoder without patches."""
    patch = getattr(encoder, "patch", None)
    if not patch:
        return None
    maps = torch.cat([encoder.attention(one).mean(2) for one in x.split(1)]).float()  # one: heads · patches² numbers
    low, high = maps.amin(2, keepdim=True), maps.amax(2, keepdim=True)
    maps = ((maps - low) / (high - low).clamp(min=1e-12)).unflatten(2, (x.shape[2] // patch, -1))
    maps = maps.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[:, :, None].expand(-1, -1, x.shape[1], -1, -1)
    return rows(torch.cat([denormalise(x)[:, None], maps], 1))


@torch.no_grad()
def affinity(a, b, cell=8):
    """Picture (n·cell, m·cell) of the cosine similarities of unit vectors (n, d) and (m, d): black −1, white 1."""
    similarity = (a.float() @ b.float().T + 1) / 2
    return similarity.clamp(0, 1).repeat_interleave(cell, 0).repeat_interleave(cell, 1)


@torch.no_grad()
@float32
def likely(logits, target, shown, cell=8):
    """Picture (N·cell, L·cell) of the probabilities that logits (N, L, classes) give `target` (N, L): black 0, white 1.
    What is not `shown` (N, L) is black."""
    share = logits.softmax(2).gather(2, target[:, :, None])[:, :, 0] * shown
    return share.repeat_interleave(cell, 0).repeat_interleave(cell, 1)
