import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.core.colour import lab_to_rgb, rgb_to_lab
from selfsup.methods import load


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        encoder = nets.build("vit", size=16, patch=8, dim=16, depth=1, heads=2)
        return load("colorization")(encoder, card, **args)

    return build


def rebalanced(counts, bins, smoothing=0.5):
    """Eq. 4 in loops."""
    smooth = np.zeros(len(bins))
    for q, count in enumerate(counts):
        kernel = np.exp(-((bins - bins[q]) ** 2).sum(1) / (2 * 25))
        smooth += (count + 1e-3) * kernel / kernel.sum()
    share = smooth / smooth.sum()
    weight = 1 / ((1 - smoothing) * share + smoothing / len(bins))
    return weight / (share * weight).sum()


def test_loss_of_classes_against_loops(make, prepare):
    method = make()
    batch = prepare(method, 2)
    with torch.no_grad():
        out = method(batch)
        prediction = method.predict(method.lab(batch["image"])[0]).double().log_softmax(1).numpy()
    bins = method.bins.double().numpy()
    lab = rgb_to_lab(batch["image"] * 0.25 + 0.5).double().numpy()
    counts, terms = np.zeros(len(bins)), []
    for n in range(2):
        for i in range(8):
            for j in range(8):
                distance = np.sqrt(((bins - lab[n, 1:, 2 * i, 2 * j]) ** 2).sum(1))
                nearest = distance.argsort()[:5]
                z = np.exp(-(distance[nearest] ** 2) / (2 * 25))
                counts[nearest[0]] += 1
                terms.append((nearest[0], -(z / z.sum() * prediction[n, nearest, i, j]).sum()))
    weight = rebalanced(counts, bins)
    np.testing.assert_allclose(method.counts.numpy(), counts)
    assert out["loss"].item() == pytest.approx(np.mean([weight[q] * term for q, term in terms]), rel=2e-3)


def test_loss_l2_against_loops(make, prepare):
    method = make(loss="l2").eval()
    batch = prepare(method, 2)
    ab = rgb_to_lab(batch["image"] * 0.25 + 0.5).numpy()[:, 1:, ::2, ::2] / 50
    with torch.no_grad():
        difference = ab - method.predict(method.lab(batch["image"])[0]).numpy()
        assert method(batch)["loss"].item() == pytest.approx(0.5 * (difference**2).sum() / (2 * 64), rel=1e-4)


def test_bins_are_the_gamut(make):
    bins = {tuple(b) for b in make().bins.tolist()}
    assert 230 < len(bins) < 320 and (0, 0) in bins and (80, 70) in bins  # about sRGB's red
    assert (0, 100) not in bins and (-100, -100) not in bins
    assert all(value % 10 == 0 for b in bins for value in b)


def test_counts_add_up_in_training_only(make, prepare):
    method = make()
    batch = prepare(method, 4)
    for total in (256, 512):
        method(batch)
        assert method.counts.sum() == total
    method.eval()(batch)
    assert method.counts.sum() == 512


def test_the_encoder_sees_no_colour(make):
    """Two images of equal lightness and other colours, both within the gamut, look the same to it."""
    method = make().eval()
    seen = []
    method.encoder.features = lambda x: seen.append(x) or torch.zeros(len(x), 16, 2, 2)
    lightness = torch.full((1, 1, 16, 16), 60.0)
    for a, b in ((20, 10), (-15, 30)):
        lab = torch.cat([lightness, torch.full_like(lightness, a), torch.full_like(lightness, b)], 1)
        method.predict(method.lab((lab_to_rgb(lab) - 0.5) / 0.25)[0])
    torch.testing.assert_close(*seen, atol=1e-3, rtol=0)
    assert seen[0].std(1).max() < 1e-3 and rgb_to_lab(seen[0] * 0.25 + 0.5)[0, 0, 0, 0].item() == pytest.approx(60, abs=0.1)


def test_annealed_mean(make):
    method = make(temperature=0.5)
    logits = torch.full((1, len(method.bins), 1, 1), -torch.inf)
    logits[0, 3], logits[0, 7] = np.log(0.75), np.log(0.25)  # squared and renormalised: 0.9 and 0.1
    expected = 0.9 * method.bins[3] + 0.1 * method.bins[7]
    torch.testing.assert_close(method.colours(logits)[0, :, 0, 0], expected)


def test_classes_are_more_saturated_than_l2(make, prepare, fit):
    """One image in five red and the others grey, of the same lightness: L2 paints a fifth of the red."""
    chroma = {}
    for loss in ("classes", "l2"):
        method = make(loss=loss)

        def batches(step):
            batch = prepare(method, 20, "smooth", step)
            red = (torch.arange(20) % 5 == 0)[:, None, None, None].expand(-1, 1, 16, 16)
            lightness = 55 + 5 * batch["image"].mean(1, keepdim=True)
            lab = torch.cat([lightness, 50.0 * red, 30.0 * red], 1)
            return {**batch, "image": (lab_to_rgb(lab) - 0.5) / 0.25}

        fit(method, batches, 60, lr=5e-3)
        out = method(batches(0))
        chroma[loss] = (out["chroma"] / out["chroma_true"]).item()
    assert 0.7 < chroma["l2"] < 1.3 < 1.6 < chroma["classes"], chroma


def test_pictures(make, prepare):
    method = make().eval()
    (sheet,) = method.pictures(prepare(method, 16)).values()
    assert sheet.shape == (3, 3 * 18, 8 * 18) and 0 <= sheet.min() and sheet.max() <= 1
