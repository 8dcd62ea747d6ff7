"""ELMo's mix of layers: by its definition, and that a task finds the layer that knows it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfsup import evals, report
from selfsup.evals import layer_mix
from selfsup.evals.layer_mix import Mix

TASKS = {"tasks": ["label", "order"], "weight_decay": [1e-3, 1.0], "steps": 150, "lr": 0.05, "bootstrap": 50}


class Layers(torch.nn.Module):
    """An encoder of three layers, of which the first knows the label, and the last, a hundred times as large, the
    order."""

    takes = "text"

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def prepare(self, column):
        return column

    def layers(self, x):
        return [x[:, layer, :, None, None] * size * self.one for layer, size in enumerate((1, 1, 100))]


class Split:
    columns = ["text", "label", "order"]

    def __init__(self, n, seed):
        random = torch.Generator().manual_seed(seed)
        self.values = {name: torch.randint(classes, (n,), generator=random)
                       for name, classes in (("label", 3), ("order", 2))}
        text = torch.randn(n, 3, 6, generator=random)
        text[:, 0, :3] += 3 * torch.nn.functional.one_hot(self.values["label"], 3)
        text[:, 2, 0] += 4 * self.values["order"]
        self.values["text"] = text

    def in_order(self, batch=512):
        yield self.values


@pytest.fixture(scope="module")
def found():
    data = SimpleNamespace(card={}, train=Split(400, 0), val=Split(200, 1), test=Split(300, 2))
    return dict(evals.run("layer_mix", Layers(), data, **TASKS))


def test_the_mix_starts_as_the_mean_and_is_equation_1():
    layers, mix = torch.randn(3, 4, 5), Mix(3)
    torch.testing.assert_close(mix(layers), layers.mean(0))
    mix.weight.data, mix.scale.data = torch.tensor([0.0, 1.0, 2.0]), torch.tensor(3.0)
    weight = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    torch.testing.assert_close(mix(layers), 3 * sum(float(w) * layer for w, layer in zip(weight, layers)))


def test_a_task_wants_the_layer_that_knows_it_however_large_it_is(found):
    label, order = found["tasks"]["label"], found["tasks"]["order"]
    assert label["accuracy"] > 85 and order["accuracy"] > 90 and found["accuracy"] == label["accuracy"]
    assert label["layers"]["0"] > 0.5 and order["layers"]["2"] > 0.5
    for task in (label, order):
        assert sum(task["layers"].values()) == pytest.approx(1, abs=1e-3)
        assert task["weight_decay"] in TASKS["weight_decay"]


def test_the_report_has_a_share_for_each_layer(found):
    seeds = {"0": found, "1": found}
    row = SimpleNamespace(title="elmo", results={"layer_mix": {"seeds": seeds}})
    panel = layer_mix.panel(report, [row], TASKS)
    heads, ((_, cells),) = panel.table
    columns = ("accuracy", "layer 0", "layer 1", "layer 2")
    assert heads == [f"{task}: {what}" for task in TASKS["tasks"] for what in columns]
    shares = [100 * share for share in found["tasks"]["order"]["layers"].values()]
    assert [cell["accuracy"] for cell in cells[5:8]] == pytest.approx(shares, abs=0.1)
    assert "elmo" in panel.figure and list(layer_mix.columns(TASKS)) == TASKS["tasks"]
