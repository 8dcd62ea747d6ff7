"""Bits a token against loops, beside counting, and where the report says that a model stands."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfsup import evals, nets, report
from selfsup.core.ngram import KneserNey
from selfsup.evals import bits
from tests.methods.test_next_token import V, texts


class Texts:
    """A split of texts without labels."""

    def __init__(self, n, seed):
        self.values, self.columns = texts(n, seed=seed), ["text"]

    def in_order(self, batch=512):
        for part in self.values.split(batch):
            yield {"text": part}


@pytest.fixture(scope="module")
def judged():
    torch.manual_seed(0)
    encoder = nets.build("token_lstm", vocabulary=V, dim=16, depth=1).eval()
    predict = torch.nn.Linear(16, V)
    data = SimpleNamespace(card={"vocabulary": V}, **{name: Texts(n, seed) for seed, (name, n) in enumerate(
        {"train": 200, "val": 50, "test": 40}.items())})
    found = dict(evals.run("bits", encoder, data, predict=predict, orders=[1, 2, 3], bootstrap=200))
    return encoder, predict, data, found


def test_bits_and_accuracy_against_loops(judged):
    encoder, predict, data, found = judged
    cost, right, share = [], [], []
    for row in data.test.values.tolist():
        text = [token for token in row if token]
        hits = 0
        for t in range(1, len(text)):
            logits = predict(encoder.states(torch.tensor([text[:t]]))[-1][0, -1]).detach().double().numpy()
            cost.append(-math.log2(np.exp(logits[text[t]]) / np.exp(logits).sum()))
            hits += logits.argmax() == text[t]
        share.append(hits / (len(text) - 1))
    model = found["model"]
    assert model["bits"] == pytest.approx(np.mean(cost), abs=2e-4) and model["low"] < model["bits"] < model["high"]
    assert found["accuracy"] == pytest.approx(100 * np.mean(share), abs=0.01)


def test_counting_is_kneser_neys_on_the_same_texts(judged):
    *_, data, found = judged
    for order in (1, 2, 3):
        counted = KneserNey(data.train.values.numpy(), order, V)
        assert found["orders"][str(order)]["bits"] == pytest.approx(counted.bits(data.test.values.numpy()), abs=1e-4)
    assert found["order"] == min((1, 2, 3), key=lambda order: found["orders"][str(order)]["val_bits"])


def test_the_report_says_where_a_model_stands(judged, tmp_path):
    found = json.loads(json.dumps(judged[-1]))
    found["model"] = {"bits": 1.5, "low": 1.4, "high": 1.6}
    found["orders"] = {"1": {"bits": 3.0, "low": 3.0, "high": 3.1}, "2": {"bits": 1.4, "low": 1.3, "high": 1.5}}
    row = SimpleNamespace(title="rnn", run=SimpleNamespace(data="toy"), results={"bits": {"seeds": {"0": found}}},
                          history={0: [{"images": 10, "bits": 2.0}, {"images": 20, "bits": 1.6}]})
    panel = bits.panel(report, [row], {"orders": [1, 2]})
    assert panel.sentences == ["rnn: 1.500 bits, below counting of order 1, above order 2."]
    assert panel.table[1][0][1][0] == {"accuracy": 1.5, "low": 1.4, "high": 1.6, "interval": "bootstrap"}
    assert "order 2" in panel.figure and panel.digits == 2
    assert report.interval(panel.table[1][0][1][0], panel.digits) == "1.50 [1.40, 1.60]"


def test_labels_that_would_lie_on_one_another_are_one():
    heights = {"1": 6.4, "2": 2.5, "3": 1.9, "4": 1.88, "5": 1.75, "6": 1.74}
    assert bits.beside(heights, 0.05) == [(6.4, ["1"]), (2.5, ["2"]), (1.9, ["3", "4"]), (1.75, ["5", "6"])]
    assert bits.beside({}, 1) == []
