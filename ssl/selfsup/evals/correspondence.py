"""Do a picture and a sound belong together, and do they find each other (Arandjelović & Zisserman 2017)?

https://arxiv.org/abs/1705.08168. Nothing is fitted and nothing chosen. The two networks' features do not lie in one
space, so what finds is the score that both get together, of all pairs.
"""

from types import SimpleNamespace
from typing import Annotated

import torch
import torch.nn.functional as F

from selfsup.arguments import Count, Range
from selfsup.core import rng
from selfsup.evals import accuracy, percent

title = "Correspondence"
column = False                                           # other methods have nothing to answer with
parts = ("sound", "fusion")                              # of the encoder folder, besides the encoder
columns = ("sound",)                                       # of the data, besides what the encoder takes and the label
ROWS = 32                                                # images whose pairs with all sounds are scored at once


def choose(encoder, data, sound, fusion, k: Annotated[list[Count], Range(min_length=1, distinct=True)]):
    """Nothing to choose; val_accuracy is the share of val's pairs that are told right.

    sound maps waveforms to features (M, e), and fusion those of images (…, d) and of sounds (…, e) to logits (…, 2)."""
    images, sounds, _ = embedded(encoder, sound, data.val)
    right = told(fusion, images, sounds).mean()
    return SimpleNamespace(val_accuracy=percent(right), k=k, sound=sound, fusion=fusion)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) of telling right pairs from as many wrong ones; `bound`, what who
    knows the class alone can reach: some of the wrong ones are of one class. And of all of test's sounds for an image,
    `sounds`, and images for a sound, `images`, for each k: `precision`, the share of the k best, its own left out, that
    are of its class, and `recall`, how often its own is among the k best; `chance`, both by guessing."""
    images, sounds, labels = embedded(encoder, chosen.sound, data.test)
    yield from accuracy(told(chosen.fusion, images, sounds), bootstrap)
    yield "val_accuracy", chosen.val_accuracy
    share = F.one_hot(labels).double().mean(0)
    same = (share.square().sum() * len(labels) - 1) / max(1, len(labels) - 1)  # of two samples
    yield "bound", percent(1 - same / 2)
    scores = scored(chosen.fusion, images, sounds)
    for name, matrix in (("sounds", scores), ("images", scores.T)):
        yield name, {str(k): found(matrix, labels, k, bootstrap) for k in chosen.k}
    yield "chance", {str(k): {"precision": percent(same), "recall": percent(min(1, k / len(labels)))} for k in chosen.k}


@torch.no_grad()
def embedded(encoder, sound, split):
    """Features of the images (N, d) and sounds (N, e), and labels (N,)."""
    device, found = next(encoder.parameters()).device, []
    for part in split.in_order(batch=512):
        image, pcm, label = (part[name].to(device) for name in (encoder.takes, "sound", "label"))
        found.append([encoder(encoder.prepare(image)), sound(sound.prepare(pcm)), label])
    return [torch.cat(column) for column in zip(*found)]


@torch.no_grad()
def told(fusion, images, sounds):
    """For each image (N,) which share of two questions is answered right: of its own sound and of another one's."""
    order = rng.permutation(len(images), 0).to(images.device)
    other = torch.empty_like(order).scatter(0, order, order.roll(1))
    right = fusion(images, sounds).argmax(1) == 1
    wrong = fusion(images, sounds[other]).argmax(1) == 0
    return (right.double() + wrong.double()) / 2


@torch.no_grad()
def scored(fusion, images, sounds):
    """(N, N): how much more likely than not each image belongs to each sound."""
    logits = [fusion(some[:, None], sounds) for some in images.split(ROWS)]
    return torch.cat([part[..., 1] - part[..., 0] for part in logits])


def found(scores, labels, k, bootstrap):
    """What row i of scores (N, N) finds: its own is column i."""
    own = scores.diagonal()[:, None]
    recall = (scores > own).sum(1) < k
    others = scores.masked_fill(torch.eye(len(scores), dtype=torch.bool, device=scores.device), -torch.inf)
    best = others.topk(min(k, len(scores) - 1), dim=1).indices
    precision = (labels[best] == labels[:, None]).double().mean(1)
    return {"precision": dict(accuracy(precision, bootstrap)), "recall": dict(accuracy(recall, bootstrap))}


def panel(report, rows, options):
    """Correspondence, and retrieval both ways at the first k."""
    k = options["k"][0]
    heads = ["Pairs told right", f"Of its class among the {k} best sounds of an image", f"Its own among these {k}",
             f"Of its class among the {k} best images of a sound", f"Its own among these {k}"]
    table = report.crossed(rows, "correspondence", lambda content: dict(enumerate(
        [content, *(content[way][str(k)][what] for way in ("sounds", "images") for what in ("precision", "recall"))])),
        heads.__getitem__)
    first = next(iter(rows[0].results["correspondence"]["seeds"].values()))
    guess = first["chance"][str(k)]
    return report.Panel(
        "correspondence", "Pictures and their sounds",
        "Whether a picture and a sound belong together, of as many right as wrong pairs, and what finds what by that "
        "score among all of test.", short="Sounds", table=table, sentences=[sentence(row) for row in rows],
        remarks=[f"By guessing: 50 %, {guess['precision']:.1f} % and {guess['recall']:.1f} %."])


def sentence(row):
    result = row.results["correspondence"]
    bound = next(iter(result["seeds"].values()))["bound"]
    return (f"{row.title} tells {result['accuracy']:.1f} % of the pairs right [{result['low']:.1f}, "
            f"{result['high']:.1f}]; who knew the class of both, and nothing else, would {bound:.1f} %.")
