import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core import rng
from selfsup.inputs import views
from selfsup.errors import UserError
from selfsup.inputs.views import AUGMENTS, Augment, Pair, View, Views

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
FACTOR = st.floats(0.0, 2.0, width=32)
HUE = st.floats(-0.5, 0.5, width=32)


@pytest.fixture(scope="module")
def functional():
    from torchvision.transforms.v2 import functional

    return functional


def pictures(n=24, size=32, channels=3, seed=0):
    """Photo-like uint8 images: smooth colours with noise, and a few with flat, grey and saturated areas."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, channels, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear")
    x = (x * 1.4 - 0.2 + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    x[1], x[2, :, : size // 2] = 0.5, x[2, :1, : size // 2]
    x[3] = x[3].round()
    return (x * 255).byte()


def batch(images, index=None, epoch=0, **columns):
    index = torch.arange(len(images)) if index is None else torch.as_tensor(index)
    return {"image": images, "index": index, "epoch": torch.full_like(index, epoch), **columns}


def on(n):
    return torch.ones(n, dtype=torch.bool)


def adjust(functional, which, x, factor):
    return getattr(functional, "adjust_" + ("brightness", "contrast", "saturation", "hue")[which])(x, factor)


def reference(functional, image, p, spec):
    """The same view of one uint8 image by torchvision's functions, with the parameters that were drawn for it."""
    x = image.float() / 255
    if spec.crop:
        x = functional.resized_crop(x, *p["box"].tolist(), list(x.shape[-2:]), antialias=True)
    if p["flip"]:
        x = functional.horizontal_flip(x)
    if p["jitter"]:
        for which in p["order"].tolist():
            x = adjust(functional, which, x, p["factors"][which].item())
    if p["grey"]:
        x = functional.rgb_to_grayscale(x, num_output_channels=3)
    if p["blur"]:
        x = functional.gaussian_blur(x, 2 * views.reach(x.shape[-1]) + 1, [p["sigma"].item()])
    if p["solarize"]:
        x = functional.solarize(x, 0.5)
    return functional.normalize(x, MEAN, STD)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", AUGMENTS)
def test_every_recipe_agrees_with_torchvision_image_by_image(functional, name, size):
    images = pictures(100, size)
    data = batch(images)
    got = Views(2, augment=name)(data, 3, MEAN, STD)["image"]
    specs = AUGMENTS[name] if isinstance(AUGMENTS[name], tuple) else (AUGMENTS[name],) * 2
    for number, spec in enumerate(specs):
        params = views.draw(rng.key(rng.key(3, data["epoch"], data["index"]), number), spec, size, size)
        for i, image in enumerate(images):
            expected = reference(functional, image, {k: v[i] for k, v in params.items()}, spec)
            # A pixel solarized or not by its last bit is no disagreement: it sits at the threshold.
            near = (got[i, number] - expected).abs() < 1e-5 / max(STD)
            if spec.solarize:
                near |= (
                    functional.normalize(expected, [-m / s for m, s in zip(MEAN, STD)], [1 / s for s in STD]) - 0.5
                ).abs() < 1e-4
            assert near.all(), (i, number)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_jitter_agrees_with_torchvision_in_every_order(functional, data):
    x = pictures().float() / 255
    factors = torch.tensor([[data.draw(FACTOR) for _ in range(3)] + [data.draw(HUE)] for _ in x])
    order = torch.tensor(list(permutations(range(4))))
    got = views.jitter(x.clone(), factors, order, on(len(x)))
    for i, image in enumerate(x):
        for which in order[i].tolist():
            image = adjust(functional, which, image, factors[i, which].item())
        torch.testing.assert_close(got[i], image, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(which=st.sampled_from([0, 1, 2]), factor=FACTOR)
def test_each_factor_alone_agrees_with_torchvision(functional, which, factor):
    x = pictures().float() / 255
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(x), 1)
    factors[:, which] = factor
    got = views.jitter(x.clone(), factors, torch.arange(4).repeat(len(x), 1), on(len(x)))
    torch.testing.assert_close(got, adjust(functional, which, x, factor), atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(HUE)
def test_hue_agrees_with_torchvision(functional, shift):
    cube = torch.linspace(0, 1, 10)
    x = torch.cartesian_prod(cube, cube, cube).T.reshape(1, 3, 25, 40)  # greys, ties and corners included
    got = views.hue(x, torch.tensor([shift]))
    torch.testing.assert_close(got, functional.adjust_hue(x, shift), atol=1e-5, rtol=0)


def test_jitter_leaves_alone_whom_it_should():
    x = pictures().float() / 255
    got = views.jitter(x.clone(), torch.full((24, 4), 0.3), torch.arange(4).repeat(24, 1), torch.arange(24) % 2 == 0)
    assert torch.equal(got[1::2], x[1::2])
    assert not torch.isclose(got[::2], x[::2]).flatten(1).all(1).any()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_crop_agrees_with_torchvision(functional, data):
    size = data.draw(st.sampled_from([8, 17, 32]))
    height, width = data.draw(st.integers(1, size)), data.draw(st.integers(1, size))
    box = [data.draw(st.integers(0, size - height)), data.draw(st.integers(0, size - width)), height, width]
    out = data.draw(st.sampled_from([size, size // 2, 2 * size]))
    x = pictures(4, size).float()
    flip = torch.tensor([False, True, False, True])
    got = views.crop(x, torch.tensor(box).repeat(4, 1), flip, (out, out))
    expected = functional.resized_crop(x, *box, [out, out], antialias=True)
    expected[1::2] = expected[1::2].flip(-1)
    torch.testing.assert_close(got, expected, atol=255e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.125, 2.0, width=32), st.sampled_from([32, 96]))
def test_blur_agrees_with_torchvision(functional, sigma, size):
    x = pictures(4, size).float() / 255
    got = views.blur(x, torch.full((4,), sigma))
    expected = functional.gaussian_blur(x, 2 * views.reach(size) + 1, [sigma])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_boxes_are_distributed_as_torchvisions():
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    n, image = 4000, torch.empty(3, 32, 48)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    ours = views.draw(rng.key(0, torch.arange(n)), Augment(crop=(0.08, 1.0)), 32, 48)["box"]
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "free": lambda b: b[:, 0] / (33 - b[:, 2]),
    }.items():
        assert ks_2samp(of(ours).numpy(), of(theirs).numpy()).pvalue > 1e-3, name
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= torch.tensor([32, 48])).all()


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (1, 1)])
def test_boxes_where_no_try_fits_are_torchvisions_central_crop(height, width):
    from torchvision.transforms import RandomResizedCrop

    box = views.draw(rng.key(0, torch.arange(5)), Augment(crop=(1.0, 1.0)), height, width)["box"]
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    assert box.tolist() == [list(expected)] * 5


def test_decisions_have_their_probabilities():
    n = 20_000
    spec = Augment(flip=0.5, jitter=(0.8, 0.6, 1.5, 0.2), jitter_p=0.8, grey=0.2, blur=0.5, solarize=0.1)
    p = views.draw(rng.key(0, torch.arange(n)), spec, 32, 32)
    for name, expected in {"flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.5, "solarize": 0.1}.items():
        assert abs(p[name].float().mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n), name
    for column, (low, high) in enumerate([(0.2, 1.8), (0.4, 1.6), (0.0, 2.5), (-0.2, 0.2)]):
        factor = p["factors"][:, column]
        assert low <= factor.min() < low + 0.01 and high - 0.01 < factor.max() <= high
        assert abs(factor.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * n)
    counts = (p["order"] * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24 and ((counts - n / 24) ** 2 / (n / 24)).sum() < 49.7  # chi squared, 23 degrees, 0.1 %


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_view_depends_on_its_sample_alone(name):
    images = pictures(150)
    inputs = Views(2, augment=name)
    whole = inputs(batch(images), 1, MEAN, STD)
    order = rng.permutation(150, 0)[:97]
    part = inputs(batch(images[order], order), 1, MEAN, STD)
    torch.testing.assert_close(part["image"], whole["image"][order], atol=1e-6, rtol=0)
    assert torch.equal(part["key"], whole["key"][order])
    alone = inputs(batch(images[5:6], [5]), 1, MEAN, STD)
    torch.testing.assert_close(alone["image"], whole["image"][5:6], atol=1e-6, rtol=0)
    assert torch.equal(inputs(batch(images), 1, MEAN, STD)["image"], whole["image"])
    mixed = {**batch(images), "epoch": torch.arange(150) % 2}  # a batch that spans two epochs
    torch.testing.assert_close(inputs(mixed, 1, MEAN, STD)["image"][::2], whole["image"][::2], atol=1e-6, rtol=0)


def test_another_seed_epoch_index_or_view_is_another_view():
    images = pictures(seed=5)[4:5].repeat(40, 1, 1, 1)
    first = Views(2)(batch(images), 1, MEAN, STD)["image"]
    others = {
        "seed": Views(2)(batch(images), 2, MEAN, STD)["image"][:, 0],
        "epoch": Views(2)(batch(images, epoch=1), 1, MEAN, STD)["image"][:, 0],
        "index": Views(2)(batch(images, torch.arange(40) + 1000), 1, MEAN, STD)["image"][:, 0],
        "view": first[:, 1],
        "neighbour": first[:, 0].roll(1, 0),
    }
    for name, other in others.items():
        assert ((first[:, 0] - other).abs().flatten(1).amax(1) > 0.01).all(), name


def test_the_first_view_does_not_depend_on_how_many_follow():
    images = pictures()
    one = View(augment="simclr")(batch(images), 1, MEAN, STD)["image"]
    three = Views(3, augment="simclr")(batch(images), 1, MEAN, STD)["image"]
    assert one.shape == (24, 3, 32, 32) and three.shape == (24, 3, 3, 32, 32)
    assert torch.equal(three[:, 0], one)


@pytest.mark.parametrize("name", AUGMENTS)
def test_values_stay_in_range_before_normalisation(name):
    x = Views(2, augment=name)(batch(pictures(100)), 0, [0.0] * 3, [1.0] * 3)["image"]
    assert x.dtype == torch.float32
    assert x.min() > -1e-6 and x.max() < 1 + 1e-6


def test_none_only_normalises():
    images = pictures()
    got = View(augment="none")(batch(images), 0, MEAN, STD)["image"]
    expected = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_grey_images_pass_through_every_recipe():
    images = pictures(channels=1)
    for name in AUGMENTS:
        x = Views(2, augment=name)(batch(images), 0, [0.0], [1.0])["image"]
        assert x.shape == (24, 2, 1, 32, 32) and x.min() > -1e-6 and x.max() < 1 + 1e-6


def test_oblong_images_keep_their_shape():
    images = torch.cat([pictures(), pictures(seed=1)], 3)
    for name in AUGMENTS:
        assert View(augment=name)(batch(images), 0, MEAN, STD)["image"].shape == images.shape


def test_columns_are_declared_and_the_rest_of_the_batch_passes_through():
    images, caption, label = pictures(), torch.arange(24 * 7).view(24, 7), torch.arange(24)
    data = batch(images, caption=caption, label=label)
    before = images.clone()
    out = Pair("image", "caption", augment="crop_flip")(data, 0, MEAN, STD)
    assert out["image"].shape == images.shape and out["image"].dtype == torch.float32
    assert out["caption"] is caption and out["label"] is label
    assert torch.equal(data["image"], before) and "key" not in data  # the caller's batch is untouched
    assert torch.equal(out["key"], rng.key(0, data["epoch"], data["index"]))
    assert Pair("image", "caption").columns == ("image", "caption")
    assert View().columns == Views(2).columns == ("image",)
    assert View(columns=("image", "label")).columns == ("image", "label")


def test_autocast_does_not_reach_the_views():
    images = pictures()
    plain = Views(2)(batch(images), 0, MEAN, STD)["image"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(Views(2)(batch(images), 0, MEAN, STD)["image"], plain)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match='unknown augmentation "simclrr".*"simclr"'):
        View(augment="simclrr")(batch(pictures()), 0, MEAN, STD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", AUGMENTS)
def test_the_gpu_makes_the_same_views(name):
    data = batch(pictures(100))
    here = Views(2, augment=name)(data, 0, MEAN, STD)["image"]
    there = Views(2, augment=name)({k: v.cuda() for k, v in data.items()}, 0, MEAN, STD)["image"].cpu()
    assert ((there - here).abs() < 1e-4).float().mean() > 0.9999  # but for single pixels on solarize's threshold


def test_multi_crop_has_two_large_and_several_small_views_all_different():
    batch = {"image": pictures(6, 32), "index": torch.arange(6), "epoch": torch.zeros(6, dtype=torch.long)}
    out = views.MultiCrop(small=3, augment="crop")(batch, 0, [0.5] * 3, [0.25] * 3)
    assert out["image"].shape == (6, 2, 3, 32, 32) and out["small"].shape == (6, 3, 3, 16, 16)
    shrunk = torch.nn.functional.avg_pool2d(out["image"].flatten(0, 1), 2).unflatten(0, (6, 2))
    every = torch.cat([shrunk, out["small"]], 1)
    for i in range(5):
        for j in range(i):
            assert (every[:, i] - every[:, j]).abs().mean() > 0.05
    assert torch.equal(out["key"], views.View()(batch, 0, [0.5] * 3, [0.25] * 3)["key"])


def test_small_views_show_a_small_part():
    """An image whose value is its place: the range of a view is the extent of its crop."""
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(16, 3, 64, 64).contiguous()
    batch = {"image": ramp, "index": torch.arange(16), "epoch": torch.zeros(16, dtype=torch.long)}
    out = views.MultiCrop(small=4, augment="crop", large_crop=(0.5, 1.0), small_crop=(0.05, 0.14))(batch, 0, [0.0] * 3, [1.0] * 3)
    extent = lambda x: x.flatten(2).amax(2) - x.flatten(2).amin(2)  # noqa: E731
    assert extent(out["small"]).max() < 0.14**0.5 * (4 / 3) ** 0.5 * 1.05
    assert extent(out["image"]).min() > 0.5**0.5 * (3 / 4) ** 0.5 * 0.9
