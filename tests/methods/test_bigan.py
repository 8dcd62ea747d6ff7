import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods import load


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        encoder = nets.build("convnet", width=4, norm="group")
        return load("bigan")(encoder, card, **{"code": 10, "width": 4, "norm": "group", **args})

    return build


def test_loss_for_fixed_logits(make, prepare):
    """Pairs of true images are the critic's class 1; E wants its pairs in class 0, G its own in class 1."""
    method = make()
    batch = prepare(method, 3)
    true, made = [2.0, -1.0, 0.3], [0.5, -3.0, 1.5]

    def judge(x, z):
        if torch.equal(x, batch["image"]):
            assert torch.equal(z, method.encode(x))
            return torch.tensor(true)[:, None]
        assert torch.equal(z, method.draw(batch)) and torch.equal(x, method.generator(z))
        return torch.tensor(made)[:, None]

    method.critic.forward = judge
    p, q = ([1 / (1 + np.exp(-logit)) for logit in logits] for logits in (true, made))
    expected = {
        "encoder": -sum(np.log(1 - d) for d in p) / 3,
        "generator": -sum(np.log(d) for d in q) / 3,
        "critic": -sum(np.log(d) + np.log(1 - g) for d, g in zip(p, q)) / 6,
    }
    expected["loss"] = sum(expected.values())
    out = method(batch)
    assert set(out) == set(expected)
    for name, value in expected.items():
        assert out[name].item() == pytest.approx(value, abs=1e-6), name


def test_the_players_take_gradients_from_their_own_terms_only(make, prepare):
    method = make()
    batch = prepare(method, 4)
    method(batch)["loss"].backward()
    x, z = batch["image"], method.draw(batch)
    true, made = method.critic(x, method.encode(x)), method.critic(method.generator(z), z)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    one, zero = torch.ones_like(true), torch.zeros_like(true)
    terms = [
        ([*method.encoder.parameters(), *method.head.parameters()], bce(true, zero)),
        (list(method.generator.parameters()), bce(made, one)),
        (list(method.critic.parameters()), (bce(true, one) + bce(made, zero)) / 2),
    ]
    assert sum(len(parameters) for parameters, _ in terms) == len(list(method.parameters()))
    for parameters, term in terms:
        for p, expected in zip(parameters, torch.autograd.grad(term, parameters, retain_graph=True)):
            torch.testing.assert_close(p.grad, expected, atol=1e-6, rtol=1e-4)
            assert p.grad.any()
    assert all(p.requires_grad for p in method.parameters()), "frozen only while it judges for the players"


def test_codes_are_uniform_and_a_samples_own(make, prepare):
    method = make(code=50)
    batch = prepare(method, 200)
    z = method.draw(batch)
    assert z.shape == (200, 50) and -1 <= z.min() < -0.99 and 0.99 < z.max() < 1
    assert abs(z.mean()) < 0.02 and abs(z.square().mean() - 1 / 3) < 0.01
    assert len(z.flatten().unique()) > 0.99 * z.numel()
    assert torch.equal(method.draw({name: column[150:] for name, column in batch.items()}), z[150:])
    assert not torch.equal(method.draw(prepare(method, 200, epoch=1)), z), "others in the next epoch"


def test_critic_sees_both_sides_of_the_pair(make, prepare):
    critic = make().critic
    x, z = torch.randn(2, 3, 16, 16, requires_grad=True), torch.randn(2, 10, requires_grad=True)
    critic(x, z)[0].sum().backward()
    for side in (x, z):
        assert (side.grad[0] != 0).float().mean() > 0.9 and not side.grad[1].any()


def test_groups(make):
    players, judge = make(critic_lr=0.3).param_groups()
    assert judge["lr_scale"] == 0.3 and "lr_scale" not in players
    assert torch.optim.AdamW([players, judge]).param_groups[1]["betas"] == (0.5, 0.999)
