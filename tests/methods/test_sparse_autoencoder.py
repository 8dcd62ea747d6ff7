import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods import load


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        encoder = nets.build("vit", size=16, patch=8, dim=16, depth=1, heads=2)
        return load("sparse_autoencoder")(encoder, card, **{"atoms": 24, **args})

    return build


def test_loss_against_loops(make, prepare):
    method = make(sparsity=0.05).eval()
    batch = prepare(method, 3)
    with torch.no_grad():
        features = method.encoder.features(batch["image"]).numpy().astype(np.float64)
    mix, shift = (p.detach().numpy().astype(np.float64) for p in method.code[0].parameters())
    maps = np.maximum(np.einsum("kd,ndij->nkij", mix[:, :, 0, 0], features) + shift[:, None, None], 0)
    method.bias.data = torch.tensor([0.1, -0.2, 0.3])
    directions, bias = method.directions.detach().numpy().astype(np.float64), method.bias.detach().numpy()
    loss, zero, error = 0, 0, 0
    for x, h in zip(batch["image"].numpy(), maps):
        painted = np.zeros((3, 16, 16)) + bias[:, None, None]
        for k in range(24):
            atom = directions[k] / np.sqrt((directions[k] ** 2).sum())
            for i in range(2):
                for j in range(2):
                    painted[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] += h[k, i, j] * atom
                    zero += h[k, i, j] < 0.01
        error += ((x - painted) ** 2).mean()
        loss += ((x - painted) ** 2).mean() + 0.05 * np.abs(h).sum() / (3 * 16 * 16)
    out = method(batch)
    assert out["loss"].item() == pytest.approx(loss / 3, rel=1e-5)
    assert out["error"].item() == pytest.approx(error / 3, rel=1e-5)
    assert out["zeros"].item() == pytest.approx(zero / (3 * 24 * 4))


def test_scale_cannot_escape_into_the_dictionary(make, prepare):
    method = make()
    batch = prepare(method)
    before = method(batch)["loss"]
    method.directions.data *= 1000
    torch.testing.assert_close(method(batch)["loss"], before)
    torch.testing.assert_close(method.atoms.square().sum((1, 2, 3)), torch.ones(24))


def test_near_zero_activations_rise_with_lambda(make, prepare, fit):
    zeros, errors = [], []
    for sparsity in (0.0, 1.0, 4.0):
        method = make(sparsity=sparsity)
        fit(method, lambda step: prepare(method, 32, "smooth", step), 60, lr=1e-2)
        out = method.eval()(prepare(method, 64, "smooth", 1000))
        zeros.append(out["zeros"].item())
        errors.append(out["error"].item())
    assert zeros[0] + 0.05 < zeros[1] < zeros[2] - 0.05, (zeros, errors)
    assert errors[0] < 0.9 and errors[0] < errors[2], errors


def test_pictures(make, prepare):
    method = make().eval()
    sheets = method.pictures(prepare(method, 16))
    assert sheets["atoms"].shape == (3, 3 * 10, 8 * 10) and sheets["image_reconstruction"].shape == (3, 2 * 18, 8 * 18)
