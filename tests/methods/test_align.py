"""ALIGN's loss against eq. 1 and 2 in loops, with its smoothing; CLIP's as a special case."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.align import ALIGN
from selfsup.methods.clip import CLIP


def build(cls=ALIGN, norm="group", **args):
    torch.manual_seed(0)
    return cls(nets.build("convnet", width=4, norm=norm), {"vocabulary": 20}, **{"dim": 16, **args})


def pairs(n=6):
    random = torch.Generator().manual_seed(1)
    captions = torch.randint(1, 20, (n, 5), generator=random)
    captions[::2, 3:] = 0
    return {"image": torch.randn(n, 3, 16, 16, generator=random), "caption": captions}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_is_the_sum_of_both_directions_with_labels_smoothed_over_the_batch(smoothing):
    method, batch = build(smoothing=smoothing, temperature=0.3), pairs()
    image, text = (z.detach().double().numpy() for z in method.project(batch))

    def one_way(a, b):
        total = 0
        for i in range(len(a)):
            p = np.array([np.exp(a[i] @ b[j] / 0.3) for j in range(len(b))])
            label = [(1 - smoothing) * (i == j) + smoothing / len(b) for j in range(len(b))]
            total -= sum(y * np.log(p[j] / p.sum()) for j, y in enumerate(label))
        return total / len(a)

    assert method(batch)["loss"].item() == pytest.approx(one_way(image, text) + one_way(text, image), rel=1e-5)


def test_without_smoothing_it_is_twice_clips():
    ours, clip, batch = build(smoothing=0, temperature=0.2), build(CLIP, temperature=0.2), pairs()
    assert ours(batch)["loss"].item() == pytest.approx(2 * clip(batch)["loss"].item(), rel=1e-5)


def test_the_temperature_divides_is_learned_itself_and_never_reaches_0():
    method, batch = build(), pairs()
    assert method.temperature.item() == 1
    method(batch)["loss"].backward()
    step = 1e-3
    with torch.no_grad():
        method.temperature += step
        above = method(batch)["loss"].item()
        method.temperature -= 2 * step
        below = method(batch)["loss"].item()
    assert method.temperature.grad.item() == pytest.approx((above - below) / (2 * step), rel=0.02)
    method.temperature.data.fill_(-1.0)
    method.after_step(0.5)
    assert method.temperature.item() == pytest.approx(0.01) and method(batch)["loss"].isfinite()


def test_learns_from_captions_of_which_some_are_wrong(fit):
    """A colour named in a word; with every third caption another's, new pairs are still found."""
    method, random = build(norm="batch", temperature=0.2), torch.Generator().manual_seed(3)
    colours = torch.tensor([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(1, 7)]).float() * 2 - 1

    def batch(step, wrong=2):
        word = torch.randperm(6, generator=random)
        image = colours[word][:, :, None, None] + 0.5 * torch.randn(6, 3, 16, 16, generator=random)
        told = torch.cat([word[:wrong].roll(1), word[wrong:]]) if wrong else word
        return {"image": image, "caption": torch.stack([torch.full((6,), 9), told + 1], 1)}

    fit(method, batch, 100)
    right = [float(method.eval()(batch(0, wrong=0))["accuracy"]) for _ in range(5)]
    assert np.mean(right) > 0.5
