import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.methods import load
from selfsup.methods.context_encoder import ChannelwiseLinear, gradient_energy


@pytest.fixture
def make(card):
    def build(**args):
        torch.manual_seed(0)
        encoder = nets.build("vit", size=16, patch=4, dim=16, depth=1, heads=2)
        return load("context_encoder")(encoder, card, **args)

    return build


def corners(hole):
    """(top, left) of each square of a mask (N, 1, 16, 16), after checking that it is one, of half the side."""
    found = []
    for mask in hole[:, 0].numpy():
        rows, columns = np.nonzero(mask)
        found.append((rows.min(), columns.min()))
        square = np.zeros((16, 16), bool)
        square[rows.min() : rows.min() + 8, columns.min() : columns.min() + 8] = True
        assert (mask == square).all()
    return found


def test_where_the_hole_is(make, prepare):
    method = make()
    batch = prepare(method, 200)
    places = corners(method.hole(batch["image"], method.corner(batch)))
    assert set(np.ravel(places)) == set(range(9)), "everywhere in the image, its edges included"
    rest = {name: column[150:] for name, column in batch.items()}
    assert corners(method.hole(rest["image"], method.corner(rest))) == places[150:]
    method = make(region="central")
    assert set(corners(method.hole(batch["image"], method.corner(batch)))) == {(4, 4)}


def test_loss_against_loops(make, prepare):
    method = make(reconstruction=0.9, adversarial=0.1).eval()
    batch = prepare(method, 4)
    image, hole = batch["image"], method.hole(batch["image"], method.corner(batch))
    with torch.no_grad():
        painted = method.painted(image, hole).numpy()
    errors, baseline, fills, truths = [], [], [], []
    for picture, own, (top, left) in zip(painted, image.numpy(), corners(hole)):
        where = np.s_[:, top : top + 8, left : left + 8]
        fills.append(picture[where])
        truths.append(own[where])
        errors.append((picture[where] - own[where]) ** 2)
        outside = np.ones((3, 16, 16), bool)
        outside[where] = False
        colour = own[outside].reshape(3, -1).mean(1)
        baseline.append((own[where] - colour[:, None, None]) ** 2)

    def judged(regions):  # the critic's probability that each is a true one
        with torch.no_grad():
            logits = method.critic(torch.tensor(np.stack(regions)))[:, 0].numpy().astype(np.float64)
        return 1 / (1 + np.exp(-logits))

    generator = -np.log(judged(fills)).mean()
    critic = -(np.log(judged(truths)).mean() + np.log(1 - judged(fills)).mean()) / 2
    expected = {
        "loss": 0.9 * np.mean(errors) + 0.1 * generator + critic,
        "error": np.mean(errors),
        "error_mean_colour": np.mean(baseline),
        "generator": generator,
        "critic": critic,
        "gradient_energy": np.mean(np.diff(fills, axis=2) ** 2) + np.mean(np.diff(fills, axis=3) ** 2),
        "gradient_energy_true": np.mean(np.diff(truths, axis=2) ** 2) + np.mean(np.diff(truths, axis=3) ** 2),
    }
    out = method(batch)
    assert set(out) == set(expected)
    for name, value in expected.items():
        assert abs(out[name].item() - value) < 1e-5, name


def test_the_players_take_gradients_from_their_own_terms_only(make, prepare):
    method = make(adversarial=0.5)
    batch = prepare(method, 4)
    method(batch)["loss"].backward()
    image, hole = batch["image"], method.hole(batch["image"], method.corner(batch))
    fill, truth = (method.region_of(x, method.corner(batch)) for x in (method.painted(image, hole), image))
    error, logit, true_logit = (fill - truth).square().mean(), method.critic(fill), method.critic(truth)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    real, fake = torch.ones_like(logit), torch.zeros_like(logit)
    players = method.param_groups()
    terms = 0.999 * error + 0.5 * bce(logit, real), (bce(true_logit, real) + bce(logit, fake)) / 2
    for player, term in zip(players, terms):
        for p, expected in zip(player["params"], torch.autograd.grad(term, player["params"], retain_graph=True)):
            torch.testing.assert_close(p.grad, expected, atol=1e-6, rtol=1e-4)
            assert p.grad.any()
    assert all(p.requires_grad for p in method.parameters()), "frozen only while it judges for the generator"


def test_groups(make):
    method = make()
    others, judge = method.param_groups()
    assert judge["lr_scale"] == 0.1 and {id(p) for p in judge["params"]} == {id(p) for p in method.critic.parameters()}
    everything = [id(p) for group in (others, judge) for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(method.parameters()))


def test_without_the_critic_there_is_none(make, prepare):
    method = make(adversarial=0)
    assert method.critic is None and not any("critic" in name for name in method.state_dict())
    out = method(prepare(method))
    assert set(out) == {"loss", "error", "error_mean_colour", "gradient_energy", "gradient_energy_true"}
    assert abs(out["loss"].item() - 0.999 * out["error"].item()) < 1e-6
    assert len(method.param_groups()) == 1
    out["loss"].backward()
    assert all(p.grad.any() for p in method.parameters())


def test_what_is_removed_does_not_reach_the_network(make, prepare):
    method = make().eval()
    batch = prepare(method, 3)
    image, hole = batch["image"], method.hole(batch["image"], method.corner(batch))
    assert torch.equal(method.painted(image, hole), method.painted(image + 5 * hole, hole))
    assert not torch.allclose(method.painted(image, hole), method.painted(image + ~hole, hole))


def test_channelwise_layer_mixes_places_and_not_channels():
    layer = ChannelwiseLinear(3, 2)
    x = torch.randn(2, 3, 2, 2)
    weight = layer.weight.detach().numpy()
    expected = np.zeros((2, 3, 4))
    for n in range(2):
        for c in range(3):
            for place in range(4):
                expected[n, c, place] = max(0, x[n, c].flatten().numpy() @ weight[c][:, place])
    np.testing.assert_allclose(layer(x).detach().numpy().reshape(2, 3, 4), expected, atol=1e-5)


def test_gradient_energy_falls_with_blur():
    x = torch.randn(2, 3, 16, 16)
    assert gradient_energy(torch.nn.functional.avg_pool2d(x, 3, 1, 1)) < 0.5 * gradient_energy(x)


@pytest.mark.parametrize("adversarial", [0, 0.001])
def test_fills_better_than_the_mean_colour(make, prepare, fit, adversarial):
    method = make(adversarial=adversarial)
    fit(method, lambda step: prepare(method, 32, "smooth", step), 80)
    out = method.eval()(prepare(method, 32, "smooth", 1000))
    assert out["error"] < 0.9 * out["error_mean_colour"]


@pytest.mark.slow
def test_critic_makes_the_fill_sharper(make, prepare, fit):
    """Images with grain that no context foretells: the L2 fill leaves it out, the critic asks for it."""

    def grainy(step):
        batch = prepare(method, 32, "smooth", step)
        grain = torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(step))
        return {**batch, "image": batch["image"] + 0.5 * grain}

    energy = {}
    for adversarial in (0, 0.05):
        method = make(adversarial=adversarial)
        fit(method, grainy, 200)
        out = method.eval()(grainy(1000))
        energy[adversarial] = out["gradient_energy"].item()
        assert out["error"] < out["error_mean_colour"]
    assert energy[0.05] > 2 * energy[0]


def test_pictures(make, prepare):
    method = make().eval()
    (sheet,) = method.pictures(prepare(method, 16)).values()
    assert sheet.shape == (3, 3 * 18, 8 * 18) and 0 <= sheet.min() and sheet.max() <= 1
    masked, filled, true = (sheet[:, r + 1 : r + 17, 1:17] for r in (0, 18, 36))
    changed = (masked != true).any(0)
    assert changed.sum() <= 64 and torch.equal(filled[:, ~changed], true[:, ~changed])
