"""CMC: the loss in both directions, and that the halves are worth more together."""

import math

import pytest
import torch

from selfsup import methods, nets
from selfsup.core.colour import lab_to_rgb
from selfsup.errors import UserError

CMC = methods.load("cmc")


@pytest.fixture
def make():
    def build(width=4, **options):
        torch.manual_seed(0)
        return CMC(nets.build("split", half={"name": "convnet", "width": width}), **options)

    return build


def test_loss_is_both_directions(make, prepare):
    method = make(dim=16).eval()
    batch = prepare(method, 6)
    lightness, colour = (z.detach() for z in method.embed(batch["image"]))
    expected = 0
    for a, b in ((lightness, colour), (colour, lightness)):
        for i in range(6):
            scores = [math.exp(float(a[i] @ b[j]) / 0.07) for j in range(6)]
            expected -= math.log(scores[i] / sum(scores)) / 6
    assert float(method(batch)["loss"]) == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(lightness.norm(dim=1), torch.ones(6))


def test_each_half_sees_its_own_channels_as_they_were(make, card):
    """Images come normalised by the card's statistics, which the split encoder must undo."""
    method = make().eval()
    lab = torch.rand(4, 3, 16, 16) * torch.tensor([60.0, 20, 20]).view(3, 1, 1) + torch.tensor([20.0, -10, -10]).view(3, 1, 1)
    grey = torch.cat([lab[:, :1], torch.zeros(4, 2, 16, 16)], 1)
    mean, std = (torch.tensor(card[name]).view(3, 1, 1) for name in ("mean", "std"))
    colourful, greyed = ((lab_to_rgb(x) - mean) / std for x in (lab, grey))
    whole, grey = method.encoder(colourful).detach(), method.encoder(greyed).detach()
    lightness, colour = ((a - b).norm() / a.norm() for a, b in zip(whole.chunk(2, 1), grey.chunk(2, 1)))
    assert lightness < 0.02 and colour > 0.5


def test_another_encoder_is_refused():
    with pytest.raises(UserError, match="cmc needs the encoder split"):
        CMC(nets.build("convnet", width=4))


def test_it_learns_to_match_the_halves_and_together_they_tell_more(make, prepare, fit):
    """Classes of lightness × classes of colour: neither half can know both, the two side by side can."""
    method = make(width=8, dim=16)
    pattern = torch.arange(4).repeat(16)
    bright, red = (pattern % 2).float(), (pattern // 2).float()
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 3, 16, 16, generator=random) * torch.tensor([6.0, 8, 8]).view(3, 1, 1)
    lab = torch.stack([35 + 30 * bright, 50 * red - 25, 10 * torch.randn(64, generator=random)], 1)[:, :, None, None] + noise
    image = (lab_to_rgb(lab) * 255).byte()
    batch = {"image": image, "index": torch.arange(64), "epoch": torch.zeros(64, dtype=torch.long)}
    batch = method.inputs(batch, 0, [0.5] * 3, [0.25] * 3)
    before = float(method(batch)["accuracy"])
    assert fit(method, lambda step: batch, 30)["accuracy"] > max(0.3, 2 * before)
    features = method.eval().encoder(batch["image"]).detach()
    half = features.shape[1] // 2

    def separable(x):
        x = (x - x.mean(0)) / (x.std(0) + 1e-6)
        weight = torch.linalg.lstsq(x[::2], torch.nn.functional.one_hot(pattern[::2], 4).float(), driver="gelsd").solution
        x = x[1::2]
        return float(((x @ weight).argmax(1) == pattern[1::2]).float().mean())

    order = torch.arange(64).view(2, 32).T.flatten()  # so that both halves of the samples have all patterns
    features, pattern = features[order], pattern[order]
    both, lightness, colour = (separable(part) for part in (features, features[:, :half], features[:, half:]))
    assert both > max(lightness, colour)
