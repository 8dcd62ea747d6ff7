import numpy as np
import pytest
import torch

from selfsup import nets
from selfsup.errors import UserError
from selfsup.methods import load
from selfsup.methods.super_resolution import resized, shrunk


@pytest.fixture
def make(card):
    def build(encoder=None, **args):
        torch.manual_seed(0)
        return load("super_resolution")(nets.build(**(encoder or {"name": "convnet", "width": 4})), card, **args)

    return build


def detailed(method, step, n=32):
    """Normalised images of discs with hard edges, of each image's own place, size and colours: edges that bicubic
    interpolation blurs, and that can be known."""
    generator = torch.Generator().manual_seed(step)
    u = torch.rand(n, 9, generator=generator)
    place = torch.arange(16)
    y, x, radius = 4 + 8 * u[:, 0], 4 + 8 * u[:, 1], 3 + 4 * u[:, 2]
    distance = (place[:, None] - y[:, None, None]).square() + (place - x[:, None, None]).square()
    inside = (distance < radius[:, None, None].square())[:, None]
    image = torch.where(inside, u[:, 3:6, None, None], u[:, 6:, None, None])
    return {"image": (image - method.mean) / method.std, "key": torch.arange(n)}


def cubic(distance, a=-0.5):
    """Keys' kernel, with Catmull-Rom's a."""
    d = abs(distance)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def resize_matrix(size, out):
    """Weights (out, size) of one side, from the definition: the kernel is as much wider as the image shrinks."""
    scale, matrix = size / out, np.zeros((out, size))
    for i in range(out):
        for j in range(size):
            matrix[i, j] = cubic(((j + 0.5) - (i + 0.5) * scale) / max(scale, 1))
        matrix[i] /= matrix[i].sum()
    return matrix


def test_what_the_encoder_sees(make, prepare):
    """Four times smaller with antialiasing and back, bicubically: nothing of what lies between remains."""
    method = make().eval()
    batch = prepare(method, 3)
    seen = []
    layers = method.encoder.layers
    method.encoder.layers = lambda x: seen.append(x) or layers(x)
    method(batch)
    down, up = resize_matrix(16, 4), resize_matrix(4, 16)
    (x,) = seen
    for picture, truth in zip(x.numpy(), batch["image"].numpy()):
        for channel, true in zip(picture, truth):
            np.testing.assert_allclose(channel, up @ down @ true @ down.T @ up.T, atol=1e-4)


def test_loss_and_psnr_against_loops(make, prepare):
    method = make(adversarial=0.1).eval()
    batch = prepare(method, 4)
    truth = batch["image"]
    bicubic = resized(shrunk(truth), (16, 16))
    with torch.no_grad():
        ours = method.enlarged(bicubic)
        probability = {n: method.critic(x).double().sigmoid().numpy() for n, x in (("ours", ours), ("true", truth))}
    out = method(batch)

    def decibels(images):
        values = []
        for image, true in zip(images.numpy(), truth.numpy()):
            mse = np.mean((np.clip(image * 0.25 + 0.5, 0, 1) - (true * 0.25 + 0.5)) ** 2, dtype=np.float64)
            values.append(10 * np.log10(1 / mse))
        return np.mean(values)

    error = np.mean((ours.numpy() - truth.numpy()) ** 2, dtype=np.float64)
    fooled = -np.mean(np.log(probability["ours"]))  # eq. 6, a mean as the trainer averages over ranks
    judging = -np.mean(np.log(probability["true"])) - np.mean(np.log(1 - probability["ours"]))  # eq. 2
    expected = {"loss": error + 0.1 * fooled + judging, "error": error, "generator": fooled, "critic": judging}
    expected |= {"psnr": decibels(ours), "psnr_bicubic": decibels(bicubic)}
    assert {name: value.item() for name, value in out.items()} == pytest.approx(expected, rel=1e-4)


def test_each_player_learns_from_its_own_loss(make, prepare):
    """The critic's gradient is that of eq. 2 alone, the others' that of eq. 3 alone."""
    method = make(adversarial=0.1).eval()
    batch = prepare(method, 4)
    method(batch)["loss"].backward()
    together = {name: p.grad.clone() for name, p in method.named_parameters()}
    truth = batch["image"]
    ours = method.enlarged(resized(shrunk(truth), (16, 16)))
    softplus = torch.nn.functional.softplus
    generator = (ours - truth).square().mean() + 0.1 * softplus(-method.critic(ours)).mean()
    critic = softplus(-method.critic(truth)).mean() + softplus(method.critic(ours)).mean()
    for loss, judge in ((generator, False), (critic, True)):
        method.zero_grad()
        loss.backward(retain_graph=True)
        for name, p in method.named_parameters():
            if name.startswith("critic.") == judge:
                torch.testing.assert_close(p.grad, together[name], atol=1e-6, rtol=1e-4)


def test_flat_images_have_a_finite_psnr(make):
    method = make(adversarial=0).eval()
    assert method.psnr(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)) == pytest.approx(60)


VIT = {"name": "vit", "size": 16, "patch": 4, "dim": 16, "depth": 2, "heads": 2}


@pytest.mark.parametrize("encoder", [{"name": "convnet", "width": 4}, VIT], ids=lambda e: e["name"])
def test_the_image_depends_on_every_map(make, encoder):
    method = make(encoder, width=8, adversarial=0).eval()
    x = torch.randn(1, 3, 16, 16)
    maps = method.encoder.layers(x)
    method.encoder.layers = lambda _: maps
    before = method.enlarged(x)
    assert before.shape == x.shape
    for i, _ in enumerate(maps):
        changed = [m + torch.randn_like(m) * (i == j) for j, m in enumerate(maps)]
        method.encoder.layers = lambda _: changed
        assert not torch.allclose(before, method.enlarged(x))


def test_psnr_above_bicubic_without_the_critic(make, fit):
    method = make({"name": "convnet", "width": 8}, adversarial=0, width=32)
    fit(method, lambda step: detailed(method, step), 100)
    out = method.eval()(detailed(method, 1000, 64))
    assert out["psnr"] > out["psnr_bicubic"] + 0.15


def test_pictures(make, prepare):
    method = make().eval()
    batch = prepare(method, 10)
    (sheet,) = method.pictures(batch).values()
    assert sheet.shape == (3, 4 * 18, 8 * 18)
    low, true = (sheet[:, r + 1 : r + 17, 1:17] for r in (0, 54))
    torch.testing.assert_close(true, batch["image"][0] * 0.25 + 0.5)
    assert torch.equal(low, low[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_sizes_that_do_not_fit(card):
    encoder = nets.build("convnet", width=4)
    with pytest.raises(UserError, match="18 pixels, must be a multiple of 4"):
        load("super_resolution")(encoder, {**card, "size": 18})
