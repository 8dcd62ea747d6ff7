"""Deep InfoMax against the paper's estimators, written as loops."""

import math

import pytest
import torch

from selfsup import methods, nets
from selfsup.core import rng
from selfsup.training.losses import local_info_nce
from selfsup.methods.deep_infomax import jsd

DeepInfoMax = methods.load("deep_infomax")


@pytest.fixture
def make(card):
    def build(**options):
        torch.manual_seed(0)
        small = {"hidden": 32, "dim": 16, "code": 8}
        return DeepInfoMax(nets.build("convnet", width=4, norm="group"), card, **small, **options)

    return build


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0)


def test_jsd_is_equation_4():
    scores = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    image = torch.tensor([2, 0, 4])
    joint = [-softplus(-float(scores[i, image[i], p])) for i in range(3) for p in range(4)]
    product = [softplus(float(scores[i, j, p])) for i in range(3) for j in range(5) if j != image[i] for p in range(4)]
    expected = sum(joint) / len(joint) - sum(product) / len(product) + 2 * math.log(2)
    assert float(jsd(scores, image)) == pytest.approx(expected)
    assert float(jsd(torch.zeros(3, 5, 4), image)) == pytest.approx(0, abs=1e-6)


def test_local_info_nce_takes_places_of_other_images_for_negatives():
    scores = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    image = torch.tensor([2, 0, 4])
    terms = []
    for i in range(3):
        others = sum(math.exp(float(scores[i, j, p])) for j in range(5) if j != image[i] for p in range(4))
        for p in range(4):
            own = math.exp(float(scores[i, image[i], p]))
            terms.append(-math.log(own / (own + others)))
    assert float(local_info_nce(scores, image)) == pytest.approx(sum(terms) / len(terms))


def test_scores_are_of_codes_with_places(make, prepare):
    method = make().eval()
    x = prepare(method, 4)["image"]
    maps = method.encoder.layers(x)
    code = method.code(maps[-1].mean((2, 3)))
    got = method.scores(code, maps[2])
    assert maps[2].shape[2:] == (2, 2) and got.shape == (4, 4, 4)
    query = method.global_head(code)
    for i, j, p in ((0, 0, 0), (1, 3, 2), (3, 0, 3)):
        place = method.local_head(maps[2][j, :, p // 2, p % 2][None])
        torch.testing.assert_close(got[i, j, p], query[i] @ place[0] / 4)


def test_the_players_take_each_their_own_gradient(make, prepare):
    """The critic learns to tell codes from the uniform prior and nothing else; the encoder learns to fool it."""
    method = make(local=0.0, prior=1.0)
    batch = prepare(method, 8)
    method(batch)["loss"].backward()
    code = method.code(method.encoder(batch["image"])).sigmoid()
    drawn = rng.uniform(batch["key"], 8, salt=1)
    real, fake = method.critic(drawn), method.critic(code.detach())
    judging = sum(softplus(-float(v)) for v in real) / 8 + sum(softplus(float(v)) for v in fake) / 8
    assert float(method(batch)["critic"]) == pytest.approx(judging / 2, rel=1e-4)
    of_critic = torch.autograd.grad(
        (torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()) / 2, method.critic.parameters()
    )
    for mine, reference in zip(method.critic.parameters(), of_critic):
        torch.testing.assert_close(mine.grad, reference)
    fooled = torch.nn.functional.softplus(-method.critic(code)).mean()
    torch.testing.assert_close(method.code.weight.grad, torch.autograd.grad(fooled, method.code.weight)[0])


@pytest.mark.parametrize("estimator", ["jsd", "infonce"])
def test_the_estimate_of_mutual_information_rises(make, prepare, fit, estimator):
    method = make(estimator=estimator)
    batches = [prepare(method, 32, "smooth", seed) for seed in range(2)]
    before = float(method(batches[0])["mutual_information"].detach())
    after = fit(method, lambda step: batches[step % 2], 30)["mutual_information"]
    assert before < 0.2 and after > before + 0.3
