"""Layers of one network beneath new ones: what is kept is kept, what is new is new, and the controls are what they
should be."""

from types import SimpleNamespace

import torch

from selfsup import evals, nets, report
from selfsup.evals import finetune, transferability
from tests.evals.test_finetune import BUDGET


def base(net, data):
    """An encoder trained on the labels of data, as selfsup.load gives it."""
    return finetune.fit(net, data.train, 1e-2, **BUDGET).encoder.eval().requires_grad_(False)


def test_what_is_kept_is_the_bases_and_what_is_new_is_nobodys(net, stripes):
    torch.manual_seed(0)
    fresh = nets.build("convnet", width=4)                # as a run of seed 0 starts
    names = finetune.layers(net, stripes.train)
    new = transferability.renewed(net, sum(names[2:], []), 0)
    for name, value in new.state_dict().items():
        kept = name.startswith(("blocks.0.", "blocks.1."))
        same = torch.equal(value, net.state_dict()[name])
        assert same if kept else not same or ".1." in name  # BatchNorm starts alike
        assert kept or ".1." in name or not torch.equal(value, fresh.state_dict()[name])  # not the base's own start
    again, other = (transferability.renewed(fresh, sum(names, []), seed) for seed in (0, 1))
    assert not torch.equal(again.blocks[0][0].weight, other.blocks[0][0].weight)
    assert torch.equal(new.blocks[4][1].running_var, torch.ones(32))  # its statistics are no more the base's either


def test_depths_from_all_anew_to_the_base_itself(net, stripes):
    trained, budget = base(net, stripes), {**BUDGET, "images": 320, "lr": [1e-2]}
    chosen = transferability.choose(trained, stripes, **budget)
    frozen, tuned = chosen.found["frozen"], chosen.found["tuned"]
    assert list(frozen) == list(tuned) == [0, 1, 2, 3, 4, 5] and frozen[0] is tuned[0]
    own = trained.state_dict()
    for n, (found, _, _) in frozen.items():               # bit by bit, BatchNorm's statistics too
        kept = {int(name.split(".")[1]) for name, value in found.encoder.state_dict().items()
                if torch.equal(value, own[name])}
        assert kept == set(range(n))
    assert not any(torch.equal(value, own[name]) for name, value in tuned[5][0].encoder.state_dict().items())
    # BnB with all layers kept and the classifier fitted anew is the base again; and on nothing kept no base has a say.
    told = dict(transferability.test(trained, stripes, chosen, 100))
    assert told["frozen"]["5"]["accuracy"] == 100 and told["frozen"]["0"] == told["tuned"]["0"]
    assert {"way", "layers", "accuracy", "low", "high", "val_accuracy"} < set(told)
    start = transferability.renewed(net, sum(finetune.layers(net, stripes.train), []), 0)
    by_other = finetune.tune(start, stripes.train, stripes.val, **budget)
    assert by_other[1:] == frozen[0][1:]
    assert all(torch.equal(a, b) for a, b in zip(by_other[0].state_dict().values(), frozen[0][0].state_dict().values()))
    assert evals.load("transferability").elsewhere


def result(accuracy, **more):
    return {"accuracy": accuracy, "low": accuracy - 1, "high": accuracy + 1, **more}


def test_the_report_has_a_line_for_each_run_data_set_and_way():
    def judged(first):
        depths = {way: {str(n): result(first + n + 10 * (way == "tuned")) for n in range(3)} for way in transferability.WAYS}
        return {"transferability": {"seeds": {"0": result(first, **depths), "1": result(first, **depths)}}}

    a = SimpleNamespace(title="a", role="ceiling", run=SimpleNamespace(data="A"), results={}, elsewhere={"B": judged(50)})
    b = SimpleNamespace(title="b", role="ceiling", run=SimpleNamespace(data="B"), results=judged(70), elsewhere={})
    panel = transferability.panel(report, [a, b], {})
    heads, table = panel.table
    assert heads == ["0", "1", "2"]
    assert [row.title for row, _ in table] == ["a on B, kept", "a on B, trained on", "b on B, kept", "b on B, trained on"]
    assert [[cell["accuracy"] for cell in cells] for _, cells in table] == [
        [50, 51, 52], [60, 61, 62], [70, 71, 72], [80, 81, 82]]
    assert all(text in panel.figure for text in ("a, kept", "b, trained on", "layers kept"))
    cut = {"finetune": {"seeds": {"0": result(3, cuts={"0": result(1), "5": result(3)})}}}
    row = SimpleNamespace(title="a", role="", run=SimpleNamespace(data="A"), results={}, elsewhere={"B": cut})
    assert finetune.panel(report, [row], {"freeze": None}) is None
    ((row, cells),) = finetune.panel(report, [row], {"freeze": [0, 5]}).table[1]
    assert row.title == "a on B" and [cell["accuracy"] for cell in cells] == [1, 3]
