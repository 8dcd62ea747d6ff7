"""Films and sets of points in the report."""

import math
import re

import numpy as np
import pytest
import torch

from selfsup import data, shards, sources
from selfsup.report import clouds, films, table, texts
from selfsup.report.rows import Sample
from tests.test_moving import SIDE, film

CARD = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": ["a", "b"]}


class Split:
    card = CARD

    def __init__(self, **columns):
        self.columns = {**columns, "label": torch.arange(len(next(iter(columns.values())))) % 2}

    def __len__(self):
        return len(self.columns["label"])

    def in_order(self):
        yield {**self.columns, "index": torch.arange(len(self))}


def test_flow_is_drawn_in_the_usual_colours():
    """Right is red, down yellow, left cyan-blue, up blue-violet, as on Middlebury's wheel; still is white."""
    directions = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]) * 32
    drawn = films.colours(directions.short()[:, :, None, None])[:, 0, 0].astype(int)
    right, down, left, up, still = drawn
    assert right[0] == 255 and right[1:].max() < 40
    assert down[0] > 200 and down[1] > 200 and down[2] < 40
    assert left[0] < 40 and left[1] > 150 and left[2] > 150
    assert up[2] == 255 and up[1] < 120 and (still == 255).all()
    half = films.colours(torch.tensor([[[[16]], [[0]]], [[[32]], [[0]]]]).short())
    np.testing.assert_allclose(half[0, 0, 0], (255 + right) / 2, atol=1)


def test_films_are_shown_with_what_was_found_and_how_well():
    frames, flow, truth, start = film((2.0, 1.0), n=10, noise=0.1)
    at = torch.arange(4)[None, :, None] * torch.tensor([2, 1])  # x, y
    low = start.flip(1)[:, None] + at
    boxes = torch.cat([low, low + 11], 2)[:, :, None].float() / SIDE
    split = Split(image=frames[:, 0].byte(), frames=((frames + 2) * 60).byte(), flow=flow, mask=truth.byte(), boxes=boxes)
    panel = films.panel("films", CARD, Sample(split))
    assert "data:image/png;base64," in panel.figure and panel.name == "films-films"
    found, followed = panel.sentences
    assert "10 films" in found and "what was found to move; what does" in panel.text
    first, last, stays = (int(word) for word in followed.replace("%", "").split() if word.isdigit())
    assert first > 25 and last > stays + 5
    assert films.panel("plain", CARD, Sample(Split(image=frames[:, 0].byte()))) is None


def test_the_iou_of_squares_against_loops():
    corner, boxes = torch.tensor([[2, 3], [0, 0]]), torch.tensor([[5.0, 1, 9, 7], [20, 20, 30, 30]])
    hit = np.zeros((2, 40, 40), int)
    hit[0, 2:8, 3:9] += 1
    hit[0, 1:7, 5:9] += 2
    expected = (hit[0] == 3).sum() / (hit[0] > 0).sum() / 2
    assert films.box_iou(corner, 6, boxes) == pytest.approx(expected)


def test_points_are_shown_from_three_sides_in_one_place(monkeypatch):
    """Both scans where the first one is: the inverse of the transform is what brings the second there."""
    turn = torch.tensor([[math.cos(1), 0, math.sin(1)], [0, 1, 0], [-math.sin(1), 0, math.cos(1)]])
    first, shift = torch.rand(6, 30, 3), torch.tensor([1.0, 2, 3])
    move = torch.cat([turn, shift[:, None]], 1).repeat(6, 1, 1)
    split = Split(points=torch.stack([first, first @ turn.T + shift], 1), transform=move)
    seen = []
    from matplotlib.axes import Axes

    draw = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **k: seen.append((x, y)) or draw(self, x, y, **k))
    panel = clouds.panel("solids", CARD, Sample(split))
    assert "data:image/png;base64," in panel.figure and "two scans" in panel.text and len(seen) == 36
    for one, other in zip(seen[::2], seen[1::2]):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert clouds.panel("plain", CARD, Sample(Split(image=torch.zeros(4, 3, 8, 8).byte()))) is None


@pytest.mark.parametrize("columns, size, samples", [
    (["image", "label"], 32, "images of 32 px"), (["text", "label"], None, "texts"), (["points", "label"], None, "samples")])
def test_what_a_data_set_holds_is_called_by_its_name(columns, size, samples):
    card = {"name": "some", "counts": {"train": 1200, "val": 3, "test": 4}, "classes": ["a", "b"], "hash": "0" * 64,
            "columns": columns, "size": size}
    assert table.describe(card) == f"Data set some: 1,200 train / 3 val / 4 test {samples}, 2 classes, hash {'0' * 12}."


def test_texts_are_shown_as_they_were_written(tmp_path):
    spec = {"source": "stories", "train": 30, "val": 12, "test": 6, "seed": 0, "max_bad": 0.0, "tokens": "words"}
    folder = tmp_path / "data/shards/stories"
    card = shards.write("stories", spec, folder, workers=1)
    found = texts.told({"stories": Sample(data.open(folder, "val", cache=tmp_path)),
                        "pictures": Sample(Split(image=torch.zeros(4, 3, 8, 8), text=torch.zeros(4, 5)))}, tmp_path)
    source = sources.load("stories").source(**{name: spec[name] for name in ("train", "val", "test", "seed")})
    written = [" ".join(re.findall(r"\w+|[^\w\s]", sample["text"].lower())) for _, sample in source.read("val", 0, 12)]
    assert list(found) == ["stories"] and 1 < len(found["stories"]) <= len(card["classes"])
    for topic, text in found["stories"]:
        beginning = " ".join(text.split()[:20])
        assert topic in card["classes"] and any(beginning in one for one in written)
