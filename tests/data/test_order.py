"""Who is in a batch, and which labels a run may see."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from selfsup import data, shards
from selfsup.core import rng
from selfsup.data import order
from selfsup.errors import UserError

SPEC = dict(source="scenes", size=8, train=60, val=9, test=7, seed=0, max_bad=0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 7)
        shards.write("toy", SPEC, folder, workers=1)
    return folder


def opened(toy, reader="resident", **options):
    return data.open(toy, "train", reader, cache=toy.parent / "cache", **options)


class Labels:
    folder, name = "toy", "train"

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def numbers(self, column):
        return self.labels


def dealt(labels, deal_by, seed, groups):
    """(index, epoch), both (groups, deal_by.group), of a split that has only these labels."""
    return deal_by.over(Labels(labels), seed)(torch.arange(groups))


ORDERS = [order.Shuffled(), order.Labelled(2), order.Pairs(), order.Episodes(2, 1, 2)]


@pytest.mark.parametrize("deal", ORDERS, ids=lambda deal: type(deal).__name__)
def test_ranks_workers_and_resuming_change_nothing(toy, deal):
    split, batch, steps = opened(toy, labels=30), 4 * deal.group, 9
    whole = list(split.batches(3, batch, steps * batch, order=deal))
    assert len(whole) == steps and len(whole[0]["index"]) == batch
    for world, workers, start in [(2, 0, 0), (4, 0, 0), (2, 2, 0), (1, 0, 5), (1, 2, 5)]:
        ranks = [split.batches(3, batch, steps * batch, rank, world, start, workers, deal) for rank in range(world)]
        for expected, parts in zip(whole[start:], zip(*ranks, strict=True), strict=True):
            assert all(torch.equal(torch.cat([part[name] for part in parts]), expected[name]) for name in expected)
    again, other = (next(split.batches(seed, batch, batch, order=deal)) for seed in (3, 4))
    assert torch.equal(again["index"], whole[0]["index"]) and not torch.equal(other["index"], whole[0]["index"])


@given(seed=st.integers(0, 2**40), ratio=st.integers(1, 5),
       labels=st.lists(st.integers(-1, 3), min_size=4, max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_labelled_batch_beside_an_unlabelled_one(seed, labels, ratio):
    labels = torch.tensor(labels)
    assume((labels >= 0).any())
    n, m = int((labels >= 0).sum()), len(labels)
    index, epoch = dealt(labels, order.Labelled(ratio), seed, n * m)
    first, others = order.apart(index.flatten(), ratio)
    assert torch.equal(first, index[:, 0]) and torch.equal(others, index[:, 1:].flatten())
    assert (labels[first] >= 0).all()
    for some, size in ((slice(0, 1), n), (slice(1, None), m)):  # each goes through its own samples, once an epoch
        pairs = list(zip(epoch[:, some].flatten().tolist(), index[:, some].flatten().tolist()))
        assert len(set(pairs)) == len(pairs) and len(pairs) % size == 0
        assert {e for e, _ in pairs} == set(range(len(pairs) // size))


@given(seed=st.integers(0, 2**40), labels=st.lists(st.integers(-1, 5), min_size=2, max_size=40))
@settings(max_examples=50, deadline=None)
def test_pairs_are_of_one_class_and_never_the_same_sample(seed, labels):
    labels = torch.tensor(labels)
    many = torch.isin(labels, torch.tensor([c for c in range(6) if (labels == c).sum() > 1]))
    assume(many.any())
    index, epoch = dealt(labels, order.Pairs(), seed, 2 * int(many.sum()))
    assert (labels[index[:, 0]] == labels[index[:, 1]]).all() and (index[:, 0] != index[:, 1]).all()
    for e in (0, 1):  # each sample that has a partner is an anchor once
        assert sorted(index[epoch[:, 0] == e, 0].tolist()) == many.nonzero()[:, 0].tolist()


def test_every_partner_is_as_likely():
    index, _ = dealt(torch.zeros(5, dtype=torch.long), order.Pairs(), 0, 20000)
    counts = torch.stack([(index[index[:, 0] == anchor, 1]).bincount(minlength=5) for anchor in range(5)])
    assert (counts.diagonal() == 0).all() and ((counts - 1000).abs() < 150)[~torch.eye(5, dtype=torch.bool)].all()


@given(seed=st.integers(0, 2**40), sizes=st.lists(st.integers(0, 9), min_size=3, max_size=8))
@settings(max_examples=50, deadline=None)
def test_episodes(seed, sizes):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    assume(sum(n >= 3 for n in sizes) >= 2)
    index, epoch = dealt(labels, order.Episodes(ways=2, shots=1, queries=2), seed, 6)
    for e, episode in enumerate(index):
        ways = labels[episode].view(2, 3)
        assert (ways == ways[:, :1]).all() and ways[0, 0] != ways[1, 0] and len(episode.unique()) == 6
        assert (epoch[e] == e).all()


def test_a_batch_that_cuts_a_group_is_refused(toy):
    with pytest.raises(UserError, match="train.batch: 4 samples a process are not whole groups of 3, which Labelled"):
        opened(toy, labels=20).batches(0, 8, 80, world=2, order=order.Labelled(2))
    with pytest.raises(UserError, match="6 samples in train"):
        opened(toy, labels=20).batches(0, 96, 960, order=order.Episodes(2, 3, 3))
    with pytest.raises(UserError, match="Pairs batches need the whole split at hand: use train.reader: resident"):
        opened(toy, "streaming").batches(0, 8, 80, order=order.Pairs())
    with pytest.raises(UserError, match='no column of numbers "lable"; did you mean "label"'):
        opened(toy).batches(0, 8, 80, order=order.Pairs("lable"))


# Few labels


def test_labels_are_bought_one_of_each_class_in_turn():
    labels = torch.tensor([0] * 50 + [1] * 3 + [2] * 30)[torch.randperm(83)]
    bought = order.purchase(labels)
    assert sorted(bought.tolist()) == list(range(83))
    for n in range(1, 84):  # balanced as far as the classes reach
        counts = labels[bought[:n]].bincount(minlength=3)
        left = counts[counts < torch.tensor([50, 3, 30])]
        assert not len(left) or counts.max() - left.min() <= 1
    assert torch.equal(bought, order.purchase(labels))


def test_the_order_within_a_class_is_that_of_keys_of_the_index():
    labels = torch.arange(40) % 4
    bought, key = order.purchase(labels), rng.uniform(rng.key(0, torch.arange(40)))
    for c in range(4):
        mine = [i for i in bought.tolist() if labels[i] == c]
        assert mine == sorted(mine, key=lambda i: key[i]) and mine != sorted(mine)


@given(labels=st.lists(st.integers(-1, 4), min_size=1, max_size=60), seed=st.integers(0, 99), share=st.floats(0.01, 1))
def test_what_a_budget_reveals(labels, seed, share):
    labels = torch.tensor(labels)
    there = int((labels >= 0).sum())
    assume(there)
    before = torch.zeros(len(labels), dtype=torch.bool)
    for budget in range(1, there + 1):
        shown = order.revealed(labels, budget, seed)
        assert shown.sum() == budget and (labels[shown] >= 0).all() and (shown | ~before).all()
        before = shown
    count = int(order.revealed(labels, share, seed).sum())
    assert count == max(len(labels[labels >= 0].unique()), round(share * there))
    for wrong in (0, there + 1):
        with pytest.raises(UserError, match=f"labels: {wrong} should be a number between 1 and {there}"):
            order.revealed(labels, wrong, seed)


@pytest.mark.parametrize("reader", ["resident", "streaming"])
def test_hidden_labels_are_missing_and_change_nothing(toy, tmp_path, reader, monkeypatch):
    """All labels that are hidden are made wrong, in the tars themselves: which are revealed was settled before."""
    whole, few = opened(toy, reader).numbers("label"), opened(toy, reader, labels=20, seed=1)
    shown = order.revealed(whole, 20, 1)
    batches = [batch for batch in few.batches(0, 12, 240)]
    for batch in [*batches, *few.in_order(7)]:
        assert torch.equal(batch["label"], whole[batch["index"]].where(shown[batch["index"]], -1))
    assert torch.equal(few.numbers("label"), whole.where(shown, -1)) and shown.sum() == 20

    from selfsup.sources import scenes

    original, wrong = scenes.samples, ((whole + 1) % 10).where(~shown, whole)

    def changed(split, *args, **options):
        for i, sample in enumerate(original(split, *args, **options), options["start"]):
            yield {**sample, "label": int(wrong[i])} if split == "train" else sample

    with monkeypatch.context() as patch:
        patch.setattr(scenes, "samples", changed)
        patch.setattr(shards, "SHARD", 7)
        shards.write("other", SPEC, tmp_path / "other", workers=1)
    assert not torch.equal(opened_other(tmp_path, reader).numbers("label"), whole)
    monkeypatch.setattr(order, "revealed", lambda labels, budget, seed: shown)
    other = opened_other(tmp_path, reader, labels=20, seed=1)
    for a, b in zip(batches, other.batches(0, 12, 240), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def opened_other(tmp_path, reader, **options):
    return data.open(tmp_path / "other", "train", reader, cache=tmp_path / "cache", **options)


def test_which_labels_are_revealed_depends_on_nothing_that_comes_later_in_the_order():
    """Changing labels of samples that are bought later than all revealed ones reveals the same."""
    labels = torch.arange(200) % 5
    shown = order.revealed(labels, 40, 7)
    key = rng.uniform(rng.key(7, torch.arange(200)))
    later = key > key[shown].max()
    assert later.sum() > 20
    assert torch.equal(order.revealed(((labels + 1) % 5).where(later, labels), 40, 7), shown)


def test_only_training_labels_are_hidden_and_columns_not_read_stay_hidden(toy):
    cache = toy.parent / "cache"
    assert (data.open(toy, "val", cache=cache, labels=3).numbers("label") >= 0).all()
    split = opened(toy, columns=["image"], labels=20)
    assert set(next(split.batches(0, 4, 40))) == {"image", "index", "epoch"}
    assert (split.numbers("label") >= 0).sum() == 20
