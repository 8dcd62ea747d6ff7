"""Averages and queues against plain references, and what a checkpoint of them holds."""

import copy

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.errors import UserError
from selfsup.training.state import Bank, Ema, Queue, Teacher, frozen, ramp_up, rising


@given(st.floats(0, 1), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_ema_is_exact(momentum, steps, seed):
    torch.manual_seed(seed)
    online = nn.Linear(3, 2).double()
    ema = Ema(online)
    expected = [p.detach().clone() for p in online.parameters()]
    for _ in range(steps):
        for p in online.parameters():
            p.data.normal_()
        ema.update(online, momentum)
        expected = [momentum * e + (1 - momentum) * p.detach() for e, p in zip(expected, online.parameters())]
    for mine, reference in zip(ema.module.parameters(), expected):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_ema_starts_as_a_copy_that_takes_no_gradient():
    online = nn.Linear(3, 2)
    ema = Ema(online)
    x = torch.randn(4, 3, requires_grad=True)
    assert torch.equal(ema(x), online(x)) and not ema(x).requires_grad
    assert all(p.requires_grad for p in online.parameters())
    assert not any(p.requires_grad for p in ema.parameters())
    online.weight.data.add_(1)
    assert not torch.equal(ema.module.weight, online.weight)  # no shared storage


def test_ema_keeps_batch_statistics_of_its_own():
    online = nn.BatchNorm1d(2)
    ema = Ema(online)
    ema(torch.randn(8, 2) + 5)
    before = ema.module.running_mean.clone()
    ema.update(online, 0.5)
    assert torch.equal(ema.module.running_mean, before) and before.abs().sum() > 0 and online.running_mean.abs().sum() == 0


def test_of_an_average_that_is_judged_the_statistics_are_averaged_too():
    """Left behind, they would be those of the first weights, for the last ones: evaluation would be noise."""
    online = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema, mean = Ema(online), torch.zeros(2)
    for _ in range(3):
        online(torch.randn(8, 3) + 5)
        ema.update(online, 0.9, buffers=True)
        mean = 0.9 * mean + 0.1 * online[1].running_mean
    torch.testing.assert_close(ema.module[1].running_mean, mean)
    assert ema.module[1].num_batches_tracked == 3 and mean.abs().sum() > 0


def test_ema_refuses_another_architecture():
    with pytest.raises(ValueError):
        Ema(nn.Linear(2, 2)).update(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 0.5)


@given(st.integers(1, 13), st.lists(st.integers(0, 17), max_size=8))
@settings(max_examples=100, deadline=None)
def test_queue_holds_the_last_keys(size, batches):
    """Whatever the batches: smaller, equal, larger than the queue, not dividing it, empty."""
    queue = Queue(size, 1)
    reference = queue.keys.flatten().tolist()
    count = 0
    for n in batches:
        keys = torch.arange(count, count + n, dtype=torch.float32)
        count += n
        queue.push(keys[:, None])
        reference = (reference + keys.tolist())[-size:]
    oldest_first = queue.keys.roll(-int(queue.next), 0).flatten().tolist()
    assert oldest_first == reference


def test_queue_starts_with_unit_vectors_and_stores_values_only():
    queue = Queue(5, 8)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(5))
    keys = torch.ones(2, 8, requires_grad=True)
    queue.push(keys * 1)
    assert not queue.keys.requires_grad and torch.equal(queue.keys[:2], torch.ones(2, 8))
    queue.push(keys.bfloat16())
    assert queue.keys.dtype == torch.float32


def test_state_is_in_the_checkpoint():
    for module in (Ema(nn.Linear(2, 2)), Queue(3, 2)):
        other = copy.deepcopy(module)
        for value in module.state_dict().values():
            value.add_(1)
        other.load_state_dict(module.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values()))
    assert set(Queue(3, 2).state_dict()) == {"keys", "next"}


def test_frozen_critic_passes_gradient_through_but_takes_none():
    critic, fake = nn.Linear(3, 1), torch.randn(4, 3, requires_grad=True)
    critic.bias.requires_grad_(False)
    with frozen(critic):
        critic(fake).sum().backward()
    assert fake.grad is not None and critic.weight.grad is None
    assert critic.weight.requires_grad and not critic.bias.requires_grad
    with pytest.raises(RuntimeError), frozen(critic):
        raise RuntimeError
    assert critic.weight.requires_grad


def test_bank_moves_its_rows_and_no_others():
    bank = Bank(6, 3)
    before = bank.rows.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(6))
    new = nn.functional.normalize(torch.randn(2, 3), dim=1)
    bank.update(torch.tensor([4, 1]), new, momentum=0.3)
    for row, fresh in ((4, new[0]), (1, new[1])):
        moved = 0.3 * before[row] + 0.7 * fresh
        torch.testing.assert_close(bank.rows[row], moved / moved.norm())
    for row in (0, 2, 3, 5):
        assert torch.equal(bank.rows[row], before[row])
    assert list(bank.state_dict()) == ["rows"]


def test_a_teacher_brings_what_its_folder_holds():
    net, classifier = nn.Flatten(), nn.Linear(12, 3)
    net.dim, net.mean, net.std, classifier.config = 12, [0.5] * 3, [0.25] * 3, {"d_out": 3}
    teacher = Teacher(net, {"mean": net.mean, "std": net.std}, classifier=classifier).train()
    assert teacher.classifier(3) is teacher.part("classifier") is classifier
    assert not classifier.training and not classifier.weight.requires_grad
    with pytest.raises(UserError, match="a run that tells 3 classes apart, and this run's data have 4"):
        teacher.classifier(4)
    with pytest.raises(UserError, match="holds no projector: .* \\(it holds encoder, classifier\\)"):
        teacher.part("projector")


def test_momentum_rises_to_one():
    assert float(rising(0.9, 0)) == pytest.approx(0.9) and rising(0.9, 1) == 1
    assert float(rising(0.9, 0.5)) == pytest.approx(0.95)


@pytest.mark.parametrize("progress, part", [(0, 0.006738), (0.2, 0.286505), (0.4, 1), (1, 1)])
def test_a_weight_ramps_up(progress, part):
    assert float(ramp_up(progress, 0.4)) == pytest.approx(part, rel=1e-4) and ramp_up(progress, 0) == 1


def test_a_teacher_stays_as_it_is_and_sees_images_as_it_was_taught():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    net.dim, net.mean, net.std = 2, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    card, image = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}, torch.rand(4, 3, 2, 2)
    own, given = (
        (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        for mean, std in ((net.mean, net.std), (card["mean"], card["std"]))
    )
    expected, same = net.eval()(own), Teacher(net, {"mean": net.mean, "std": net.std})
    method = nn.Sequential(nn.Linear(2, 2), Teacher(net, card)).train()
    before = copy.deepcopy(method[1].state_dict())
    torch.testing.assert_close(method[1](given), expected)
    assert torch.equal(same(own), expected) and same.dim == 2
    assert not method[1](given.requires_grad_()).requires_grad
    assert not any(p.requires_grad for p in method[1].parameters())
    assert all(torch.equal(value, before[name]) for name, value in method[1].state_dict().items())
