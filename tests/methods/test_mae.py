import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from selfsup import nets
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.methods import load


VIT = {"name": "vit", "size": 16, "patch": 4, "dim": 32, "depth": 2, "heads": 2}
TIMMS = {"name": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}


def make(encoder=VIT, **args):
    torch.manual_seed(0)
    encoder = nets.build(**encoder)
    return load("mae")(encoder, **{"width": 16, "depth": 1, "heads": 2, **args})


def square(image, patch):
    """The pixels of patch number `patch` of (3, 16, 16), rows of four patches of 4 × 4."""
    top, left = 4 * (patch // 4), 4 * (patch % 4)
    return image[:, top : top + 4, left : left + 4]


def orders(batch):
    return [sorted(range(16), key=lambda i: noise[i]) for noise in rng.uniform(batch["key"], 16).numpy()]


@pytest.mark.parametrize("mask, seen", [(0.75, 4), (0.5, 8)])
def test_loss_against_loops(prepare, mask, seen):
    method = make(mask=mask)
    batch = prepare(method, 5)
    prediction, order = method.predicted(batch["image"], batch["key"], mask)
    assert order.tolist() == orders(batch)
    errors = []
    for image, predicted, patches in zip(batch["image"].numpy(), prediction.detach().numpy(), orders(batch)):
        assert len(predicted) == 16 - seen
        for guess, patch in zip(predicted, patches[seen:]):
            pixels = square(image, patch).reshape(-1).astype(np.float64)
            target = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            errors += list((guess - target) ** 2)
    assert len(errors) == 5 * (16 - seen) * 48, "masked patches count, and no others"
    assert abs(method(batch)["loss"].item() - np.mean(errors)) < 1e-4


def test_order_of_tokens_is_no_matter(prepare):
    """The decoder of the paper puts the tokens in place before it adds the positions; predictions are the same."""
    method = make()
    batch = prepare(method, 3)
    prediction, order = method.predicted(batch["image"], batch["key"], 0.75)
    visible = method.embed(method.encoder.tokens(batch["image"], order[:, :4]))
    tokens = torch.cat([visible, method.mask_token.expand(3, 12, -1)], 1)
    restored = torch.stack([t[o.argsort()] for t, o in zip(tokens, order)]) + method.position
    in_place = method.predict(method.blocks(restored))
    expected = torch.stack([p[o[4:]] for p, o in zip(in_place, order)])
    torch.testing.assert_close(prediction, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", [VIT, TIMMS], ids=["ours", "timm's"])
def test_masked_pixels_do_not_reach_the_network(prepare, encoder):
    method = make(encoder)
    batch = prepare(method, 2)
    before, order = method.predicted(batch["image"], batch["key"], 0.75)
    hidden, shown = batch["image"].clone(), batch["image"].clone()
    for n in range(2):
        for patch in order[n, 4:].tolist():
            square(hidden[n], patch).add_(1.0)
        square(shown[n], order[n, 0].item()).mul_(-1.0)
    assert torch.equal(before, method.predicted(hidden, batch["key"], 0.75)[0])
    assert not torch.allclose(before, method.predicted(shown, batch["key"], 0.75)[0])


def test_each_sample_has_its_own_mask_whatever_the_batch(prepare):
    method = make()
    batch = prepare(method, 6)
    _, order = method.predicted(batch["image"], batch["key"], 0.75)
    _, tail = method.predicted(batch["image"][4:], batch["key"][4:], 0.75)
    assert torch.equal(order[4:], tail) and len({tuple(o) for o in order.tolist()}) == 6
    assert (order.sort(1).values == torch.arange(16)).all()


@pytest.mark.parametrize("encoder", [VIT, TIMMS], ids=["ours", "timm's"])
def test_every_parameter_learns(prepare, encoder):
    method = make(encoder)
    method(prepare(method))["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_cost_of_the_encoder_falls_with_the_mask(prepare):
    encoder = nets.build("vit", size=32, patch=4, dim=32, depth=4)
    x = torch.zeros(1, 3, 32, 32)

    def cost(mask):
        with FlopCounterMode(display=False) as counter:
            encoder.tokens(x, torch.arange(round(64 * (1 - mask)))[None])
        return counter.get_total_flops()

    costs = [cost(mask) for mask in (0, 0.5, 0.75, 0.85, 0.95)]
    assert costs == sorted(costs, reverse=True) and costs[2] < 0.28 * costs[0]


@pytest.mark.parametrize("encoder", [VIT, TIMMS], ids=["ours", "timm's"])
def test_learns_a_batch(prepare, fit, encoder):
    method = make(encoder)
    batch = prepare(method, 8, "smooth")
    start = method(batch)["loss"].item()
    assert fit(method, lambda step: batch, 150, lr=1e-2)["loss"] < 0.5 * start


def test_pictures(prepare):
    method = make().eval()
    batch = prepare(method, 16)
    sheets = method.pictures(batch)
    assert set(sheets) == {"masked_75", "masked_85", "masked_95"}
    for sheet in sheets.values():
        assert sheet.shape == (3, 3 * 18, 8 * 18) and 0 <= sheet.min() and sheet.max() <= 1
        visible, rebuilt, original = (sheet[:, r + 1 : r + 17, 1:17] for r in (0, 18, 36))
        same = (visible == original).all(0)
        assert 16 <= same.sum() <= 5 * 16 and torch.equal(rebuilt[:, same], original[:, same])


def test_needs_an_encoder_of_patches():
    with pytest.raises(UserError, match="mae needs the encoder vit .* and not convnet"):
        load("mae")(nets.build("convnet", width=4))


@pytest.mark.parametrize("mask", [0.0, 1.0, 0.99, -1])
def test_mask_leaves_something_on_both_sides(mask):
    with pytest.raises(UserError, match="mask"):
        make(mask=mask)
