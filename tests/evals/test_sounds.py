"""The two protocols of pictures with sounds, against loops, on features that say what they are told."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from selfsup import evals, nets
from selfsup.evals import agreement, correspondence

N, CLASSES = 60, 3


class Seen(torch.nn.Module):
    """An encoder whose features are the three pixels of a picture."""

    takes = "image"

    def __init__(self):
        super().__init__()
        self.scale, self.dim = torch.nn.Parameter(torch.ones(1)), 3

    def prepare(self, column):
        return column.float() / 255

    def forward(self, x):
        return x.flatten(1) * self.scale


class Heard(Seen):
    """A part whose features, and whose spectrogram, are the three numbers of a sound."""

    def prepare(self, column):
        return column[:, 0].float() / 255

    def spectrogram(self, wave):
        return wave[:, None, :, None].expand(-1, 1, 3, 4)


class Split:
    def __init__(self, seed):
        random = torch.Generator().manual_seed(seed)
        self.label = torch.randint(CLASSES, (N,), generator=random)
        one = torch.nn.functional.one_hot(self.label, CLASSES).float()
        image, sound = (120 * one + 100 * torch.rand(N, 3, generator=random) for _ in range(2))
        self.values = {"image": image.byte()[:, :, None, None], "sound": sound.short()[:, None], "label": self.label}
        self.reads = 0

    def in_order(self, batch=512):
        self.reads += 1
        for rows in torch.arange(N).split(25):
            yield {name: value[rows] for name, value in self.values.items()}


@pytest.fixture
def data():
    splits = {split: Split(seed) for seed, split in enumerate(("train", "val", "test"))}
    return SimpleNamespace(card={"classes": list("abc")}, **splits)


@pytest.fixture
def fusion():
    """Says yes where the classes are the same, as nearly as three numbers tell."""
    torch.manual_seed(0)
    net = nets.build("fusion", image=3, sound=3, hidden=64)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(150):
        label = torch.randint(CLASSES, (2, 256))
        image, sound = ((120 * torch.nn.functional.one_hot(y, CLASSES) + 100 * torch.rand(256, 3)) / 255 for y in label)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(image, sound), (label[0] == label[1]).long()).backward()
        optimizer.step()
    return net


def test_correspondence_and_retrieval_in_loops(data, fusion):
    encoder, sound = Seen(), Heard()
    found = dict(evals.run("correspondence", encoder, data, 50, sound=sound, fusion=fusion, k=[5, 1]))
    assert data.train.reads == 0 and data.test.reads == 1, "nothing is fitted, and test is read once"
    with torch.no_grad():
        image, heard, y = correspondence.embedded(encoder, sound, data.test)
        yes = torch.tensor([-1.0, 1.0])
        score = np.array([[float(fusion(a[None], b[None])[0] @ yes) for b in heard] for a in image])
    y = y.tolist()
    same = np.mean([y[i] == y[j] for i in range(N) for j in range(N) if i != j])
    assert found["bound"] == pytest.approx(100 - 50 * same, abs=.01)
    assert 75 < found["accuracy"] < 100 and found["low"] <= found["accuracy"] <= found["high"]
    for way, matrix in (("sounds", score), ("images", score.T)):
        precision, recall = [], []
        for i in range(N):
            order = sorted(range(N), key=lambda j: -matrix[i, j])
            recall.append(i in order[:5])
            precision.append(np.mean([y[j] == y[i] for j in [j for j in order if j != i][:5]]))
        assert found[way]["5"]["precision"]["accuracy"] == pytest.approx(100 * np.mean(precision), abs=.5)
        assert found[way]["5"]["recall"]["accuracy"] == pytest.approx(100 * np.mean(recall), abs=.01)
        assert found[way]["5"]["precision"]["accuracy"] > 2 * found["chance"]["5"]["precision"]
    assert found["chance"]["5"]["recall"] == pytest.approx(100 * 5 / N, abs=.01)


def test_a_wrong_pair_is_never_a_right_one(fusion):
    """A fusion that knows samples, not classes: right on all, so that no pair can be both."""
    ones = torch.eye(8)
    yes = torch.nn.Module()
    yes.forward = lambda a, b: torch.stack([.5 - (a * b).sum(-1), (a * b).sum(-1) - .5], -1)
    assert correspondence.told(yes, ones, ones).tolist() == [1] * 8
    always = torch.nn.Module()
    always.forward = lambda a, b: torch.tensor([0.0, 1.0]).expand(*(a[..., 0] * b[..., 0]).shape, 2)
    assert correspondence.told(always, ones, ones).tolist() == [.5] * 8


def labelling(order):
    head = torch.nn.Linear(3, 3, bias=False)
    head.weight.data = torch.eye(3)[order]
    return head


def test_labels_are_named_on_val_and_judged_on_test(data):
    encoder, sound = Seen(), Heard()
    heads = {"image_labels": labelling([2, 0, 1]), "sound_labels": labelling([2, 0, 1])}  # label 0 is class 2 …
    found = dict(evals.run("agreement", encoder, data, 50, sound=sound, **heads, slices=2, vectors=[1, 3]))
    assert data.test.reads == 1
    with torch.no_grad():
        said = [h(net(net.prepare(data.test.values[c]))).argmax(1).numpy() for h, net, c in (
            (heads["image_labels"], encoder, "image"), (heads["sound_labels"], sound, "sound"))]
    truth = data.test.label.numpy()
    expected = [100 * (np.array([2, 0, 1])[labels] == truth).mean() for labels in said]
    assert found["accuracy"] == pytest.approx(expected[0], abs=.01)
    assert found["sound"]["own"]["accuracy"] == pytest.approx(expected[1], abs=.01)
    assert found["agreement"] == pytest.approx(100 * (said[0] == said[1]).mean(), abs=.01)
    assert found["used"] == found["labels"] == 3 and found["image"]["vectors"] in (1, 3)
    for side in ("image", "sound"):
        assert found[side]["lvq"]["accuracy"] > 85 and found[side]["k_means"]["accuracy"] > 70


def test_agreeing_on_one_label_is_no_accuracy(data):
    blind = torch.nn.Linear(3, 3)
    blind.weight.data.zero_()
    blind.bias.data = torch.tensor([0.0, 1, 0])
    heads = {"image_labels": blind, "sound_labels": blind}
    found = dict(evals.run("agreement", Seen(), data, 50, sound=Heard(), **heads, slices=2, vectors=[1]))
    assert found["agreement"] == 100 and found["used"] == 1 and found["accuracy"] < 50 and found["image"]["nmi"] < 1


def test_names_are_one_to_one_and_the_best_there_are():
    labels, truth = np.random.default_rng(0).integers(5, size=200), np.random.default_rng(1).integers(3, size=200)
    names = agreement.named(labels, truth, 5, 3)
    table = np.array([[((labels == a) & (truth == b)).sum() for b in range(3)] for a in range(5)])
    rows, columns = linear_sum_assignment(-table)
    assert (names[labels] == truth).sum() == table[rows, columns].sum() and sorted(names) == [-1, -1, 0, 1, 2]


def test_lvq_moves_the_border_to_where_the_classes_meet():
    """k-means' vectors lie in the middle of each class; of a narrow and a wide one the border is near the narrow."""
    generator = np.random.default_rng(0)
    y = generator.integers(2, size=600)
    x = np.stack([np.where(y == 0, generator.normal(0, .3, 600), generator.normal(3, 1.5, 600)),
                  generator.normal(0, .1, 600)], 1).astype(np.float32)
    plain = [agreement.predicted(x, np.stack([x[y == c].mean(0) for c in (0, 1)]), np.arange(2)), y]
    learned = [agreement.predicted(x, *agreement.lvq(x, y, 2, 1)), y]
    assert np.mean(np.equal(*learned)) > np.mean(np.equal(*plain)) + .02
