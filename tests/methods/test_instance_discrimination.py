"""Instance discrimination against eq. 2 and 4-10 in loops, and its bank and normalising constant step by step."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup import nets
from selfsup.core import rng
from selfsup.methods.instance_discrimination import InstanceDiscrimination
from selfsup.inputs.views import View

IMAGES = 12


def build(norm="group", images=IMAGES, **args):
    torch.manual_seed(0)
    card = {"counts": {"train": images}}
    args = {"dim": 8, "negatives": 5, "temperature": 0.3, **args}
    return InstanceDiscrimination(nets.build("convnet", width=4, norm=norm), card, **args)


def batch(n=4, seed=1):
    random = torch.Generator().manual_seed(seed)
    key = rng.key(seed, torch.arange(n))
    index = torch.randperm(IMAGES, generator=random)[:n]
    return {"image": torch.randn(n, 3, 16, 16, generator=random), "index": index, "key": key}


def begin_epoch(method, images, epoch=0):
    """before_epoch with what the trainer offers, of images as they are."""

    def embed():
        method.encoder.eval()
        return method.encoder(images)

    method.before_epoch(SimpleNamespace(epoch=epoch, embed=embed))
    method.train()


@pytest.mark.parametrize("proximal", [0.0, 2.0])
def test_loss_over_the_whole_bank_is_equation_2(proximal):
    method, b = build(negatives=None, proximal=proximal), batch()
    with torch.no_grad():
        v = method.embed(b["image"]).double().numpy()
    bank, expected, right = method.bank.rows.double().numpy(), 0.0, 0
    for f, i in zip(v, b["index"].tolist()):
        p = [np.exp(row @ f / method.temperature) for row in bank]
        expected += proximal * ((f - bank[i]) ** 2).sum() - np.log(p[i] / sum(p))
        right += p[i] == max(p)
    out = method(b)
    assert float(out["loss"].detach()) == pytest.approx(expected / len(v), rel=1e-5)
    assert float(out["accuracy"]) == pytest.approx(right / len(v))


def reference(method, batch, z=None):
    """The loss by the paper's equations, and Z (eq. 8 where it is not given)."""
    with torch.no_grad():
        v = method.embed(batch["image"]).double().numpy()
    bank, m, n, tau = method.bank.rows.double().numpy(), method.negatives, IMAGES, method.temperature
    drawn = rng.randint(batch["key"], n, m).tolist()
    if z is None:
        z = np.mean([n / m * sum(np.exp(bank[j] @ f / tau) for j in js) for f, js in zip(v, drawn)])
    loss = 0.0
    for f, i, js in zip(v, batch["index"].tolist(), drawn):
        p = lambda k: np.exp(bank[k] @ f / tau) / z  # noqa: E731  eq. 4
        h = lambda k: p(k) / (p(k) + m / n)  # noqa: E731  eq. 6
        loss -= np.log(h(i)) - method.proximal * ((f - bank[i]) ** 2).sum()
        loss -= sum(np.log(1 - h(j)) for j in js)
    return loss / len(v), z


@pytest.mark.parametrize("proximal", [0.0, 2.0])
def test_loss_is_equation_10_and_z_is_the_first_batchs(proximal):
    method = build(proximal=proximal)
    expected, z = reference(method, batch())
    assert float(method(batch())["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    assert float(method.normaliser) == pytest.approx(z, rel=1e-5)
    assert abs(reference(method, batch(seed=2))[1] / z - 1) > 1e-3
    expected, _ = reference(method, batch(seed=2), z)
    assert float(method(batch(seed=2))["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    assert float(method.normaliser) == pytest.approx(z, rel=1e-5)


def test_bank_moves_after_the_loss_and_only_where_the_batch_is():
    method, b = build(momentum=0.25), batch()
    before = method.bank.rows.clone()
    with torch.no_grad():
        v = method.embed(b["image"])
    method(b)["loss"].backward()
    expected = before.clone()
    expected[b["index"]] = F.normalize(0.25 * before[b["index"]] + 0.75 * v, dim=1)
    torch.testing.assert_close(method.bank.rows, expected)
    method.eval()(batch(seed=2))
    torch.testing.assert_close(method.bank.rows, expected)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_bank_is_filled_with_the_images_before_each_epoch_and_z_forgotten(norm):
    method, images = build(norm), torch.randn(IMAGES, 3, 16, 16) + 1
    for epoch in (0, 1):
        method(batch(seed=epoch))
        method.encoder.train(epoch == 0)  # an untrained BatchNorm has no statistics, so that the batch's are taken
        with torch.no_grad():
            expected = method.embed(images)
        begin_epoch(method, images, epoch)
        torch.testing.assert_close(method.bank.rows, expected)
        assert method.normaliser == 0
    begin_epoch(method, images, 1)
    assert not method.encoder.eval()(images).isnan().any() and not method.encoder.training  # the hook is gone


@pytest.mark.parametrize("negatives", [None, 5])
def test_gradient_is_that_of_the_bank_before_the_update(negatives):
    method, b = build(negatives=negatives), batch()
    weight, head = method.head.weight, []
    for momentum in (1.0, 0.0):  # the bank stays, and the bank is overwritten
        method.momentum = momentum
        head.append(torch.autograd.grad(method(b)["loss"], weight)[0])
    torch.testing.assert_close(*head)


@pytest.mark.parametrize("negatives, proximal", [(None, 0.0), (16, 1.0)])
def test_bank_entries_follow_their_images(negatives, proximal, prepare, fit):
    """After training an entry is nearer to its own image's embedding than to those of nearly all others, also where
    nothing but the updates of the batches has made it: the bank starts at random and is not filled again."""
    method = build("batch", images=32, dim=16, negatives=negatives, proximal=proximal, temperature=0.1)
    method.inputs = View("crop_flip")  # all that the smooth images differ in is colour

    def rank():
        with torch.no_grad():
            s = method.embed(prepare(method, 32, "smooth", epoch=50)["image"]) @ method.bank.rows.T
        return float((s > s.diagonal()[:, None]).float().mean())

    before = rank()
    fit(method, lambda step: prepare(method, 32, "smooth", epoch=step), 150, lr=1e-2)
    after = rank()
    assert before > 0.35 and after < 0.1, after
