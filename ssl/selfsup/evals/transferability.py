"""How general each layer is: the first n of an encoder, beneath others that are drawn anew (Yosinski et al. 2014,
section 2).

https://arxiv.org/abs/1411.1792. With base A an encoder trained on the labels of one data set and B the data set that it
is judged on, the paper's AnB keeps n layers of A as they are and trains the others on B; AnB+ trains all of them. Where
A was trained on B itself, these are its controls BnB and BnB+: what co-adapted layers lose by being parted. Of an
encoder that nobody trained it is the paper's section 4.3, random weights beneath.
"""

import copy
from types import SimpleNamespace
from typing import Annotated, Literal

import torch

from selfsup.arguments import Batch, Count, NotNegative, Positive, Range, Share
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.evals import accuracy, embed, percent
from selfsup.evals.finetune import Together, layers, tune

title = "Best depth to transfer"
column = False                                           # but a figure of its own
elsewhere = True
WAYS = {"frozen": "kept", "tuned": "trained on"}


def choose(
    encoder,
    data,
    images: Count,
    batch: Batch,
    optimizer: Literal["adamw", "sgd"],
    lr: Annotated[list[Positive], Range(min_length=1)],
    weight_decay: NotNegative,
    warmup: Share,
    clip: NotNegative,
):
    """For n from 0, all anew, to the number of layers, and both ways: the network after `images` augmented images of
    train, with the rate of best accuracy on val. The budget should be the base's own: with less, the layers above would
    be worse than its were. What is frozen keeps BatchNorm's statistics, too."""
    budget = dict(images=images, batch=batch, optimizer=optimizer, weight_decay=weight_decay, warmup=warmup, clip=clip)
    order = layers(encoder, data.train)
    found = {way: {} for way in WAYS}
    for n in range(len(order) + 1):
        start = renewed(encoder, sum(order[n:], []), data.seed)
        for way, kept in (("frozen", n), ("tuned", 0)):
            anew = n == 0 and way == "tuned"             # which is the one before
            found[way][n] = found["frozen"][0] if anew else tune(start, data.train, data.val, lr, freeze=kept, **budget)
    way, n = max(((way, n) for way in WAYS for n in found[way]), key=lambda place: found[place[0]][place[1]][1])
    return SimpleNamespace(val_accuracy=percent(found[way][n][1]), way=way, layers=n, found=found)


def test(encoder, data, chosen, bootstrap):
    """Yields of what is best on val accuracy, low, high (percent, test), val_accuracy, `way` and `layers`, how many;
    then `frozen` (AnB, BnB) and `tuned` (AnB+, BnB+), each {layers: accuracy, low, high, val_accuracy, lr}."""
    each = [(way, n, *found) for way in WAYS for n, found in chosen.found[way].items()]
    outputs, truth = embed(Together(*(net for _, _, net, _, _ in each)), data.test)
    results = {way: {} for way in WAYS}
    for (way, n, _, val, rate), logits in zip(each, outputs.chunk(len(each), 1)):
        results[way][str(n)] = {**dict(accuracy(logits.argmax(1) == truth, bootstrap)), "val_accuracy": percent(val),
                                "lr": rate}
    for name in ("accuracy", "low", "high", "val_accuracy"):
        yield name, results[chosen.way][str(chosen.layers)][name]
    yield "way", chosen.way
    yield "layers", chosen.layers
    yield from results.items()


def renewed(encoder, names, seed):
    """A copy whose modules of these names are drawn anew: not as the base was, whatever its seed."""
    net = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.key(seed, 1))
        for name in names:
            module = net.get_submodule(name)
            if not hasattr(module, "reset_parameters"):
                raise UserError(f"protocols.transferability: {name} of the encoder cannot be drawn anew")
            module.reset_parameters()
    return net


def notes(report, rows, options):
    yield ("Best depth to transfer: how many of the encoder's first layers are kept, the others being drawn anew and "
           f"trained on the labels for {options['images']:,} images seen; of all depths, kept as they are or trained on, "
           "the best on val.")


def panel(report, rows, options):
    def lines(content):
        return {said: content[way] for way, said in WAYS.items()}

    return report.by_depth(
        rows, "transferability", lines, "layers kept", name="transferability", title="How general each layer is",
        text="The first layers of an encoder beneath others that are drawn anew and trained on the labels of the data "
             "set: kept as they are (AnB of Yosinski et al. 2014; BnB where the encoder was trained on that data set), or "
             "trained on with the others (AnB+, BnB+). At 0 nothing is kept.",
        remarks=["What BnB loses was co-adapted: layers that only those above them could use. What AnB loses beyond that "
                 "was specific to the other task."])
