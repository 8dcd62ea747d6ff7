"""SimCLR v2's distillation: eq. 2 in loops, its gradient, and a teacher that stays as it is."""

import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods.simclr_v2_distil import SimCLRv2Distil
from selfsup.training.state import Teacher

CARD = {"classes": ["a", "b", "c"], "mean": [0.5] * 3, "std": [0.25] * 3}


def build(norm="group", **args):
    torch.manual_seed(7)
    net = nets.build("convnet", width=4)
    net.mean, net.std = CARD["mean"], CARD["std"]
    classifier = nets.build("mlp", d_in=net.dim, hidden=16, d_out=3, layers=2)
    return SimCLRv2Distil(nets.build("convnet", width=4, norm=norm), CARD, Teacher(net, CARD, classifier=classifier), **args)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_loss_is_equation_2(temperature):
    method, x = build(temperature=temperature).eval(), torch.randn(4, 3, 16, 16)
    total = 0.0
    for image in x:  # the same view for both, and the temperature for both
        with torch.no_grad():
            given = method.teacher.part("classifier")(method.teacher(image[None]))[0].double().numpy()
            own = method.classifier(method.encoder(image[None]))[0].double().numpy()
        p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (given, own))
        total -= (p * np.log(q)).sum() * temperature**2
    assert float(method({"image": x})["loss"].detach()) == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradient(temperature):
    """(P_S - P_T) / τ · τ² / N: without the τ² it would fall with the temperature."""
    method, given, own = build(temperature=temperature), torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)
    method.objective(own, given)["loss"].backward()
    difference = (own / temperature).softmax(1) - (given / temperature).softmax(1)
    torch.testing.assert_close(own.grad, difference.detach() * temperature / 5)
    same = given.clone().requires_grad_()
    method.objective(same, given)["loss"].backward()
    assert same.grad.abs().max() < 1e-6  # who is the teacher has nothing to learn


def test_the_teacher_is_in_evaluation_mode_and_learns_nothing(fit):
    method = build("batch").train()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    colours = 2 * torch.eye(3)[:, :, None, None]

    def batch(step):
        return {"image": colours[torch.arange(30) % 3] + 0.5 * torch.randn(30, 3, 16, 16, generator=generator)}

    assert fit(method, batch, 60)["agreement"] > 0.9
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())
    assert "label" not in method.inputs.columns
