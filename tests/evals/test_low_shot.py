import copy
from types import SimpleNamespace

import pytest
import torch

import selfsup.data
from selfsup import evals, nets, report, shards
from selfsup.data.order import purchase
from selfsup.errors import UserError
from selfsup.evals import finetune, linear, low_shot
from selfsup.inputs.views import trained_on
from tests.evals.conftest import ArraySplit, blobs

BUDGET = {"images": 128, "batch": 32, "optimizer": "adamw", "lr": [1e-3, 1e-2], "weight_decay": 0.05, "warmup": 0.1,
          "clip": 1.0}
OPTIONS = {"shares": [1.0, 0.02, 0.1], "linear": {"weight_decay": [1e-3, 1e-1]}, "finetune": BUDGET}


@pytest.fixture
def net(data):
    for split in (data.train, data.val, data.test):
        split.images = split.images.repeat(1, 1, 6, 6)[:, :, :16, :16]
    net = nets.build("convnet", width=2)
    net.mean, net.std = [0.5] * 3, [0.25] * 3
    return net.eval().requires_grad_(False)


def test_both_ways_at_every_share(net, data):
    result = dict(evals.run("low_shot", net, data, **OPTIONS))
    assert data.test.reads == 1
    for way in ("linear", "finetune"):
        assert {share: r["labels"] for share, r in result[way].items()} == {"2": 8, "10": 40, "100": 400}
        assert all(r["low"] <= r["accuracy"] <= r["high"] for r in result[way].values())
    best = max(("linear", "finetune"), key=lambda way: result[way]["2"]["val_accuracy"])
    assert result["way"] == best and result["accuracy"] == result[best]["2"]["accuracy"]
    drop = {"labels"}
    whole = {name: value for name, value in result["linear"]["100"].items() if name not in drop}
    assert whole == dict(evals.run("linear", net, data, **OPTIONS["linear"]))       # all labels: the protocols of that name
    whole = {name: value for name, value in result["finetune"]["100"].items() if name not in drop}
    assert whole == dict(evals.run("finetune", net, data, **BUDGET))


def test_only_the_labels_bought_matter_and_they_are_every_encoders(net, data):
    """Wrong labels on all other training samples change nothing but the result on all of them."""
    first = dict(evals.run("low_shot", net, data, **OPTIONS))
    order = purchase(data.train.labels)
    seen = []
    fit = finetune.fit

    def spy(encoder, train, rate, **budget):
        seen.append(train)
        return fit(encoder, train, rate, **budget)

    other = nets.build("convnet", width=3).eval()
    other.mean, other.std = net.mean, net.std
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "fit", spy)
        dict(evals.run("low_shot", other, data, **OPTIONS))
    subsets = [part for part in seen[::2] if isinstance(part, evals.Subset)]
    assert [part.index.tolist() for part in subsets] == [sorted(order[:n].tolist()) for n in (8, 40)]
    for part in subsets:
        assert torch.equal(part.values["label"], data.train.labels[part.index])
        assert torch.equal(next(part.in_order(400))["image"], data.train.images[part.index])
        assert part.values["label"].bincount().unique().numel() == 1
    assert first == dict(evals.run("low_shot", net, data, **OPTIONS))


def test_numbers_of_labels_are_shares_of_them(net, data):
    """400 of them, of which 8 are 2 % and 100 are not 100 %: under keys of their own, the fewest first."""
    shares = dict(evals.run("low_shot", net, data, **{**OPTIONS, "shares": [0.02, 1.0]}))
    numbers = dict(evals.run("low_shot", net, data, **{**OPTIONS, "shares": [100, 8, 1.0]}))
    assert list(numbers["linear"]) == ["8 labels", "100 labels", "100"]
    for way in ("linear", "finetune"):
        assert numbers[way]["8 labels"] == shares[way]["2"] and numbers[way]["100"] == shares[way]["100"]
    points = {way: list(found) for way, found in low_shot.by_labels(numbers).items()}
    assert points == {"linear": [8, 100, 400], "fine-tuned": [8, 100, 400]}
    row = SimpleNamespace(title="a", role="", results={"low_shot": {"seeds": {"0": numbers}}})
    heads, _ = low_shot.table(report, [row])
    assert heads[0::2] == ["8 labels, fine-tuned", "100 labels, fine-tuned", "100 %, fine-tuned"]


@pytest.mark.parametrize("number", [1, 3, 401])
def test_fewer_labels_than_classes_or_more_than_there_are(net, data, number):
    with pytest.raises(UserError, match=f"low_shot.shares: {number} labels should be from 4, one a class, to 400"):
        dict(evals.run("low_shot", net, data, **{**OPTIONS, "shares": [number]}))


def test_as_many_labels_of_val_as_of_train(net, data, monkeypatch):
    """Those that a run of as many labels may see; wrong labels on all others change no choice."""
    data.val_labels = "same"
    seen = []
    monkeypatch.setattr(low_shot, "tune", lambda encoder, train, val, **options: seen.append(val) or (
        finetune.Classifier(encoder, 4).eval(), 0.5, 0.1))
    first = low_shot.choose(net, data, **OPTIONS)
    assert [len(val) for val in seen] == [8, 40, 200] and seen[2] is data.val
    known = purchase(data.val.labels, data.seed)[:8]
    assert seen[0].index.tolist() == sorted(known.tolist())
    wrong = torch.ones(200, dtype=bool)
    wrong[known] = False
    data.val.labels = torch.where(wrong, data.val.labels.roll(1), data.val.labels)
    second = low_shot.choose(net, data, **{**OPTIONS, "shares": [8]})
    assert first.found["linear"]["2"][1:] == second.found["linear"]["8 labels"][1:]


def test_fine_tuning_sees_the_views_that_are_asked_for(net, data, monkeypatch):
    seen, view = [], {"flip": 0.5}
    monkeypatch.setattr(finetune, "trained_on", lambda part, *given: seen.append(given[-1]) or trained_on(part, *given))
    dict(evals.run("low_shot", net, data, **{**OPTIONS, "shares": [8], "finetune": {**BUDGET, "augment": view}}))
    assert seen and all(augment is view for augment in seen)
    seen.clear()
    dict(evals.run("low_shot", net, data, **{**OPTIONS, "shares": [8]}))
    assert set(seen) == {"crop_flip"}


def test_a_subset_is_dealt_as_a_split_is(data):
    whole = evals.Subset(data.train, torch.randperm(400))
    for ours, theirs in zip(whole.batches(5, 48, 960), data.train.batches(5, 48, 960), strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    few = evals.Subset(data.train, torch.tensor([7, 3, 300]))
    (batch,) = few.batches(0, 9, 9)
    assert sorted(batch["index"].tolist()) == [3, 3, 3, 7, 7, 7, 300, 300, 300]
    assert batch["epoch"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert torch.equal(batch["image"], data.train.images[batch["index"]])


def test_a_subset_holds_no_pixels(tmp_path):
    """Of either reader the same samples: where they are, or from a file that has no name."""
    spec = dict(source="scenes", size=8, train=40, val=9, test=7, seed=0, max_bad=0)
    shards.write("toy", spec, tmp_path / "toy", workers=1)
    rows = torch.tensor([30, 2, 17, 5])
    found = []
    for reader in ("resident", "streaming"):
        split = selfsup.data.open(tmp_path / "toy", "train", reader, cache=tmp_path / "cache", labels=20)
        some, labelled = evals.Subset(split, rows), evals.Subset(split)
        assert some.index.tolist() == [2, 5, 17, 30] and len(labelled) == 20 and labelled.values["label"].min() >= 0
        nested = evals.Subset(labelled, torch.tensor([3, 1]))
        assert nested.index.tolist() == labelled.index[[1, 3]].tolist()
        found.append([batch for part in (some, labelled, nested) for batch in (*part.batches(1, 8, 40), *part.in_order(3))])
        mapped = [line for line in open("/proc/self/maps") if str(tmp_path / "cache") in line]
        assert any("(deleted)" in line for line in mapped) == (reader == "streaming")
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_more_labels_are_better_and_the_choice_is_made_on_val(net, data):
    data.test = ArraySplit(*blobs(200, 2), classes=4)
    data.test.images = data.test.images.repeat(1, 1, 6, 6)[:, :, :16, :16]
    before = copy.deepcopy(net.state_dict())
    chosen = dict(evals.run("low_shot", net, data, **OPTIONS))
    assert chosen["linear"]["2"]["accuracy"] < chosen["linear"]["100"]["accuracy"]
    data.test.labels = data.test.labels.roll(1)
    shuffled = dict(evals.run("low_shot", net, data, **OPTIONS))
    for way in ("linear", "finetune"):
        for share in ("2", "10", "100"):
            for name in ("val_accuracy", "lr", "weight_decay"):
                assert shuffled[way][share].get(name) == chosen[way][share].get(name)
    assert shuffled["way"] == chosen["way"]
    assert not net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
