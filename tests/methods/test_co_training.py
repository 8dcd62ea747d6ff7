"""Co-training: who labels what for whom, by two sides of a sample."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods.co_training import CoTraining, Sides, chosen

N = 400
CARD = {"classes": ["a", "b"], "counts": {"train": N}, "vocabulary": 20, "size": 16}


def build(norm="group", **args):
    torch.manual_seed(0)
    return CoTraining(nets.build("split", half={"name": "convnet", "width": 4, "norm": norm}), CARD, **args)


def test_each_side_labels_what_it_is_surest_of_of_each_class():
    one = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55], [0.6, 0.4]])
    two = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]])
    # One chooses 0 for class a and 2 for b; two chooses 4 for a and 3 for b.
    assert chosen([one, two], 1).tolist() == [0, -1, 1, 1, 0]
    # Two and two: both choose 0, one for a (.9) and two for b (.8): the surer one is heard.
    assert chosen([one, two], 2).tolist() == [0, 0, 1, 1, 0]
    uniform = torch.full((5, 2), 0.5)
    assert (chosen([uniform, uniform], 1) >= 0).sum() == 1  # of a class that nobody says there is none


def test_both_sides_are_the_classifier():
    """The product of what both say: their logits add up to those of the linear layer that is judged."""
    method, x = build().eval(), torch.randn(3, 3, 16, 16)
    first, second = method.logits({"image": x})
    torch.testing.assert_close(first + second, method.classifier(method.encoder(x)))
    posterior = (first.softmax(1) * second.softmax(1)).argmax(1)
    assert torch.equal(posterior, method.classifier(method.encoder(x)).argmax(1))
    method.encoder.lab = lambda images: (images[:, :1], images[:, 1:])
    changed = torch.cat([x[:, :1], torch.randn(3, 2, 16, 16)], 1)
    assert torch.equal(method.logits({"image": changed})[0], method.logits({"image": x})[0])  # a side sees its own alone
    assert not torch.equal(method.logits({"image": changed})[1], method.logits({"image": x})[1])


def test_loss_against_loops():
    method = build(ratio=2).eval()
    method.label[[5, 7]] = torch.tensor([1, 0])
    index, label = torch.tensor([0, 5, 6, 1, 7, 8]), torch.tensor([1, -1, -1, 0, -1, -1])
    x = torch.randn(6, 3, 16, 16)
    expected = 0.0
    for z in method.logits({"image": x}):
        says = -z.log_softmax(1)
        expected += (says[0, 1] + says[3, 0]) / 2 + (says[1, 1] + says[4, 0]) / 4  # of four others two are known
    out = method({"image": x, "index": index, "label": label})
    torch.testing.assert_close(out["loss"], expected)
    assert out["share_known"] == 0.5
    shown = torch.tensor([1, 0, 0, 0, 1, 1])  # labels of the others are never read
    assert torch.equal(method({"image": x, "index": index, "label": shown})["loss"], out["loss"])


def rounds(sides, given, truth, count):
    """Blum & Mitchell's loop with a table of counts in place of each network: (labels said a round, accuracy of both)."""
    method = build(pool=75, each=2)
    method.label[given] = truth[given]

    def logits():
        known = torch.nn.functional.one_hot(method.label.clamp(min=0), 2) * (method.label >= 0)[:, None]
        return [(torch.zeros(KINDS, 2).index_add_(0, side, known.float()) + 0.1).log()[side] for side in sides]

    said = []
    method.halves = lambda features: logits()
    for epoch in range(1, 1 + count):
        before = method.label.clone()
        run = SimpleNamespace(epoch=epoch, seed=0, embed=lambda: torch.zeros(N, 1), log=lambda **_: None)
        method.before_epoch(run)
        new = before != method.label
        assert (before[new] == -1).all()  # none is labelled twice
        said.append(int(new.sum()))
    posterior = sum(z.log_softmax(1) for z in logits())
    right = (posterior.argmax(1) == truth).float().where(posterior[:, 0] != posterior[:, 1], 0.5)  # who knows nothing guesses
    return said, float(right.mean())


KINDS = 12  # of words on each side, half of them of each class


def test_independent_sides_teach_each_other_and_copies_do_not():
    """Sides that are independent given the class: what one knows tells the other of words that no label has."""
    gain = {"independent": [], "copies": []}
    for seed in range(5):
        torch.manual_seed(seed)
        truth = torch.arange(N) % 2
        one, two = (2 * torch.randint(KINDS // 2, (N,)) + truth for _ in range(2))
        for name, sides in (("independent", (one, two)), ("copies", (one, one))):
            _, before = rounds(sides, torch.arange(4), truth, 0)
            said, after = rounds(sides, torch.arange(4), truth, 8)
            assert all(0 < n <= 2 * 2 * 2 for n in said)  # each side two of each class at most
            gain[name].append(after - before)
    assert min(gain["independent"]) > 0.1 and max(map(abs, gain["copies"])) < 1e-6


def test_what_is_given_is_kept_and_never_said_anew(prepare, card):
    method = build(ratio=1, pool=N, each=1000).train()
    batch = {"image": torch.randn(8, 3, 16, 16), "index": torch.arange(8), "label": torch.tensor([0, 1] * 4)}
    method(batch)
    assert method.label[:8].tolist() == [0, -1, 0, -1, 0, -1, 0, -1]  # the labelled rows', and nobody else's
    first = SimpleNamespace(epoch=0, seed=0, embed=None, log=None)
    method.before_epoch(first)  # who has learned nothing says nothing
    features = torch.randn(N, method.encoder.dim)
    method.before_epoch(SimpleNamespace(epoch=1, seed=0, embed=lambda *_: features, log=lambda **_: None))
    assert (method.label >= 0).all() and method.label[[0, 2, 4, 6]].tolist() == [0, 0, 0, 0]
    one, two = method.halves(features)
    surer = torch.where(one.softmax(1).amax(1) >= two.softmax(1).amax(1), one.argmax(1), two.argmax(1))
    assert torch.equal(method.label[8:], surer[8:])


def test_captions_are_a_second_side():
    torch.manual_seed(0)
    method = CoTraining(nets.build("convnet", width=4, norm="group"), CARD, views="caption", pool=N, each=3).eval()
    batch = {"image": torch.randn(4, 3, 16, 16), "caption": torch.randint(1, 20, (4, 6)), "index": torch.arange(4),
             "label": torch.tensor([0, 1, 0, 1])}
    first, second = method.logits(batch)
    torch.testing.assert_close(first, method.classifier(method.encoder(batch["image"])))
    torch.testing.assert_close(second, method.text_classifier(method.text(batch["caption"])))
    assert set(method.parts()) == {"encoder", "classifier", "text", "text_classifier"}
    assert Sides().columns == ("image", "label") and Sides("caption").columns == ("image", "label", "caption")
    features = {method.encoder.dim: torch.randn(N, method.encoder.dim), method.text.dim: torch.randn(N, method.text.dim)}
    asked = []

    def embed(net=None):
        asked.append(net)
        return features[(net or method.encoder).dim]

    method.before_epoch(SimpleNamespace(epoch=1, seed=0, embed=embed, log=lambda **_: None))
    assert asked == [None, method.text] and 0 < (method.label >= 0).sum() <= 12
    with pytest.raises(UserError, match="co_training by `views: lab` needs the encoder split"):
        CoTraining(nets.build("convnet", width=4), CARD)
    assert F.softmax(first, 1).shape == (4, 2)
