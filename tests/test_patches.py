"""Patches against slicing, and where they may lie."""

import pytest
import torch

from selfsup.core import rng
from selfsup.training import patches


def test_cut_is_slicing():
    x = torch.rand(4, 3, 17, 23)
    corners = torch.stack([rng.randint(torch.arange(4), 17 - 5 + 1, 6), rng.randint(torch.arange(4), 23 - 5 + 1, 6, salt=1)], 2)
    got = patches.cut(x, corners, 5)
    assert got.shape == (4, 6, 3, 5, 5)
    for n in range(4):
        for p in range(6):
            top, left = corners[n, p].tolist()
            assert torch.equal(got[n, p], x[n, :, top : top + 5, left : left + 5])


def test_jittered_patches_stay_in_their_cells_and_use_all_of_them():
    corners = patches.jittered_grid(torch.arange(500), 32, 3, 8)
    assert corners.shape == (500, 9, 2)
    for i in range(9):
        for axis, cell in enumerate((i // 3, i % 3)):
            low = 1 + 10 * cell  # 32 = 1 + 3 · 10 + 1
            assert corners[:, i, axis].unique().tolist() == [low, low + 1, low + 2]
    assert not torch.equal(corners[:, 0] - 1, corners[:, 8] - 21)  # each cell of its own
    with pytest.raises(ValueError):
        patches.jittered_grid(torch.arange(2), 32, 3, 11)


def test_regular_grid_covers_the_image():
    corners = patches.regular_grid(2, 32, 8, 4)
    assert corners.shape == (2, 49, 2) and corners.min() == 0 and corners.max() == 24
    assert corners[0, :3].tolist() == [[0, 0], [0, 4], [0, 8]] and torch.equal(corners[0], corners[1])
