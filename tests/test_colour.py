"""Lab against known colours and a slow reference written from the standard."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core.colour import lab_to_rgb, rgb_to_lab


def slow(r, g, b):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (r, g, b)]
    rows = [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
    x, y, z = (sum(w * c for w, c in zip(row, linear)) / white for row, white in zip(rows, (0.95047, 1, 1.08883)))
    f = [t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def pixel(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    "rgb, lab",
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_known_colours(rgb, lab):
    np.testing.assert_allclose(rgb_to_lab(pixel(*rgb)).flatten(), lab, atol=0.02)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3))
def test_lab_is_the_standards_and_comes_back(rgb):
    lab = rgb_to_lab(pixel(*rgb))
    np.testing.assert_allclose(lab.flatten(), slow(*rgb), atol=0.02)
    np.testing.assert_allclose(lab_to_rgb(lab).flatten(), rgb, atol=1e-4)


def test_colours_no_screen_shows_are_clamped():
    out = lab_to_rgb(torch.tensor([50.0, 110.0, -110.0]).view(1, 3, 1, 1))
    assert 0 <= out.min() and out.max() <= 1


def test_autocast_changes_no_colour():
    images = torch.rand(2, 3, 8, 8)
    lab = rgb_to_lab(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rgb_to_lab(images), lab)
        again = lab_to_rgb(lab)
    assert torch.equal(again, lab_to_rgb(lab)) and again.dtype == torch.float32
