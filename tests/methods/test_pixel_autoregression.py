import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods import load


@pytest.fixture
def make(card):
    def build(encoder=None, **args):
        torch.manual_seed(0)
        small = {"pixels": 4, "levels": 3, "dim": 16, "depth": 2, "heads": 2}
        net = nets.build("pixel_transformer", **{**small, **(encoder or {})})
        return load("pixel_autoregression")(net, card, **{"depth": 1, "heads": 2, **args}).eval()

    return build


def test_tokens_against_loops(make, prepare):
    """Averages over 4 × 4 pixels, each to the nearest of 3 × 3 × 3 colours."""
    method = make()
    x = prepare(method, 5)["image"] * 4  # contrast, so that all levels occur
    expected = []
    for image in x.numpy().astype(np.float64) * 0.25 + 0.5:
        for y in range(4):
            for x_ in range(4):
                colour = image[:, 4 * y : 4 * y + 4, 4 * x_ : 4 * x_ + 4].mean((1, 2))
                r, g, b = (min(max(int(np.floor(3 * c)), 0), 2) for c in colour)
                expected.append(9 * r + 3 * g + b)
    tokens = method.encoder.quantise(x)
    assert tokens.flatten().tolist() == expected and len(set(expected)) > 15
    assert torch.equal(method.encoder.quantise(method.encoder.image(tokens)), tokens)


def test_loss_and_bits_against_loops(make, prepare):
    method = make()
    batch = prepare(method, 6)
    tokens = method.encoder.quantise(batch["image"])
    logits = method.logits(tokens).detach().double().numpy()
    nats = []
    for rows, row in zip(logits, tokens.tolist()):
        for scores, token in zip(rows, row):
            nats.append(np.log(np.exp(scores).sum()) - scores[token])
    counts = np.array([tokens.flatten().tolist().count(token) for token in set(tokens.flatten().tolist())])
    share = counts / counts.sum()
    expected = {"loss": np.mean(nats), "bits": np.mean(nats) / np.log(2) / 3}
    expected["bits_unigram"] = -(share * np.log2(share)).sum() / 3
    assert {name: value.item() for name, value in method(batch).items()} == pytest.approx(expected, rel=1e-4)


def test_untrained_it_knows_nothing_and_bits_are_those_of_the_palette(make, prepare):
    """A uniform guess among 3³ colours costs log2(3) bits in each of the three channels."""
    method = make()
    torch.nn.init.zeros_(method.predict[1].weight)
    torch.nn.init.zeros_(method.predict[1].bias)
    assert method(prepare(method))["bits"] == pytest.approx(np.log2(3))


@torch.no_grad()
def test_causality(make):
    """Logits at a place depend on each of the tokens before it, and on neither its own nor any later one."""
    method = make()
    tokens = torch.randint(27, (1, 16))
    before = method.logits(tokens)
    for place in range(16):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 5) % 27
        differs = (method.logits(changed) != before)[0].any(1)
        assert differs.tolist() == [t > place for t in range(16)]


@torch.no_grad()
def test_causality_of_pixels_and_of_the_encoders_maps(make, prepare):
    """In raster order: the map at (y, x) has seen the rows above, and what is left of it in its own."""
    method = make()
    image = prepare(method, 1)["image"]
    changed = image.clone()
    changed[:, :, 4:8, 8:12] = -changed[:, :, 4:8, 8:12].sign() * 2  # the pixel (1, 2) of the shrunk image
    tokens = [method.encoder.quantise(x)[0] for x in (image, changed)]
    changed[:, :, 4:8, 8:12] = 2.0 if tokens[0][6] != 26 else -2.0
    assert (method.encoder.quantise(changed)[0] != tokens[0]).nonzero().flatten().tolist() == [6]
    for before, after in zip(method.encoder.layers(image), method.encoder.layers(changed)):
        assert (before != after)[0].any(0).flatten().tolist() == [t > 6 for t in range(16)]


@torch.no_grad()
def test_drawing_a_place_needs_only_the_tokens_before(make):
    """The shorter sequences of sampling give the logits of the whole."""
    method = make()
    tokens = torch.randint(27, (2, 16))
    torch.testing.assert_close(method.logits(tokens[:, :7]), method.logits(tokens)[:, :7], atol=1e-5, rtol=1e-5)


def test_completion_follows_the_model(make):
    """A model that always says 5, 5, 5, ... or tosses a coin between two colours is sampled as that."""
    method = make()
    torch.nn.init.zeros_(method.predict[1].weight)
    tokens, key = torch.randint(6, 27, (200, 16)), torch.arange(200)
    for colours in ([5], [0, 26]):
        method.predict[1].bias.data = torch.full((27,), -50.0).index_fill(0, torch.tensor(colours), 50.0)
        drawn = method.completed(tokens, 8, key, salt=1)
        assert torch.equal(drawn[:, :8], tokens[:, :8])
        share = [(drawn[:, 8:] == colour).float().mean().item() for colour in colours]
        assert share == pytest.approx([1 / len(colours)] * len(colours), abs=0.05) and sum(share) == 1


def test_bits_below_the_unigram_entropy(make, prepare, fit):
    """On images it has not seen: it learns more than how frequent the colours are."""
    method = make({"dim": 32}, depth=1)
    fit(method, lambda step: prepare(method, 32, "smooth", step), 80)
    out = method.eval()(prepare(method, 64, "smooth", 1000))
    assert out["bits"] < 0.85 * out["bits_unigram"]


def test_pictures(make, prepare):
    method = make()
    (sheet,) = method.pictures(prepare(method, 10)).values()
    assert sheet.shape == (3, 4 * 18, 8 * 18)
    half, first, second, true = (sheet[:, r + 1 : r + 17, 1:17] for r in (0, 18, 36, 54))
    for other in (half, first, second):
        assert torch.equal(other[:, :8], true[:, :8])
    assert not half[:, 8:].any() and not torch.equal(first, second)


def test_palette_goes_with_the_weights(make):
    net = make().encoder
    net.normalised_with({"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]})
    again = nets.build(**net.config)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(x), net(x))
    np.testing.assert_allclose(again.palette[5], [(1 / 6 - 0.1) / 1, (3 / 6 - 0.2) / 2, (5 / 6 - 0.3) / 3], atol=1e-6)


def test_needs_its_encoder(card):
    with pytest.raises(UserError, match="needs the encoder pixel_transformer"):
        load("pixel_autoregression")(nets.build("convnet", width=4), card)
