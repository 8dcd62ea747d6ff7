import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core.colour import rgb_to_lab
from selfsup.errors import UserError
from selfsup.methods import load

HALF = {"name": "vit", "size": 16, "patch": 8, "dim": 16, "depth": 1, "heads": 2}


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        return load("split_brain")(nets.build("split", half=HALF), card, **args)

    return build


def test_loss_of_classes_against_loops(make, prepare):
    method = make().eval()
    batch = prepare(method, 2)
    with torch.no_grad():
        out = method(batch)
        to_l, to_ab = (p.double().log_softmax(1).numpy() for p in method.predict(batch["image"])[:2])
    lab = rgb_to_lab(batch["image"] * 0.25 + 0.5).numpy()[:, :, ::4, ::4]
    l_terms, ab_terms = [], []
    for n in range(2):
        for i in range(4):
            for j in range(4):
                light, a, b = lab[n, :, i, j]
                l_terms.append(-to_l[n, min(49, int(light // 2)), i, j])
                a_bin, b_bin = (int(np.argmin(np.abs(np.arange(-110, 111, 10) - v))) for v in (a, b))
                ab_terms.append(-to_ab[n, 23 * a_bin + b_bin, i, j])
    assert out["loss_lightness"].item() == pytest.approx(np.mean(l_terms), rel=1e-2)  # a value on a bin's edge may round
    assert out["loss_colour"].item() == pytest.approx(np.mean(ab_terms), rel=1e-2)
    assert out["loss"].item() == pytest.approx(out["loss_lightness"].item() + out["loss_colour"].item(), rel=1e-5)


def test_loss_l2_against_numpy(make, prepare):
    method = make(loss="l2").eval()
    batch = prepare(method, 2)
    lab = rgb_to_lab(batch["image"] * 0.25 + 0.5).numpy()[:, :, ::4, ::4]
    with torch.no_grad():
        to_l, to_ab = (p.numpy() for p in method.predict(batch["image"])[:2])
        expected = np.mean((to_l - (lab[:, :1] / 50 - 1)) ** 2) + np.mean((to_ab - lab[:, 1:] / 50) ** 2)
        assert method(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_halves_see_nothing_of_each_other(make, prepare):
    """Neither the other half's weights nor its channels change what a half predicts or learns."""
    method = make()
    batch = prepare(method)
    out = method.predict(batch["image"])
    out[1].sum().backward()
    assert all(p.grad is None for part in (method.encoder.colour, method.to_lightness) for p in part.parameters())
    x = batch["image"]
    lightness, colour = method.encoder.lab(x)
    method.encoder.lab = lambda x: (lightness, torch.zeros_like(colour))
    assert torch.equal(method.predict(x)[1], out[1]) and not torch.equal(method.predict(x)[0], out[0])
    method.encoder.lab = lambda x: (torch.zeros_like(lightness), colour)
    assert torch.equal(method.predict(x)[0], out[0]) and not torch.equal(method.predict(x)[1], out[1])


def test_bins_and_their_mean_are_inverse(make):
    """Of a prediction that is sure of the true bin the mean is the bin's middle."""
    method = make()
    lightness, colour = torch.rand(5, 1, 8, 8) * 2 - 1, torch.rand(5, 2, 8, 8) * 3 - 1.5
    l_bin, ab_bin = method.bins(lightness, colour)
    sure = [100.0 * torch.nn.functional.one_hot(b, k).permute(0, 3, 1, 2) for b, k in ((l_bin, 50), (ab_bin, 23 * 23))]
    l_mean, ab_mean = method.expected(*sure)
    assert (l_mean - lightness).abs().max() < 0.0201 and (ab_mean - colour).abs().max() < 0.101
    white, most = torch.ones(1, 1, 1, 1), torch.tensor([98.3, -107.9]).view(1, 2, 1, 1) / 50  # the ends of sRGB
    assert [b.item() for b in method.bins(white, most)] == [49, 21 * 23]


@pytest.mark.parametrize("loss, steps", [("classes", 25), ("l2", 100)])
def test_each_half_learns_the_others_channels(make, prepare, fit, loss, steps):
    """Images whose hue is a function of their lightness."""
    method = make(loss=loss)
    batch = prepare(method, 16, "smooth")
    at = batch["image"][:, :1]
    batch = {**batch, "image": torch.cat([at, -at, 0.5 * at], 1)}
    before = method(batch)
    after = fit(method, lambda step: batch, steps, lr=5e-3)
    for name in ("loss_lightness", "loss_colour"):
        assert after[name] < 0.7 * before[name].item(), (before, after)


def test_needs_the_split_encoder(card):
    with pytest.raises(UserError, match="needs the encoder split"):
        load("split_brain")(nets.build("convnet", width=4), card)


def test_pictures(make, prepare):
    method = make().eval()
    (sheet,) = method.pictures(prepare(method, 16)).values()
    assert sheet.shape == (3, 3 * 6, 8 * 6) and 0 <= sheet.min() and sheet.max() <= 1
