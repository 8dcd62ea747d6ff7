import pytest
import torch
import torch.nn as nn

from selfsup import evals, nets
from selfsup.evals import layerwise, linear
from selfsup.layers import ImageEncoder

GRID = [1e-4, 1e-2, 10.0]


class Lost(ImageEncoder):
    """Of three maps the second alone tells the classes apart: the others are noise, and noise made of the image."""

    def __init__(self):
        super().__init__()
        self.mean, self.std, self.dim = [0.5] * 3, [0.25] * 3, 8
        self.mix = nn.Parameter(torch.randn(8, 27))

    def layers(self, x):
        hashed = (x.flatten(1) * 1e4 + x.sum((1, 2, 3))[:, None] * 1e5).sin()
        return [hashed[:, :, None, None], x, (hashed @ self.mix.T)[:, :, None, None].expand(-1, -1, 2, 2)]

    def forward(self, x):
        return self.layers(x)[-1].mean((2, 3))


def test_finds_the_layer_that_knows_the_classes(data):
    result = dict(evals.run("layerwise", Lost(), data, weight_decay=GRID, pool=3))
    assert result["layer"] == 2 and list(result["layers"]) == ["1", "2", "3"]
    assert result["low"] > 70 and all(result["layers"][n]["accuracy"] < 45 for n in "13")
    assert result["accuracy"] == result["layers"]["2"]["accuracy"]


def test_the_layer_is_chosen_on_val_and_all_are_tested(data):
    chosen = dict(evals.run("layerwise", Lost(), data, weight_decay=GRID, pool=3))
    data.test.labels = data.test.labels.roll(1)
    shuffled = dict(evals.run("layerwise", Lost(), data, weight_decay=GRID, pool=3))
    assert shuffled["layer"] == 2 and shuffled["accuracy"] < 45 and shuffled["val_accuracy"] == chosen["val_accuracy"]


@pytest.mark.parametrize("network", [{"name": "convnet", "width": 2}, {"name": "vit", "size": 16, "dim": 16, "depth": 2}])
def test_the_last_layer_is_the_encoder(network, data):
    """Averaged to one number a channel, its result is that of `linear`."""
    for split in (data.train, data.val, data.test):
        split.images = split.images.repeat(1, 1, 6, 6)[:, :, :16, :16]
    encoder = nets.build(**network).train()
    encoder.mean, encoder.std = [0.5] * 3, [0.25] * 3
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    last = list(dict(evals.run("layerwise", encoder, data, weight_decay=GRID, pool=1))["layers"].values())[-1]
    assert encoder.training and all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert last == dict(evals.run("linear", encoder, data, weight_decay=GRID))


def test_maps_are_averaged_to_the_side_asked_for():
    class Deep(ImageEncoder):
        mean, std = [0.0] * 3, [1.0] * 3

        def layers(self, x):
            return [x, x[:, :1, :3, :1], x[:, :2, :1, :1]]

    x = torch.arange(2 * 3 * 16.0).view(2, 3, 4, 4)
    maps = layerwise.Maps(Deep(), pool=2)
    rows = maps(x)
    assert maps.widths == [12, 2, 2] and rows.shape == (2, 16)
    by_hand = [x[0, c, i:i + 2, j:j + 2].mean() for c in range(3) for i in (0, 2) for j in (0, 2)]
    torch.testing.assert_close(rows[0, :12], torch.stack(by_hand))
    assert torch.equal(rows[:, 14:], x[:, :2, 0, 0])
