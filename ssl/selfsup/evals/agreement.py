"""Labels that two modalities agree on, without any given: how near are they to the classes (de Sa 1993)?

Beside them what k-means finds in either modality alone, and what LVQ learns from the labels that there are.
https://papers.nips.cc/paper/831
"""

from types import SimpleNamespace
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from selfsup.arguments import Count, Range
from selfsup.core import cluster, rng
from selfsup.evals import accuracy, percent

title = "Agreement"
column = False                                           # other methods give no labels
parts = ("sound", "image_labels", "sound_labels")        # of the encoder folder, besides the encoder
columns = ("sound",)                                       # of the data, besides what the encoder takes and the label
SIDES = ("image", "sound")
STARTS = 5                                               # of k-means, of which the densest result counts
ROUNDS, RATE, WINDOW = 20, 0.05, 0.3                     # of LVQ


def choose(encoder, data, sound, image_labels, sound_labels, slices: Count,
           vectors: Annotated[list[Count], Range(min_length=1)]):
    """Chooses on val which class each label stands for, one to one, and how many vectors a class LVQ has, of the list
    `vectors`. k-means and LVQ see pixels, and the log-mel spectrogram's means over so many `slices` of time."""
    nets = (encoder, sound, image_labels, sound_labels)
    train, val = (read(nets, split, slices) for split in (data.train, data.val))
    classes, ways = len(data.card["classes"]), {}
    for side in SIDES:
        x, truth, labels = val[side], val["truth"], val["labels"]
        centroids = densest(train[side], labels)
        tried = {n: lvq(train[side], train["truth"], classes, n) for n in vectors}
        best = max(tried, key=lambda n: (predicted(x, *tried[n]) == truth).mean())
        ways[side] = {"own": named(val[side + "_labels"], truth, labels, classes), "vectors": best, "lvq": tried[best],
                      "k_means": (centroids, named(nearest(x, centroids), truth, labels, classes))}
    own = [ways[side]["own"][val[side + "_labels"]] == val["truth"] for side in SIDES]
    return SimpleNamespace(val_accuracy=percent(own[0].mean()), ways=ways, nets=nets, slices=slices)


def test(encoder, data, chosen, bootstrap):
    """Yields accuracy, low, high (percent, test) of the images' own labels. For `image` and `sound`: the same of
    `own`, `k_means` and `lvq` (how many `vectors` a class), and `nmi` of own labels and classes. `agreement`, the share
    of pairs whose labels are the same; `used`, how many of `labels` the images have."""
    test = read(chosen.nets, data.test, chosen.slices)
    for side in SIDES:
        ways, x, labels = chosen.ways[side], test[side], test[side + "_labels"]
        centroids, names = ways["k_means"]
        said = {"own": ways["own"][labels], "k_means": names[nearest(x, centroids)], "lvq": predicted(x, *ways["lvq"])}
        found = {way: dict(accuracy(names == test["truth"], bootstrap)) for way, names in said.items()}
        if side == "image":
            yield from found["own"].items()
            yield "val_accuracy", chosen.val_accuracy
        nmi = cluster.nmi(torch.from_numpy(labels), torch.from_numpy(test["truth"]))
        yield side, {**found, "vectors": ways["vectors"], "nmi": percent(nmi)}
    yield "agreement", percent((test["image_labels"] == test["sound_labels"]).mean())
    yield "used", len(set(test["image_labels"].tolist()))
    yield "labels", test["labels"]


@torch.no_grad()
def read(nets, split, slices):
    """Of a split, arrays: image (N, pixels) and sound (N, mels · slices), labels of both (N,), truth (N,); and how many
    labels there are."""
    encoder, sound, image_labels, sound_labels = nets
    device, found = next(encoder.parameters()).device, []
    for part in split.in_order(batch=512):
        image, pcm = (part[name].to(device) for name in (encoder.takes, "sound"))
        wave = sound.prepare(pcm)
        spectrogram = sound.spectrogram(wave)
        found.append({"image": image.flatten(1).float() / 255, "truth": part["label"],
                      "sound": F.adaptive_avg_pool2d(spectrogram, (spectrogram.shape[2], slices)).flatten(1),
                      "image_labels": (logits := image_labels(encoder(encoder.prepare(image)))).argmax(1),
                      "sound_labels": sound_labels(sound(wave)).argmax(1)})
    return {name: torch.cat([part[name] for part in found]).cpu().numpy() for name in found[0]} | {
        "labels": logits.shape[1]}


def named(labels, truth, count, classes):
    """Which class each of the labels stands for, (count,): one to one, as many right as can be; -1 for one beyond."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((count, classes), int)
    np.add.at(table, (labels, truth), 1)
    names = np.full(count, -1)
    rows, columns = linear_sum_assignment(-table)
    names[rows] = columns
    return names


def nearest(x, vectors):
    return cluster.assign(torch.from_numpy(x), torch.from_numpy(vectors)).numpy()


def densest(x, count):
    """Centroids (count, d) of k-means from several starts."""
    x = torch.from_numpy(x)
    tried = [cluster.kmeans(x, count, seed) for seed in range(STARTS)]
    return min(tried, key=lambda found: float((x - found[1][found[0]]).square().sum()))[1].numpy()


def lvq(x, truth, classes, each):
    """Labelled vectors (n, d) and their labels (n,): `each` of a class by k-means, then LVQ2.1 (Kohonen 1990). Of a
    sample's two nearest vectors the one of its class comes nearer and the other one goes away, where just one is of its
    class and the sample lies near their border. That can go too far: those of the round with the fewest errors count.
    """
    starts = [cluster.kmeans(torch.from_numpy(some), min(each, len(some)))[1].numpy()
              for some in (x[truth == c] for c in range(classes)) if len(some)]
    of = np.repeat([c for c in range(classes) if (truth == c).any()], [len(some) for some in starts])
    vectors = np.concatenate(starts)
    tried = [vectors.copy()]
    for number in range(ROUNDS if len(of) > 1 else 0):
        for i in rng.permutation(len(x), number).tolist():
            _move(vectors, of, x[i], truth[i], RATE * (1 - number / ROUNDS))
        tried.append(vectors.copy())
    return max(tried, key=lambda found: (predicted(x, found, of) == truth).mean()), of


def _move(vectors, of, x, wanted, rate):
    far = np.sqrt(((x - vectors) ** 2).sum(1))
    a, b = np.argpartition(far, 1)[:2]
    border = min(far[a], far[b]) > (1 - WINDOW) / (1 + WINDOW) * max(far[a], far[b])
    if border and (of[a] == wanted) != (of[b] == wanted):
        right, wrong = (a, b) if of[a] == wanted else (b, a)
        vectors[right] += rate * (x - vectors[right])
        vectors[wrong] -= rate * (x - vectors[wrong])


def predicted(x, vectors, of):
    return of[nearest(x, vectors)]


def notes(report, rows, options):
    yield ("Agreement: the labels that images and sounds agree on, each named one to one after a class, on val; k-means "
           f"and LVQ see pixels, and log-mel spectra of {options['slices']} stretches of time.")


def panel(report, rows, options):
    names = {"own": "its own labels", "k_means": "k-means", "lvq": "LVQ, supervised"}
    cells = [(side, way) for side in SIDES for way in names]
    table = report.crossed(rows, "agreement", lambda content: {
        number: content[side][way] for number, (side, way) in enumerate(cells)},
        lambda number: f"{cells[number][0]}: {names[cells[number][1]]}")
    return report.Panel(
        "agreement", "Labels that two modalities agree on",
        "No label was given. Accuracy on test, where each label stands for the class that fits it best on val: the error "
        "is what is missing to 100 %.", short="Agreement", table=table, sentences=[sentence(row) for row in rows])


def sentence(row):
    seed, result = next(iter(row.results["agreement"]["seeds"].items()))
    return (f"{row.title}, seed {seed}: image and sound agree on {result['agreement']:.1f} % of the pairs, and "
            f"{result['used']} of {result['labels']} labels are used; normalised mutual information with the classes "
            f"{result['image']['nmi']:.1f} % by image, {result['sound']['nmi']:.1f} % by sound.")
