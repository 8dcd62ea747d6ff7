"""Episodes of new classes: what each way of telling them makes of features whose truth is known."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from selfsup import evals, nets, report
from selfsup.data.order import Episodes
from selfsup.errors import UserError
from selfsup.evals import few_shot
from tests.evals.conftest import ArraySplit, Flatten, blobs

OPTIONS = {"ways": 3, "shots": [1, 3], "queries": 4, "episodes": 30, "lr": [0.01, 1.0], "scale": [2.0], "steps": [1, 5],
           "bootstrap": 100}


def splits():
    """Of six classes each."""
    val, test = (ArraySplit(*blobs(120, seed, classes=6), classes=12) for seed in (0, 1))
    return SimpleNamespace(val=val, test=test, card=val.card, seed=0, shards="toy")


@pytest.fixture
def new():
    return splits()


@pytest.fixture(scope="module")
def found():
    return dict(evals.run("few_shot", Flatten(), splits(), **OPTIONS))


def test_every_way_beats_chance_and_what_is_chosen_is_chosen_on_val(encoder, new, found):
    assert list(found)[5:] == ["prototypical", "baseline", "baseline++"]
    for way in ("prototypical", "baseline", "baseline++"):
        assert list(found[way]) == ["1", "3"]
        assert all(45 < cell["low"] <= cell["accuracy"] <= cell["high"] for cell in found[way].values())  # chance is 33
        assert found[way]["3"]["accuracy"] > found[way]["1"]["accuracy"]
    assert found["way"] == max(few_shot.WAYS[:3], key=lambda way: found[way]["1"]["val_accuracy"])
    assert found["accuracy"] == found[found["way"]]["1"]["accuracy"]
    new.test.labels = new.test.labels[torch.randperm(120)]
    other = dict(evals.run("few_shot", encoder, new, **OPTIONS))
    for way in few_shot.WAYS[:3]:  # and on labels that say nothing each is at chance, 1 / N
        for shots in ("1", "3"):
            cell, same = other[way][shots], found[way][shots]
            assert {key: cell[key] for key in cell if key not in ("accuracy", "low", "high")} == {
                key: same[key] for key in same if key not in ("accuracy", "low", "high")}
            assert cell["accuracy"] == pytest.approx(100 / 3, abs=8)


def test_the_interval_is_over_episodes(encoder, new, found):
    """Of each its share of right answers: queries of one episode are not independent, as one over them all would have
    it."""
    grids = {1: {"prototypical": [{}]}, 3: {"prototypical": [{}]}}
    asked = SimpleNamespace(ways=3, shots=[1, 3], queries=4, episodes=30, initial=None)
    right = {shots: told["prototypical"][0] for shots, told in few_shot.answers(encoder, new, "test", asked, grids)}
    for shots, some in right.items():
        assert some.shape == (30,)
        told, (low, high) = found["prototypical"][str(shots)], evals.bootstrap(some.numpy(), 100)
        assert (told["low"], told["high"]) == (evals.percent(low), evals.percent(high))


def test_prototypes_against_loops(encoder, new, found):
    features, labels = evals.embed(encoder, new.test)
    known = SimpleNamespace(folder="toy", name="test", numbers=lambda column: labels)
    shares = []
    for rows in Episodes(3, 3, 4).over(known, 0)(torch.arange(30))[0]:
        episode = rows.view(3, 7)
        means = [features[some[:3]].mean(0) for some in episode]
        right = [int(torch.stack([(features[i] - mean).norm() for mean in means]).argmin()) == k
                 for k, some in enumerate(episode) for i in some[3:].tolist()]
        shares.append(sum(right) / len(right))
    assert found["prototypical"]["3"]["accuracy"] == pytest.approx(100 * sum(shares) / 30, abs=0.01)


def one_classifier(x, query, start, cosine, lr):
    """Chen et al. 2019's code for one episode, by torch's own layers and optimiser; its cosines without a learned
    length."""
    ways, shots, width = x.shape
    layer = torch.nn.Linear(width, ways, bias=not cosine)
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), start):
            parameter.copy_(value)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=0.9, dampening=0.9, weight_decay=0.001)
    rows, label = x.flatten(0, 1), torch.arange(ways).repeat_interleave(shots)

    def logits(x):
        return 2 * F.cosine_similarity(x[:, None], layer.weight[None], dim=2) if cosine else layer(x)

    for epoch in range(100):
        for some in few_shot.rng.permutation(len(rows), 0, epoch).split(4):
            optimizer.zero_grad()
            F.cross_entropy(logits(rows[some]), label[some]).backward()
            optimizer.step()
    return logits(query.flatten(0, 1)).argmax(1)


@pytest.mark.parametrize("cosine", [False, True])
def test_all_episodes_at_once_are_each_by_itself(cosine):
    """Excludes a gradient that is divided by the number of episodes, and a step that mixes them."""
    random = torch.Generator().manual_seed(0)
    support, query = torch.randn(3, 2, 3, 5, generator=random), torch.randn(3, 2, 40, 5, generator=random)
    ours = few_shot.tell_linear(support, query, lr=0.5, scale=2.0 if cosine else None)
    key = few_shot.rng.key(0, torch.arange(3))
    weight, bias = ((2 * few_shot.rng.uniform(key, n, m, salt=salt) - 1) / 5**0.5
                    for n, m, salt in ((2, 5, 0), (1, 2, 1)))
    for e in range(3):
        theirs = one_classifier(support[e], query[e], (weight[e], bias[e, 0]), cosine, 0.5)
        assert (ours[e] == theirs).float().mean() > 0.98
    assert 0.1 < ours.float().mean() < 0.9


def test_baseline_plus_plus_is_a_classifier_of_cosines():
    """The scale of features changes nothing. Excludes the length that their code learns for each class."""
    support, query = torch.randn(4, 3, 2, 6), torch.randn(4, 3, 20, 6)
    longer = [x * torch.rand(4, 3, x.shape[2], 1).add(0.1) * 9 for x in (support, query)]
    assert torch.equal(few_shot.tell_linear(support, query, 0.1, 5.0), few_shot.tell_linear(*longer, 0.1, 5.0))
    assert not torch.equal(few_shot.tell_linear(support, query, 0.1), few_shot.tell_linear(*longer, 0.1))


def test_an_encoder_that_comes_with_a_start_is_adapted(new):
    """By as many steps as are best on val, weights and all; it is itself as before."""
    net = nets.build("vit", size=3, patch=1, dim=8, depth=1, heads=2)
    initial = nets.build("initial", d_in=8, d_out=3, rate=0.5)
    net.mean, net.std = [0.5] * 3, [0.25] * 3
    net.eval().requires_grad_(False), initial.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    options = {**OPTIONS, "episodes": 6, "shots": [3], "lr": [1.0], "initial": initial}
    found = dict(evals.run("few_shot", net, new, **options))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert found["adapted"]["3"]["steps"] == 5 and found["adapted"]["3"]["val_accuracy"] > 45
    column, here = new.test.images, torch.arange(18).view(1, 3, 6)  # by a loop: the steps on one episode
    trained = torch.nn.Sequential(net, initial)
    rows = net.prepare(column[here[0, :, :2].flatten()])
    weights = dict(trained.named_parameters())
    for _ in range(5):
        live = {name: value.clone().requires_grad_() for name, value in weights.items()}
        loss = F.cross_entropy(torch.func.functional_call(trained, live, rows), torch.arange(3).repeat_interleave(2))
        weights = {name: value.detach() - 0.5 * value_grad for (name, value), value_grad in zip(
            live.items(), torch.autograd.grad(loss, list(live.values())))}
    told = torch.func.functional_call(trained, weights, net.prepare(column[here[0, :, 2:].flatten()])).argmax(1)
    ours = few_shot.tell_adapted(net, initial, column, here[:, :, :2], here[:, :, 2:], [1, 5])
    assert torch.equal(ours[1][0], told) and len(ours) == 2
    with pytest.raises(UserError, match="few_shot.ways is 2, and the run was trained to tell 3 classes apart"):
        evals.judge("few_shot", net, new, **{k: v for k, v in options.items() if k != "bootstrap"} | {"ways": 2})


@pytest.mark.parametrize("change, words", [
    ({"ways": 7}, "toy has 6 classes of 7 samples or more in val: too few for episodes of 7"),
    ({"shots": [100]}, "no number of the column label has 104 samples in val")])
def test_too_few_classes_are_one_sentence(encoder, new, change, words):
    with pytest.raises(UserError, match=words):
        evals.judge("few_shot", encoder, new, **{k: v for k, v in {**OPTIONS, **change}.items() if k != "bootstrap"})


def test_the_report_has_a_table_of_shots_and_ways(found):
    other = {**found, "baseline": {k: {**v, "accuracy": v["accuracy"] + 2} for k, v in found["baseline"].items()}}
    rows = [SimpleNamespace(title="a", results={"few_shot": {"seeds": {"0": found, "1": other}}})]
    panel = few_shot.panel(report, rows, OPTIONS)
    heads, ((_, cells),) = panel.table
    assert heads == ["1-shot, baseline", "1-shot, baseline++", "1-shot, prototypical",
                     "3-shot, baseline", "3-shot, baseline++", "3-shot, prototypical"]
    assert cells[0]["interval"] == "seeds"
    assert cells[0]["accuracy"] == pytest.approx(found["baseline"]["1"]["accuracy"] + 1)
    assert "Chance is 33.3333 %" in next(few_shot.notes(report, rows, OPTIONS)) and len(panel.remarks) == 4
