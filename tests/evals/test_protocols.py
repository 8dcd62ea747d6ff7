"""What holds for every protocol, and the parts they share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup import evals
from selfsup.errors import UserError
from tests.evals.conftest import ArraySplit

GRIDS = {"knn": {"k": [1, 5, 20, 1000], "temperature": [0.05, 0.5]}, "linear": {"weight_decay": [1e-4, 1e-2, 10.0]},
         "layerwise": {"weight_decay": [1e-4, 1e-2, 10.0], "pool": 3}, "retrieval": {"k": [5, 1]}}
CHOOSING = ["knn", "linear", "layerwise"]


@pytest.mark.parametrize("protocol", GRIDS)
def test_beats_chance_and_repeats_exactly(protocol, encoder, data):
    result = dict(evals.run(protocol, encoder, data, **GRIDS[protocol]))
    assert 50 < result["low"] <= result["accuracy"] <= result["high"] <= 100
    assert result == dict(evals.run(protocol, encoder, data, **GRIDS[protocol]))


@pytest.mark.parametrize("protocol", CHOOSING)
def test_the_choice_is_made_on_val_alone(protocol, encoder, data):
    chosen = dict(evals.run(protocol, encoder, data, **GRIDS[protocol]))
    data.test.labels = data.test.labels[torch.randperm(len(data.test))]
    shuffled = dict(evals.run(protocol, encoder, data, **GRIDS[protocol]))
    for name in chosen.keys() - {"accuracy", "low", "high", "layers", "balanced"}:
        assert chosen[name] == shuffled[name], name
    assert shuffled["accuracy"] < chosen["accuracy"]


@pytest.mark.parametrize("protocol", GRIDS)
def test_every_split_is_read_once(protocol, encoder, data):
    dict(evals.run(protocol, encoder, data, **GRIDS[protocol]))
    assert (data.train.reads, data.val.reads, data.test.reads) == (1, 1, 1)


@pytest.mark.parametrize("protocol", GRIDS)
def test_the_choosing_half_alone_gives_the_same_val_accuracy(protocol, encoder, data):
    result = dict(evals.run(protocol, encoder, data, **GRIDS[protocol]))
    del data.test
    found = evals.judge(protocol, encoder, data, **GRIDS[protocol])
    assert found == {"val_accuracy": result.get("val_accuracy", found["val_accuracy"])}
    with pytest.raises(AttributeError, match="test"):
        list(evals.run(protocol, encoder, data, **GRIDS[protocol]))


def test_retrieval_is_judged_on_val_as_it_is_on_test(encoder, data):
    data.test = data.val
    result = dict(evals.run("retrieval", encoder, data, k=[5, 1]))
    assert evals.judge("retrieval", encoder, data, k=[5, 1]) == {"val_accuracy": result["accuracy"]}


def test_embed_normalises_and_restores_the_mode(encoder, data):
    encoder.train()
    features, labels = evals.embed(encoder, data.val, batch=33)
    expected = (data.val.images.numpy() / 255.0 - 0.5) / 0.25
    assert features.dtype == torch.float32 and not features.requires_grad and encoder.training
    np.testing.assert_allclose(features, expected.reshape(len(data.val), -1), rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, data.val.labels)


def test_embed_is_in_eval_mode(data):
    from selfsup import nets

    net = nets.build("convnet", width=2)
    net.mean, net.std = [0.5] * 3, [0.25] * 3
    net.train()
    data.val.images = data.val.images.repeat(1, 1, 6, 6)
    one, many = evals.embed(net, data.val, batch=1)[0], evals.embed(net, data.val, batch=200)[0]
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)  # batch statistics would differ


def test_an_encoder_is_given_no_more_than_there_is_room_for(encoder, data, monkeypatch):
    whole, given = evals.embed(encoder, data.val)[0], []
    monkeypatch.setattr(evals, "VALUES", 10 * data.val.images[0].numel())
    encoder.register_forward_pre_hook(lambda _, x: given.append(len(x[0])))
    assert torch.equal(evals.embed(encoder, data.val, batch=64)[0], whole)
    assert max(given) == 10 and sum(given) == len(data.val)


def test_features_that_are_not_numbers_are_an_error(encoder, data):
    encoder.scale.data.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        evals.embed(encoder, data.val)


@pytest.mark.parametrize("n, share", [(1000, 0.5), (1000, 0.9), (50, 0.4)])
def test_bootstrap_interval_is_that_of_a_binomial(n, share):
    correct = np.arange(n) < share * n
    low, high = evals.bootstrap(correct, 4000, seed=1)
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    assert low == pytest.approx(share - half, abs=0.2 * half) and high == pytest.approx(share + half, abs=0.2 * half)


def test_bootstrap_covers_the_truth():
    rng, truth, hits = np.random.default_rng(0), 0.7, 0
    for trial in range(300):
        low, high = evals.bootstrap(rng.random(400) < truth, 300, seed=trial)
        hits += low <= truth <= high
    assert 0.91 < hits / 300 < 0.985


@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(1, 200))
def test_bootstrap_stays_within_0_and_1_and_repeats(correct, n):
    low, high = evals.bootstrap(correct, n)
    assert 0 <= low <= high <= 1
    assert (low, high) == evals.bootstrap(correct, n)


def test_bootstrap_is_fast():
    import time

    start = time.perf_counter()
    evals.bootstrap(np.random.default_rng(0).random(10_000) < 0.7, 1000)
    assert time.perf_counter() - start < 1


def test_one_seed_keeps_its_bootstrap_interval():
    assert evals.summarise({"0": {"accuracy": 61.2, "low": 58.0, "high": 64.1, "k": 5}}) == {
        "accuracy": 61.2, "low": 58.0, "high": 64.1, "interval": "bootstrap"}


def test_several_seeds_get_students_interval():
    from scipy import stats

    values = [60.0, 62.5, 61.0]
    result = evals.summarise({str(i): {"accuracy": v, "low": 0.0, "high": 1.0} for i, v in enumerate(values)})
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert result == {"accuracy": round(np.mean(values), 2), "low": round(low, 2), "high": round(high, 2),
                      "interval": "seeds"}


def test_unknown_protocol_names_the_nearest():
    assert {"knn", "linear", "few_shot"} < set(evals.names())
    with pytest.raises(UserError, match='did you mean "linear"'):
        evals.load("linaer")


PARTLY = {**GRIDS, "finetune": {"images": 128, "batch": 32, "optimizer": "sgd", "lr": [1e-2], "weight_decay": 0.0,
                                "warmup": 0.1, "clip": 1.0}}
PARTLY["low_shot"] = {"shares": [0.1, 1.0], "linear": {"weight_decay": [1e-2]}, "finetune": PARTLY["finetune"]}


@pytest.mark.parametrize("protocol", PARTLY)
def test_samples_without_a_label_change_nothing(protocol, encoder, data):
    """Whatever is in their images. A sample's index, by which it is augmented, is that in the whole split."""
    for split in (data.train, data.val, data.test):
        split.labels[::3] = -1
    before = SimpleNamespace(card=data.card, seed=0, val_labels=None, **{name: evals.Subset(getattr(data, name)) for name in ("train", "val", "test")})
    assert len(before.train) == 266 and before.train.index[:4].tolist() == [1, 2, 4, 5]
    result = dict(evals.run(protocol, encoder, before, **PARTLY[protocol]))
    for split in (data.train, data.val, data.test):
        split.images[::3] = 255 - split.images[::3]
    after = SimpleNamespace(card=data.card, seed=0, val_labels=None, **{name: evals.Subset(getattr(data, name)) for name in ("train", "val", "test")})
    assert result == dict(evals.run(protocol, encoder, after, **PARTLY[protocol]))
    if protocol not in ("finetune", "low_shot"):         # which augment by index, and deal by it
        few = {name: ArraySplit(split.images[split.labels >= 0], split.labels[split.labels >= 0], 4)
               for name, split in (("train", data.train), ("val", data.val), ("test", data.test))}
        assert result == dict(evals.run(protocol, encoder, SimpleNamespace(card=data.card, **few), **PARTLY[protocol]))


def test_the_labels_low_shot_buys_are_those_that_a_budget_shows(data):
    """Of the same seed, whether the split is whole or a run sees a part of its labels."""
    from selfsup.evals import low_shot

    labels = data.train.labels.clone()
    order = low_shot.purchase(labels, 7)
    assert torch.equal(low_shot.bought(data.train, labels, 7), order)
    hidden = torch.full_like(labels, -1)
    hidden[order[:40]] = labels[order[:40]]
    data.train.labels = hidden
    part = evals.Subset(data.train)
    rows = low_shot.bought(part, part.values["label"], 7)
    assert part.index[rows].tolist() == order[:40].tolist()
    assert not torch.equal(order, low_shot.purchase(labels, 8))


def test_balanced_accuracy_counts_every_class_alike():
    labels = torch.tensor([0] * 80 + [1] * 20)
    correct = torch.arange(100) < 85  # all of the large class, a quarter of the small one
    ((name, found),) = evals.balanced(correct, labels, 500)
    assert name == "balanced" and found["accuracy"] == 62.5
    assert 50 < found["low"] < 58 and 67 < found["high"] < 75  # ± 2 · sqrt(.25 · .75 / 20) / 2
    assert not [*evals.balanced(correct, torch.arange(100) % 2, 500)]
