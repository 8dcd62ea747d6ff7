"""Multi-task learning: losses in units of guessing, and soft sharing between no sharing at all and hard sharing."""

import copy

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.config import checker
from selfsup.errors import UserError
from selfsup.methods.multi_task import MultiTask
from tests.methods.test_arguments import entry

KNOWN = {"colour": 3, "shade": None, "lot": 5}
TASKS = ["colour", "class", "shade"]


@pytest.fixture
def made(card, prepare):
    """made(tasks, …): a method, always from the same weights; made.batch(seed): what it is given."""

    def make(tasks=TASKS, width=2, **options):
        torch.manual_seed(5)
        return MultiTask(nets.build("convnet", width=width), {**card, "attributes": KNOWN}, tasks, **options)

    def batch(seed=0, n=12):
        out = prepare(MultiTask, n, seed=seed)
        random = torch.Generator().manual_seed(seed)
        colour, lot = (torch.randint(values, (n,), generator=random).float() for values in (3, 5))
        return {**out, "attributes": torch.stack([colour, torch.randn(n, generator=random), lot], 1)}

    make.batch = batch
    return make


def sgd(method, batches, lr, trunk=1.0):
    """Plain steps; `trunk`: by what the rate of all but the heads is multiplied."""
    for batch in batches:
        method.zero_grad()
        method(batch)["loss"].backward()
        with torch.no_grad():
            for name, p in method.named_parameters():
                p -= lr * (1.0 if name.startswith("heads") else trunk) * p.grad
    return method


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def trunks(method):
    return torch.stack([flat(net) for net in (method.encoder, *method.others)])


def test_losses_against_loops(made):
    method, batch = made(), made.batch()
    out = method(batch)
    x = method.heads(method.encoder(batch["image"])).detach().numpy().astype(np.float64)
    assert x.shape == (12, 3 + 3 + 1)

    def guess(rows, targets):
        return np.mean([np.log(np.exp(row).sum()) - row[int(t)] for row, t in zip(rows, targets)]) / np.log(3)

    told = {"colour": guess(x[:, :3], batch["attributes"][:, 0]), "class": guess(x[:, 3:6], batch["label"]),
            "shade": np.mean((x[:, 6] - batch["attributes"][:, 1].numpy()) ** 2)}
    for task, loss in told.items():
        assert out[f"loss_{task}"].item() == pytest.approx(loss, abs=1e-5)
    assert out["loss"].item() == pytest.approx(sum(told.values()), abs=1e-5) and "accuracy_shade" not in out
    right = x[:, :3].argmax(1) == batch["attributes"][:, 0].numpy()
    assert out["accuracy_colour"].item() == pytest.approx(right.mean())
    with torch.no_grad():  # equal outputs are a guess: in these units every task costs 1
        method.heads.weight.zero_(), method.heads.bias.zero_()
    batch["attributes"][:, 1] = batch["attributes"][:, 1].sign()
    guessed = method(batch)
    assert [guessed[f"loss_{task}"].item() for task in TASKS] == pytest.approx([1, 1, 1])


def test_the_pull_is_over_all_pairs(made):
    method = made(sharing="soft", pull=0.3)
    assert method.apart() < 1e-9 and len(method.others) == 2  # they start as one
    with torch.no_grad():
        for p in method.parameters():
            p += 0.1 * torch.randn_like(p)
    a, b, c = trunks(method)
    pairs = sum((x - y).square().sum() for x, y in ((a, b), (a, c), (b, c)))
    torch.testing.assert_close(method.apart(), pairs, rtol=1e-4, atol=0)
    out = method(made.batch())
    losses = sum(out[f"loss_{task}"] for task in TASKS)
    torch.testing.assert_close(out["loss"], losses + 0.3 * pairs)


def test_without_a_pull_each_trunk_is_that_of_its_task_alone(made):
    soft = sgd(made(sharing="soft", pull=0.0), [made.batch(seed) for seed in range(2)], 0.1)
    start, place = made(sharing="soft"), 0
    for task, size, trunk in zip(TASKS, soft.sizes, trunks(soft)):
        single = made([task])
        with torch.no_grad():  # the same head to begin with
            single.heads.weight.copy_(start.heads.weight[place:place + size])
            single.heads.bias.copy_(start.heads.bias[place:place + size])
        place += size
        sgd(single, [made.batch(seed) for seed in range(2)], 0.1)
        torch.testing.assert_close(flat(single.encoder), trunk)
        assert (trunk - flat(start.encoder)).abs().max() > 1e-3


def test_with_a_pull_without_bound_it_is_hard_sharing(made):
    """The pull at which a step of SGD brings the trunks together, 2 · rate · pull · trunks = 1; their mean then moves
    by the mean of the tasks' gradients, as one trunk at a third of the rate."""
    rate, batches = 1e-4, [made.batch(seed) for seed in range(4)]
    soft = sgd(made(sharing="soft", pull=1 / (2 * rate * 3)), batches, rate)
    loose = sgd(made(sharing="soft", pull=0.0), batches, rate)
    hard, start = sgd(made(), batches, rate, trunk=1 / 3), flat(made().encoder)
    moved = (flat(hard.encoder) - start).norm()
    assert (trunks(soft).mean(0) - flat(hard.encoder)).norm() < 0.03 * moved
    assert (trunks(soft) - trunks(soft).mean(0)).norm() < 0.5 * (trunks(loose) - trunks(loose).mean(0)).norm()


def test_parts_have_a_trunk_for_each_task_that_has_its_own(made):
    assert set(made().parts()) == set(made(["class"], sharing="soft").parts()) == {"encoder", "heads"}
    soft = made(sharing="soft")
    assert set(soft.parts()) == {"encoder", "heads", "encoder_2", "encoder_3"}
    assert soft.parts()["encoder_3"].config == soft.encoder.config


def test_a_task_that_the_data_lack_or_one_twice(made, card):
    with pytest.raises(UserError, match='no task "colours"; did you mean "colour"'):
        made(["colours"])
    with pytest.raises(UserError, match=r'no task "colour" \(there are: class\)'):
        MultiTask(nets.build("convnet", width=2), card, ["class", "colour"])
    with pytest.raises(UserError, match="runs.tiny-multi_task.args.tasks should not name a value twice"):
        checker.check("params.yaml", entry("multi_task", {"tasks": ["class", "class"]}, {"name": "convnet"}))


def test_it_learns_all_tasks_and_nothing_drawn_by_lot(made, fit):
    def batch(step):
        """Colour by the red channel, class by the green one, shade by blue."""
        b = made.batch(step, 32)
        image, (colour, shade, _) = 0.3 * b["image"], b["attributes"].T
        image = image + torch.stack([colour - 1, b["label"] - 1.0, shade], 1)[:, :, None, None]
        return {**b, "image": image}

    method = made([*TASKS, "lot"], width=8)
    fit(method, batch, 40, lr=1e-2)
    out = copy.deepcopy(method).eval()(batch(100))
    told = {task: out[f"loss_{task}"].item() for task in (*TASKS, "lot")}
    assert max(told[task] for task in TASKS) < 0.5 and told["lot"] > 0.9, told
