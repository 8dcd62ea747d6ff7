"""Noisy Student: what the teacher says, on what, and which noise there is and when."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.data.order import Labelled, Shuffled
from selfsup.errors import UserError
from selfsup.methods.noisy_student import NoisyStudent, balanced
from selfsup.training.state import Teacher

N = 24
CARD = {"classes": ["a", "b", "c"], "counts": {"train": N}, "mean": [0.5] * 3, "std": [0.25] * 3}


def teacher(**parts):
    torch.manual_seed(7)
    net = nets.build("convnet", width=4)
    net.mean, net.std = CARD["mean"], CARD["std"]
    classifier = nets.build("linear", d_in=net.dim, d_out=3)
    classifier.weight.data.mul_(10)
    return Teacher(net, CARD, **{"classifier": classifier, **parts})


def student(norm="group", **args):
    given = args.pop("teacher", teacher())
    torch.manual_seed(0)
    return NoisyStudent(nets.build("convnet", width=4, norm=norm), CARD, given, **{"least": 0.0, **args})


def taught(method, images):
    logged = {}

    def embed(net):
        with torch.no_grad():
            return net.eval()(images)

    method.before_epoch(SimpleNamespace(epoch=0, embed=embed, log=lambda **row: logged.update(row)))
    return logged


def batch(method, images, index):
    return {"image": images[index], "index": index, "key": rng.key(0, index), "label": torch.arange(len(index)) % 3}


def test_labels_are_the_teachers_of_whole_images_without_noise():
    """Two calls say the same, whatever mode the method is in: no dropout, no augmentation, no statistics of the batch."""
    images, given = torch.randn(N, 3, 16, 16), teacher()
    expected = given.part("classifier")(given(images)).softmax(1)
    for mode in (True, False):
        method = student(teacher=given).train(mode)
        assert taught(method, images)["kept"] == 1
        torch.testing.assert_close(method.said, expected)
    one_by_one = torch.cat([given.part("classifier")(given(image[None])).softmax(1) for image in images])
    torch.testing.assert_close(one_by_one, expected)
    before = method.said.clone()
    taught(method, torch.randn(N, 3, 16, 16))  # said once: the teacher does not change, nor do the images
    assert torch.equal(method.said, before)


def test_loss_against_loops():
    images = torch.randn(N, 3, 16, 16)
    method = student(ratio=2).eval()
    taught(method, images)
    given = batch(method, images, torch.tensor([3, 9, 1, 17, 5, 3]))
    given["label"][[1, 2, 4, 5]] = -1
    with torch.no_grad():
        z = method.classifier(method.encoder(given["image"])).double()
    says = z.log_softmax(1).numpy()
    supervised = -np.mean([says[0, given["label"][0]], says[3, given["label"][3]]])
    learned = np.mean([-(method.said[i].numpy() * says[row]).sum() * float(method.counts[i])
                       for row, i in ((1, 9), (2, 1), (4, 5), (5, 3))])  # soft: shares, not classes
    out = method(given)
    assert float(out["labelled"]) == pytest.approx(supervised, rel=1e-5)
    assert float(out["loss"].detach()) == pytest.approx(supervised + learned, rel=1e-5)


def test_noise_is_on_in_training_and_off_elsewhere():
    method, images = student(dropout=0.5), torch.randn(N, 3, 16, 16)
    given = batch(method, images, torch.arange(N))
    features = method.encoder(images)
    kept = method.dropped(torch.ones_like(features), given["key"])
    assert set(kept.unique().tolist()) == {0.0, 2.0} and kept.mean() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(method.logits(given), method.classifier(features * kept))
    other = {**given, "key": rng.key(1, torch.arange(N))}  # another epoch
    assert not torch.equal(method.logits(other), method.logits(given))
    method.eval()
    torch.testing.assert_close(method.logits(other), method.classifier(features))
    assert method.inputs.augment == "noisy_student"


def test_as_much_of_each_class():
    """Nine images: five of class 0, two of 1, one of 2, one that the teacher is not sure of."""
    said = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.3, 0.2],
                         [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
    counts = balanced(said, least=0.4)
    # 8 are kept, 2 of each class: of class 0 the surest two, that of class 2 twice; 6 in all are made 9 on average.
    assert (counts * 6 / 9).tolist() == pytest.approx([1, 1, 0, 0, 0, 1, 1, 2, 0])
    assert counts.mean() == pytest.approx(1)
    first = said.argmax(1)
    assert torch.allclose(torch.stack([counts[first == c].sum() for c in range(3)]), counts.sum() / 3)
    assert not balanced(said, least=1.0).any()


def test_a_class_that_the_teacher_never_says_is_left_out():
    said = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.2, 0.8, 0.0]])
    assert (balanced(said, 0.3) / balanced(said, 0.3).max()).tolist() == [1, 0, 1]


def test_the_first_generation_has_labels_alone_and_starts_a_chain():
    torch.manual_seed(0)
    first = NoisyStudent(nets.build("convnet", width=4), CARD)
    assert first.order == Shuffled(labelled=True) and student().order == Labelled(1)
    out = first(batch(first, torch.randn(N, 3, 16, 16), torch.arange(6)))
    assert set(out) == {"loss", "accuracy"}
    assert set(first.parts()) == {"encoder", "classifier"}  # what the next generation is taught by


def test_a_teacher_without_classes_or_with_others():
    lacking = teacher()
    del lacking.parts["classifier"]
    with pytest.raises(UserError, match="holds no classifier"):
        student(teacher=lacking)
    other = teacher(classifier=nets.build("linear", d_in=32, d_out=5))
    with pytest.raises(UserError, match="tells 5 classes apart, and this run's data have 3"):
        student(teacher=other)
