import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core import rng
from selfsup.methods import load


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        return load("denoising_autoencoder")(nets.build("convnet", width=8), card, **args)

    return build


@pytest.mark.parametrize("corruption", [0.1, 0.25, 0.4])
def test_exactly_the_share_of_pixels_is_lost_in_all_channels(make, corruption):
    method = make(corruption=corruption)
    x = torch.rand(6, 3, 16, 16) + 1  # nothing is zero beforehand
    corrupted = method.corrupt(x, rng.key(0, torch.arange(6)))
    lost = corrupted == 0
    assert (lost == lost[:, :1]).all(), "a pixel loses all its channels"
    assert (lost[:, 0].sum((1, 2)) == round(corruption * 256)).all()
    assert torch.equal(corrupted[~lost], x[~lost])
    assert len({tuple(mask.flatten().tolist()) for mask in lost[:, 0]}) == 6, "each sample loses pixels of its own"


def test_lost_pixels_depend_on_the_sample_alone(make):
    method = make()
    x, key = torch.rand(6, 3, 16, 16), rng.key(0, torch.arange(6))
    assert torch.equal(method.corrupt(x, key)[4:], method.corrupt(x[4:], key[4:]))


def test_loss_against_loops(make, prepare):
    method = make().eval()
    batch = prepare(method, 4)
    clean = batch["image"].numpy()
    kept = np.ones((4, 256))
    for row, noise in zip(kept, rng.uniform(batch["key"], 256).numpy()):
        for pixel in sorted(range(256), key=lambda i: noise[i])[:64]:
            row[pixel] = 0
    corrupted = clean * kept.reshape(4, 1, 16, 16)
    with torch.no_grad():
        output = method.decoder(method.encoder.features(torch.tensor(corrupted, dtype=torch.float32))).numpy()
    out = method(batch)
    assert abs(out["loss"].item() - np.mean((output - clean) ** 2)) < 1e-5, "the target is the clean image"
    assert out["mse"] == out["loss"] and not out["mse"].requires_grad
    assert abs(out["mse_corrupted"].item() - np.mean((corrupted - clean) ** 2)) < 1e-5


def test_removes_noise(card, prepare, fit):
    """After some steps the reconstructions of held-out images are nearer to the clean ones than the input was."""
    torch.manual_seed(0)
    method = load("denoising_autoencoder")(nets.build("vit", size=16, dim=32, depth=2), card)
    fit(method, lambda step: prepare(method, 32, "smooth", step), 80)
    out = method.eval()(prepare(method, 32, "smooth", 1000))
    assert out["mse"] < 0.5 * out["mse_corrupted"]


def test_better_on_corrupted_images_than_the_autoencoder(card, prepare, fit):
    """Both of the same width, trained for as long on the same images; judged on held-out ones with pixels missing."""
    errors = {}
    for name, options in (("denoising_autoencoder", {}), ("autoencoder", {"code": 128})):
        torch.manual_seed(0)
        method = load(name)(nets.build("vit", size=16, dim=32, depth=2), card, **options)
        fit(method, lambda step: prepare(method, 32, "smooth", step), 80)
        method.eval()
        batch = prepare(method, 64, "smooth", 1000)
        if name == "denoising_autoencoder":
            corrupted = method.corrupt(batch["image"], batch["key"])
            again = method.decoder(method.encoder.features(corrupted))
        else:
            again = method.decoder(method.expand(method.code(corrupted)))
        errors[name] = float((again - batch["image"]).square().mean().detach())
    assert errors["denoising_autoencoder"] < 0.8 * errors["autoencoder"]


def test_pictures(make, prepare):
    method = make().eval()
    (sheet,) = method.pictures(prepare(method, 16)).values()
    assert sheet.shape == (3, 3 * 18, 8 * 18) and not sheet.requires_grad and 0 <= sheet.min() and sheet.max() <= 1
