"""Segmentation: IoU with the truth on crops around what moves, by a mask and by clusters, beside two guesses."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn

from selfsup import evals
from selfsup.errors import UserError
from selfsup.evals import segmentation
from selfsup.layers import ImageEncoder
from tests.test_moving import SIDE, film

OPTIONS = {"crop": 0.75, "clusters": [2, 3]}


class Films:
    """A split of films in which the square that moves is of lighter colours; label and image are of no use."""

    def __init__(self, n, seed, noise=0.1):
        frames, self.flow, truth, _ = film((2.0, 1.0), n=n, seed=seed, noise=noise)
        self.frames = ((frames + 2) * 60).clamp(0, 255).to(torch.uint8)
        self.mask = truth.byte()
        self.reads = 0

    def __len__(self):
        return len(self.mask)

    def in_order(self, batch=512):
        self.reads += 1
        yield {"frames": self.frames, "flow": self.flow, "mask": self.mask}


class Colours(ImageEncoder):
    def __init__(self):
        super().__init__()
        self.mean, self.std, self.dim = [0.5] * 3, [0.25] * 3, 3
        self.scale = nn.Parameter(torch.ones(1))

    def layers(self, x):
        return [x * self.scale, x.mean((2, 3), keepdim=True)]


class Light(nn.Module):
    """One number a pixel, above 0 where it is light; or its colours, `several`."""

    def __init__(self, several=False):
        super().__init__()
        self.several = several

    def forward(self, maps):
        return maps[0] if self.several else maps[0].mean(1, keepdim=True)


@pytest.fixture
def films():
    card = {"columns": ["image", "label", "frames", "flow", "mask"], "size": SIDE}
    return SimpleNamespace(card=card, val=Films(12, 1), test=Films(12, 2), shards="films")


@pytest.mark.parametrize("pixels", [Light(), Light(several=True), None], ids=["mask", "embedding", "maps"])
def test_what_moves_is_found_by_its_colour(films, pixels):
    said = dict(evals.run("segmentation", Colours(), films, bootstrap=50, pixels=pixels, **OPTIONS))
    assert said["accuracy"] > 75 and said["low"] <= said["accuracy"] <= said["high"]
    assert said["clusters"] is None if isinstance(pixels, Light) and not pixels.several else said["clusters"] in (2, 3)
    assert said["found"]["accuracy"] > 60 > 35 > said["all_foreground"]["accuracy"] > 10
    assert films.test.reads == 1


def test_the_guesses_are_measured_on_the_same_crops(films):
    """All-foreground is as good as the thing is large, which in a crop around it is larger."""
    test = films.test
    frames = (test.frames.float() / 255 - 0.5) / 0.25
    image, found, truth = segmentation.cuts(frames, test.flow, test.mask == 1, 0.75)
    share = [float(x.float().mean()) for x in truth]
    assert sum(share) / 12 > 1.3 * float((test.mask == 1).float().mean()) and image.shape[-1] == SIDE
    said = dict(evals.run("segmentation", Colours(), films, bootstrap=50, pixels=Light(), **OPTIONS))
    assert said["all_foreground"]["accuracy"] == pytest.approx(100 * sum(share) / 12, abs=0.01)
    both = [float((a & b).sum() / (a | b).sum()) for a, b in zip(found > 0.5, truth)]
    assert said["found"]["accuracy"] == pytest.approx(100 * sum(both) / 12, abs=0.01)


def test_the_number_of_clusters_is_chosen_on_val(films):
    films.test.mask = 1 - films.test.mask
    said = dict(evals.run("segmentation", Colours(), films, bootstrap=50, **OPTIONS))
    assert said["val_accuracy"] > 75 and said["accuracy"] < 30


def test_data_without_films_are_refused(films):
    films.card["columns"].remove("flow")
    with pytest.raises(UserError, match="films: segmentation needs the column 'flow'"):
        evals.judge("segmentation", Colours(), films, **OPTIONS)


def test_of_clusters_the_one_in_the_middle_is_the_thing():
    values = torch.zeros(2, 16, 16)
    values[0], values[1, 5:11, 4:12] = 1, 5
    assert torch.equal(segmentation.inner(values[None], 2), values[None, 1] == 5)
