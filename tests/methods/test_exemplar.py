"""Exemplar: every training image a class, and what that costs."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods.exemplar import Exemplar
from selfsup.inputs.views import Views


def build(images=12, norm="group", **args):
    torch.manual_seed(0)
    return Exemplar(nets.build("convnet", width=4, norm=norm), {"counts": {"train": images}}, **args)


def copies(index, count=2):
    return {"image": torch.randn(len(index), count, 3, 16, 16), "index": torch.tensor(index)}


@pytest.mark.parametrize("exemplars", [None, 8])
def test_loss_is_equation_1(exemplars):
    """Σᵢ Σ_T l(i, T xᵢ) over the N seeds, as a mean over all of an epoch's batches, images without a class left out."""
    method, total, right = build(exemplars=exemplars).eval(), [], []
    batches = [copies([3, 11, 0, 7]), copies([9, 1, 2, 10]), copies([8, 5, 6, 4])]
    for batch in batches:
        for image, index in zip(batch["image"], batch["index"].tolist()):
            for view in image:
                with torch.no_grad():
                    logits = method.classifier(method.norm(method.encoder(view[None])))[0].double().numpy()
                if index < method.exemplars:
                    total.append(np.log(np.exp(logits).sum()) - logits[index])
                    right.append(logits.argmax() == index)
    outs = [method(batch) for batch in batches]
    assert len(total) == 2 * method.exemplars
    assert np.mean([out["loss"].item() for out in outs]) == pytest.approx(np.mean(total), rel=1e-5)
    assert np.mean([out["accuracy"].item() for out in outs]) == pytest.approx(np.mean(right))


def test_images_beyond_the_exemplars_change_nothing():
    method = build(exemplars=4)
    out = method(copies([4, 11, 7]))
    out["loss"].backward()
    assert out["loss"] == 0 and not any(p.grad.any() for p in method.parameters())


def test_last_layer_grows_with_the_number_of_images():
    """The method's scaling problem: a row of dim + 1 parameters for each image, while the encoder stays as it is."""
    layer, encoder = {}, set()
    for images in (100, 1000, 10000):
        method = build(images)
        layer[images] = float(method(copies([0, 1]))["last_layer"])
        encoder.add(sum(p.numel() for p in method.encoder.parameters()))
    assert layer == {n: n * (method.encoder.dim + 1) for n in layer} and len(encoder) == 1
    assert layer[10000] > 10 * encoder.pop()


def test_options():
    assert build(exemplars=3).classifier.out_features == 3
    for wrong in (1, 13):
        with pytest.raises(UserError, match=f"{wrong} exemplars cannot be taken from 12 training images"):
            build(exemplars=wrong)


def test_recognises_new_copies_of_its_seeds(fit):
    """Twelve pictures under views never seen in training."""
    seeds = torch.randint(256, (12, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    image = seeds.repeat_interleave(4, 2).repeat_interleave(4, 3).byte()
    method = build(norm="batch")
    method.inputs = Views(4)

    def batch(epoch):
        raw = {"image": image, "index": torch.arange(12), "epoch": torch.full((12,), epoch)}
        return method.inputs(raw, 0, [0.5] * 3, [0.25] * 3)

    fit(method, batch, 80)
    method.eval()
    with torch.no_grad():
        accuracy = torch.stack([method(batch(epoch))["accuracy"] for epoch in range(100, 110)]).mean()
    assert accuracy > 0.25  # chance is 1/12
