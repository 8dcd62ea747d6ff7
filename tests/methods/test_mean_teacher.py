"""Mean Teacher: who is taught, by whom, and what is kept."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.mean_teacher import MeanTeacher


def build(card, norm="group", **args):
    torch.manual_seed(0)
    return MeanTeacher(nets.build("convnet", width=4, norm=norm), card, **{"ratio": 3, "rising": 0, **args})


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def apart(method):
    """The teacher differs from the student, as after some steps."""
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.add_(0.2 * p.abs().mean() * torch.randn_like(p))
    return method


def test_loss_against_loops(card, prepare):
    method = apart(build(card, weight=7.0))
    batch = prepare(method, 8)
    first, second = batch["image"].unbind(1)
    assert not torch.equal(first, second)  # student and teacher look with other noise
    with torch.no_grad():
        z = method.classifier(method.encoder(first)).double().softmax(1).numpy()
        target = method.teacher.module(second).double().softmax(1).numpy()
    cross = np.mean([-np.log(z[i, batch["label"][i]]) for i in (0, 4)])
    squares = [(z[i, c] - target[i, c]) ** 2 for i in range(8) if i % 4 for c in range(3)]
    out = method(batch)
    assert float(out["loss"].detach()) == pytest.approx(cross + 7 * np.mean(squares), rel=1e-5)
    hidden = torch.where(torch.arange(8) % 4 == 0, batch["label"], -1)
    torch.testing.assert_close(method({**batch, "label": hidden}), out, rtol=0, atol=0)


def test_the_student_is_taught_and_the_teacher_is_not(card, prepare):
    """Excludes USB's Mean Teacher, whose student was given the teacher's own logits: its loss is 0."""
    method = build(card)  # both are alike still: what differs are the views
    out = method(prepare(method, 8))
    assert out["consistency"] > 0
    gradients = torch.autograd.grad(out["consistency"], list(method.student.parameters()))
    assert all(gradient.any() for gradient in gradients)
    method(prepare(method, 8))["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())


def test_the_teacher_is_the_mean_of_the_weights_and_then_their_moving_average(card, prepare):
    method = build(card, momentum=0.75)
    start, seen = weights(method.student), []
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    expected = start
    for step in range(6):
        optimizer.zero_grad()
        method(prepare(method, seed=step))["loss"].backward()
        optimizer.step()
        method.after_step((step + 1) / 6)
        seen.append(weights(method.student))
        if step < 3:  # the plain mean of all there were, the first ones too
            expected = [sum(values) / (step + 2) for values in zip(start, *seen)]
        else:
            expected = [0.75 * old + 0.25 * new for old, new in zip(expected, seen[-1])]
        for target, value in zip(weights(method.teacher), expected, strict=True):
            torch.testing.assert_close(target, value, rtol=1e-5, atol=1e-6)


def test_the_teacher_is_what_is_kept_with_statistics_of_its_own(card, prepare):
    """Excludes an average whose BatchNorm has seen nothing: in evaluation it would be another network."""
    method = build(card, norm="batch")
    method.after_step(0.5)
    for step in range(3):
        method(prepare(method, seed=step))
    kept = method.parts()
    assert kept["encoder"] is method.teacher.module[0] and kept["classifier"] is method.teacher.module[1]
    norm, own = kept["encoder"].blocks[0][1], method.encoder.blocks[0][1]
    assert norm.num_batches_tracked == 3 and norm.running_mean.any()
    assert not torch.equal(norm.running_mean, own.running_mean)
    assert kept["encoder"].training and not method.eval().parts()["encoder"].training
