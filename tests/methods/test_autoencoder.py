import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods import load


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        return load("autoencoder")(nets.build("convnet", width=8), card, **args)

    return build


def test_loss_against_loops(make, prepare):
    method = make(code=5).eval()
    batch = prepare(method, 4)
    with torch.no_grad():
        maps = method.encoder.features(batch["image"]).numpy()
        (weight, bias), (back, offset) = ([p.numpy() for p in part.parameters()] for part in (method.squeeze, method.expand))
        code = np.array([[sum(w * m) + b for w, b in zip(weight, bias)] for m in maps.reshape(4, -1)])
        assert code.shape == (4, 5)
        expanded = torch.tensor(code @ back.T + offset, dtype=torch.float32).view(maps.shape)
        output = method.decoder(expanded).numpy()
    np.testing.assert_allclose(method.code(batch["image"]).detach().numpy(), code, atol=1e-5)
    error = np.mean([(a - b) ** 2 for a, b in zip(output.ravel(), batch["image"].numpy().ravel())])
    assert method(batch)["loss"].item() == pytest.approx(error, abs=1e-5)


def test_nothing_passes_by_the_code(make, prepare):
    """Images with equal codes are reconstructed equally: no path around the bottleneck."""
    method = make(code=2).eval()
    method.squeeze[1].weight.data.zero_()
    x = prepare(method, 4)["image"]
    a, *others = method.decoder(method.expand(method.code(x)))
    assert len(others) == 3 and all(torch.equal(a, b) for b in others)


def test_error_falls_as_the_code_grows(card, prepare, fit):
    """On held-out images that are made of 27 numbers each."""
    errors = []
    for code in (1, 5, 25):
        torch.manual_seed(0)
        method = load("autoencoder")(nets.build("vit", size=16, patch=4, dim=16, depth=1, heads=2), card, code=code)
        fit(method, lambda step: prepare(method, 32, "smooth", step), 60, lr=1e-2)
        errors.append(method.eval()(prepare(method, 64, "smooth", 1000))["loss"].item())
    assert errors[1] < 0.95 * errors[0] and errors[2] < 0.8 * errors[1], errors


def test_code_is_smaller_than_the_image(make):
    with pytest.raises(UserError, match="from 1 to 767 numbers"):
        make(code=3 * 16**2)


def test_pictures(make, prepare):
    method = make().eval()
    (sheet,) = method.pictures(prepare(method, 16)).values()
    assert sheet.shape == (3, 2 * 18, 8 * 18) and 0 <= sheet.min() and sheet.max() <= 1
