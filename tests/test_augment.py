"""Operations of views, each against torchvision's, and what is drawn for them."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import batch, pictures
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.inputs import augment, operations, rand_augment
from selfsup.inputs.augment import AUGMENTS, Augment, augmentation
from selfsup.inputs.views import MultiCrop, View, Views

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
FACTOR = st.floats(0.0, 2.0, width=32)
HUE = st.floats(-0.5, 0.5, width=32)


@pytest.fixture(scope="module")
def functional():
    from torchvision.transforms.v2 import functional

    return functional


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
    if spec.shift:  # a crop out of the image with mirrored edges, as FixMatch's code has it
        most, (down, right), (h, w) = int(spec.shift * x.shape[1]), p["shift"].tolist(), x.shape[1:]
        x = functional.crop(functional.pad(x, [most] * 4, padding_mode="reflect"), most - down, most - right, h, w)
    if p["jitter"]:
        for which in p["order"].tolist():
            x = adjust(functional, which, x, p["factors"][which].item())
    if p["grey"]:
        x = functional.rgb_to_grayscale(x, num_output_channels=3)
    if p["blur"]:
        x = functional.gaussian_blur(x, 2 * operations.reach(x.shape[-1]) + 1, [p["sigma"].item()])
    if p["solarize"]:
        x = functional.solarize(x, 0.5)
    if spec.rand:  # held to torchvision's and to PIL's below
        x = rand_augment.apply(x[None].clone(), *(p[name][None] for name in ("operation", "magnitude", "sign")))[0]
    x = functional.normalize(x, MEAN, STD)
    if spec.cutout:
        half, (h, w) = round(spec.cutout * x.shape[1]) // 2, x.shape[1:]
        y, x_ = (p["cutout"] * torch.tensor([h, w])).long().tolist()
        x[:, max(0, y - half) : y + half, max(0, x_ - half) : x_ + half] = 0
    return x


@pytest.mark.parametrize(["count", "size"], [(100, 32), (24, 136)])  # of the larger ones a CPU changes one after the other
@pytest.mark.parametrize("name", AUGMENTS)
def test_every_recipe_agrees_with_torchvision_image_by_image(functional, name, count, size):
    images = pictures(count, size)
    data = batch(images)
    got = Views(2, augment=name)(data, 3, MEAN, STD)["image"]
    specs = AUGMENTS[name] if isinstance(AUGMENTS[name], tuple) else (AUGMENTS[name],) * 2
    for number, spec in enumerate(specs):
        params = augment.draw(rng.key(rng.key(3, data["epoch"], data["index"]), number), spec, size, size)
        for i, image in enumerate(images):
            expected = reference(functional, image, {k: v[i] for k, v in params.items()}, spec)
            # A pixel solarized or not by its last bit is no disagreement: it sits at the threshold.
            near = (got[i, number] - expected).abs() < 1e-5 / max(STD)
            if spec.solarize:
                near |= (
                    functional.normalize(expected, [-m / s for m, s in zip(MEAN, STD)], [1 / s for s in STD]) - 0.5
                ).abs() < 1e-4
            # An operation with a threshold after one that rounds as the batch goes turns a pixel over by its last bit.
            assert near.float().mean() > 0.99 if spec.rand else near.all(), (i, number)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_jitter_agrees_with_torchvision_in_every_order(functional, data):
    x = pictures(size=data.draw(st.sampled_from([32, 96]))).float() / 255
    factors = torch.tensor([[data.draw(FACTOR) for _ in range(3)] + [data.draw(HUE)] for _ in x])
    order = torch.tensor(list(permutations(range(4))))
    got = operations.jitter(x.clone(), factors, order, on(len(x)))
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
    got = operations.jitter(x.clone(), factors, torch.arange(4).repeat(len(x), 1), on(len(x)))
    torch.testing.assert_close(got, adjust(functional, which, x, factor), atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(HUE)
def test_hue_agrees_with_torchvision(functional, shift):
    cube = torch.linspace(0, 1, 10)
    x = torch.cartesian_prod(cube, cube, cube).T.reshape(1, 3, 25, 40)  # greys, ties and corners included
    got = operations.hue(x, torch.tensor([shift]))
    torch.testing.assert_close(got, functional.adjust_hue(x, shift), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [32, 96])
def test_jitter_leaves_alone_whom_it_should(size):
    x = pictures(size=size).float() / 255
    got = operations.jitter(x.clone(), torch.full((24, 4), 0.3), torch.arange(4).repeat(24, 1), torch.arange(24) % 2 == 0)
    assert torch.equal(got[1::2], x[1::2])
    assert not torch.isclose(got[::2], x[::2]).flatten(1).all(1).any()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_crop_agrees_with_torchvision(functional, data):
    size = data.draw(st.sampled_from([8, 17, 32, 100]))  # from 96 on a CPU goes another way
    height, width = data.draw(st.integers(1, size)), data.draw(st.integers(1, size))
    box = [data.draw(st.integers(0, size - height)), data.draw(st.integers(0, size - width)), height, width]
    out = data.draw(st.sampled_from([size, size // 2, 2 * size]))
    x = pictures(4, size).float()
    flip = torch.tensor([False, True, False, True])
    got = operations.crop(x, torch.tensor(box).repeat(4, 1), flip, (out, out))
    expected = functional.resized_crop(x, *box, [out, out], antialias=True)
    expected[1::2] = expected[1::2].flip(-1)
    torch.testing.assert_close(got, expected, atol=255e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(sigma=st.floats(0.125, 2.0, width=32), shape=st.sampled_from([(32, 32), (96, 96), (130, 130), (240, 130)]))
def test_blur_agrees_with_torchvision(functional, sigma, shape):
    x = pictures(4, max(shape))[:, :, :shape[0], :shape[1]].float() / 255
    got = operations.blur(x, torch.full((4,), sigma))
    expected = functional.gaussian_blur(x, [2 * operations.reach(side) + 1 for side in reversed(shape)], [sigma])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_boxes_are_distributed_as_torchvisions():
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    n, image = 4000, torch.empty(3, 32, 48)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    ours = augment.draw(rng.key(0, torch.arange(n)), Augment(crop=(0.08, 1.0)), 32, 48)["box"]
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

    box = augment.draw(rng.key(0, torch.arange(5)), Augment(crop=(1.0, 1.0)), height, width)["box"]
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
    assert box.tolist() == [list(expected)] * 5


def test_decisions_have_their_probabilities():
    n = 20_000
    spec = Augment(flip=0.5, jitter=(0.8, 0.6, 1.5, 0.2), jitter_p=0.8, grey=0.2, blur=0.5, solarize=0.1)
    p = augment.draw(rng.key(0, torch.arange(n)), spec, 32, 32)
    for name, expected in {"flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.5, "solarize": 0.1}.items():
        assert abs(p[name].float().mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / n), name
    for column, (low, high) in enumerate([(0.2, 1.8), (0.4, 1.6), (0.0, 2.5), (-0.2, 0.2)]):
        factor = p["factors"][:, column]
        assert low <= factor.min() < low + 0.01 and high - 0.01 < factor.max() <= high
        assert abs(factor.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * n)
    counts = (p["order"] * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)[1]
    assert len(counts) == 24 and ((counts - n / 24) ** 2 / (n / 24)).sum() < 49.7  # chi squared, 23 degrees, 0.1 %


# --- RandAugment and cutout

OPERATIONS = dict(zip(rand_augment.OPERATIONS, (
    "Identity AutoContrast Equalize Posterize Solarize Brightness Color Contrast Sharpness Rotate ShearX ShearY "
    "TranslateX TranslateY").split()))


def theirs(name, magnitude, sign):
    """One of torchvision's operations at a magnitude of 30, a function of one image."""
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    transform = RandAugment(interpolation=InterpolationMode.BILINEAR)

    def function(image):
        values, signed = transform._AUGMENTATION_SPACE[OPERATIONS[name]]
        values = values(31, *image.shape[1:])
        strength = 0.0 if values is None else float(values[magnitude]) * (sign if signed else 1)
        return transform._apply_image_or_video_transform(
            image, OPERATIONS[name], strength, transform.interpolation, {torch.Tensor: None})

    return function


def test_the_list_of_operations_is_torchvisions():
    from torchvision.transforms.v2 import RandAugment

    assert sorted(OPERATIONS.values()) == sorted(RandAugment._AUGMENTATION_SPACE)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(32, 32), (20, 44)])
def test_rand_augments_operations_agree_with_torchvision(name, shape):
    x = (pictures(12, 44)[:, :, : shape[0], : shape[1]]).float() / 255
    which = torch.full((12, 1), rand_augment.WHICH[name])
    for magnitude in (0, 1, 9, 20, 30):
        for sign in (1, -1):
            strength, direction = torch.full((12, 1), magnitude / 30), torch.full((12, 1), float(sign))
            got = rand_augment.apply(x.clone(), which, strength, direction)
            expected = torch.stack([theirs(name, magnitude, sign)(image) for image in x])
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


PILS = {
    "identity": lambda image, m, s: image,
    "autocontrast": lambda image, m, s: ImageOps.autocontrast(image),
    "equalize": lambda image, m, s: ImageOps.equalize(image),
    "posterize": lambda image, m, s: ImageOps.posterize(image, 8 - round(4 * m)),
    "solarize": lambda image, m, s: ImageOps.solarize(image, math.ceil((1 - m) * 255)),
    "brightness": lambda image, m, s: ImageEnhance.Brightness(image).enhance(1 + s * m * 0.9),
    "colour": lambda image, m, s: ImageEnhance.Color(image).enhance(1 + s * m * 0.9),
    "contrast": lambda image, m, s: ImageEnhance.Contrast(image).enhance(1 + s * m * 0.9),
    "sharpness": lambda image, m, s: ImageEnhance.Sharpness(image).enhance(1 + s * m * 0.9),
    "rotate": lambda image, m, s: image.rotate(30 * s * m, Image.Resampling.BILINEAR),
    "shear_x": lambda image, m, s: affine(image, 1, 0.3 * s * m, 0, 0, 1, 0),
    "shear_y": lambda image, m, s: affine(image, 1, 0, 0, 0.3 * s * m, 1, 0),
    "translate_x": lambda image, m, s: affine(image, 1, 0, -int(s * m * 150 / 331 * image.width), 0, 1, 0),
    "translate_y": lambda image, m, s: affine(image, 1, 0, 0, 0, 1, -int(s * m * 150 / 331 * image.height)),
}


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@pytest.mark.parametrize("low", [(0, 30), (rand_augment.FIXMATCH,)], ids=str)
def test_a_batch_of_operations_is_pils_image_by_image_to_a_grey_level(low):
    """With magnitudes of the images' own. Where a moved image has its edge, PIL takes the pixel inside for one outside."""
    n = 200
    x = pictures(n)
    p = rand_augment.draw(rng.uniform(rng.key(0, torch.arange(n)), 1, 3), *low)
    got = (rand_augment.apply(x.float() / 255, *p.values()) * 255).round().long()
    white = rand_augment.apply(torch.ones(n, 1, 32, 32), *(where_moved(v, p["operation"]) for v in p.values()))
    inside = F.max_pool2d((white < 1 - 1e-6).float(), 3, 1, 1)[:, 0] == 0
    seen = set()
    for i, (which, m, s) in enumerate(zip(*(value[:, 0].tolist() for value in p.values()))):
        image = Image.fromarray(x[i].permute(1, 2, 0).numpy())
        expected = torch.from_numpy(np.array(PILS[rand_augment.OPERATIONS[which]](image, m, s))).permute(2, 0, 1).long()
        far = ((got[i] - expected).abs() > 1) & inside[i]
        assert not far.any(), (rand_augment.OPERATIONS[which], m, s, (got[i] - expected)[far][:5])
        seen.add(which)
    assert len(seen) == 14 and inside.float().mean() > 0.7


def where_moved(value, operation):
    """Of other operations nothing that changes a white image."""
    moves = operation >= rand_augment.WHICH["rotate"]
    return torch.where(moves, value, 0 if value.dtype == torch.long else 0.0)


def test_fixmatchs_operations_have_ranges_of_their_own():
    """Sohn et al. 2020, table of the appendix: factors .05 to .95, which take away and never add; ±30°, ±.3; 4 to 8 bits."""
    p = rand_augment.draw(rng.uniform(rng.key(0, torch.arange(20_000)), 2, 3), rand_augment.FIXMATCH)
    amount = p["sign"] * p["magnitude"]

    def of(name):
        return amount[p["operation"] == rand_augment.WHICH[name]]

    for name, low, high, strength in [*((name, 0.05, 0.95, lambda a: 1 + 0.9 * a) for name in (
            "brightness", "colour", "contrast", "sharpness")), *((name, -0.3, 0.3, lambda a: a * 150 / 331) for name in (
            "translate_x", "translate_y")), ("rotate", -30, 30, lambda a: 30 * a), ("shear_x", -0.3, 0.3, lambda a: 0.3 * a),
            ("posterize", 4, 8, lambda a: 8 - (4 * a.abs()).round()), ("solarize", 0, 1, lambda a: 1 - a.abs())]:
        found = strength(of(name))
        assert low - 1e-4 <= found.min() < low + 0.02 * (high - low), name
        assert high - 0.02 * (high - low) < found.max() <= high + 1e-4, name
        assert abs(found.mean() - (low + high) / 2) < 0.03 * (high - low), name


@settings(max_examples=30, deadline=None)
@given(share=st.sampled_from([0.03, 0.125, 0.5]), shape=st.sampled_from([(32, 32), (8, 20)]), seed=st.integers(0, 99))
def test_shifts_are_whole_pixels_with_mirrored_edges(share, shape, seed):
    p = augment.draw(rng.key(seed, torch.arange(6)), Augment(shift=share), *shape)["shift"]
    most = [int(share * side) for side in shape]
    assert (p.abs() <= torch.tensor(most)).all()
    x = torch.randn(6, 2, *shape)
    padded = F.pad(x, (most[1], most[1], most[0], most[0]), mode="reflect")
    for image, whole, (down, right) in zip(operations.shift(x, p), padded, p.tolist()):
        at = most[0] - down, most[1] - right
        assert torch.equal(image, whole[:, at[0] : at[0] + shape[0], at[1] : at[1] + shape[1]])


def test_all_shifts_are_as_likely():
    p = augment.draw(rng.key(0, torch.arange(18_000)), Augment(shift=0.125), 32, 32)["shift"]
    counts = (p[:, 0] * 9 + p[:, 1] + 40).bincount(minlength=81)
    assert len(counts) == 81 and ((counts - 18_000 / 81) ** 2 / (18_000 / 81)).sum() < 124.8  # chi squared, 80 degrees, 0.1 %


def test_each_image_has_its_own_operations_in_turn():
    n = 60
    x = pictures(n).float() / 255
    p = rand_augment.draw(rng.uniform(rng.key(0, torch.arange(n)), 3, 3), 3, 27)
    assert len(p["operation"].unique()) == len(OPERATIONS) and len(p["magnitude"].unique()) > 100
    p["magnitude"] = (30 * p["magnitude"]).round() / 30  # torchvision knows whole magnitudes
    whole = rand_augment.apply(x.clone(), *p.values())
    for turn in range(3):
        one = {name: value[:, turn : turn + 1] for name, value in p.items()}
        got = rand_augment.apply(x.clone(), *one.values())
        for i, (which, magnitude, sign) in enumerate(zip(*(value[:, 0].tolist() for value in one.values()))):
            name = rand_augment.OPERATIONS[which]
            expected = theirs(name, round(30 * magnitude), sign)(x[i])
            near = (got[i] - expected).abs() <= 1e-5
            if name == "solarize":  # a value at the threshold falls to either side by its last bit
                near |= (x[i] - (1 - magnitude)).abs() < 1e-6
            assert near.all(), (turn, i, name)
        x = got
    assert torch.equal(whole, x)


def test_rand_augments_choices_have_their_probabilities():
    n = 30_000
    p = rand_augment.draw(rng.uniform(rng.key(0, torch.arange(n)), 2, 3), 6, 24)
    share = p["operation"].flatten().bincount(minlength=14) / (2 * n)
    assert (share - 1 / 14).abs().max() < 4 * math.sqrt(1 / 14 / (2 * n))
    assert abs(p["sign"].mean()) < 4 / math.sqrt(2 * n) and set(p["sign"].unique().tolist()) == {-1, 1}
    assert 0.2 <= p["magnitude"].min() < 0.21 and 0.79 < p["magnitude"].max() < 0.8
    fixed = rand_augment.draw(rng.uniform(rng.key(0, torch.arange(9)), 2, 3), 9)["magnitude"]
    assert torch.equal(fixed, torch.full((9, 2), 9 / 30))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_cutout_sets_a_square_to_the_mean(share):
    images = pictures(200)
    whole = View("none")(batch(images), 0, [-1.0] * 3, STD)["image"]  # no pixel is at the mean
    got = View({"cutout": share})(batch(images), 0, [-1.0] * 3, STD)["image"]
    cut = (got == 0).all(1)
    assert torch.equal(got[~cut[:, None].expand_as(got)], whole[~cut[:, None].expand_as(got)])
    side = round(share * 32)
    for hidden in cut:
        rows, columns = hidden.any(1).nonzero()[:, 0], hidden.any(0).nonzero()[:, 0]
        assert hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "one rectangle"
        assert side // 2 <= len(rows) <= side and hidden.sum() == len(rows) * len(columns)
    assert len({tuple(hidden.flatten().nonzero()[:, 0].tolist()) for hidden in cut}) > 100


def test_cutout_falls_everywhere_alike():
    """As often on each pixel that is further than half a square from the edge."""
    cut = operations.square(rng.uniform(rng.key(0, torch.arange(20_000)), 2), 0.25, 32, 32)[:, 0].float().mean(0)
    inner = cut[4:-4, 4:-4]
    assert (inner - (8 / 32) ** 2).abs().max() < 5 * math.sqrt(0.0625 / 20_000)
    assert cut[0, 0] < inner.min()


# --- Colour, bands and bits


def test_where_there_is_no_colour_only_brightness_and_contrast_act():
    colourful = Augment(jitter=(0.0, 0.0, 1.0, 0.5), jitter_p=1.0, grey=1.0)
    for channels in (1, 2, 4, 13):
        images, mean, std = pictures(channels=channels), [0.0] * channels, [1.0] * channels
        got = View(colourful)(batch(images), 0, mean, std)["image"]
        torch.testing.assert_close(got, images / 255, atol=1e-6, rtol=0)
        p = augment.draw(rng.key(0, torch.arange(24)), Augment(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=1.0), 32, 32)
        got = operations.jitter(images / 255, p["factors"], p["order"], p["jitter"])
        for i, x in enumerate(images / 255):
            for which in p["order"][i].tolist():
                factor = p["factors"][i, which]
                if which < 2:
                    x = (x * factor + (1 - factor) * (x.mean((1, 2), keepdim=True) if which == 1 else 0)).clamp(0, 1)
            torch.testing.assert_close(got[i], x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("value", [*AUGMENTS, {"rand": [2, 9], "cutout": 0.5}])
def test_any_number_of_bands_passes_through_every_recipe(value, channels):
    x = Views(2, augment=value)(batch(pictures(channels=channels)), 0, [0.0] * channels, [1.0] * channels)["image"]
    assert x.shape == (24, 2, channels, 32, 32) and x.min() > -1e-6 and x.max() < 1 + 1e-6


@pytest.mark.parametrize("value", ["simclr", {"rand": [2, 9]}])
def test_sixteen_bits_are_scaled_by_their_own_range(value):
    images = pictures()
    deep = (images.int() * 257).to(torch.uint16)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    got, expected = (View(value)(batch(x), 0, mean, std)["image"] for x in (deep, images))
    assert ((got - expected).abs() < 1e-4).float().mean() > 0.999  # equalize and others have thresholds


# --- What an augmentation may be


def test_what_an_augmentation_may_be():
    assert augmentation("simclr") == (AUGMENTS["simclr"],)
    assert augmentation("asym") == AUGMENTS["asym"]
    assert augmentation({"crop": [0.5, 1], "flip": 0.5}) == (Augment(crop=(0.5, 1), flip=0.5),)
    assert augmentation(["crop", {"grey": 1}]) == (AUGMENTS["crop"], Augment(grey=1))
    assert augmentation({}) == augmentation("none")
    assert hash(augmentation({"crop": [0.5, 1]})) == hash(augmentation({"crop": (0.5, 1)}))


def test_a_mapping_makes_the_views_of_the_same_augment():
    data = batch(pictures())
    by_name = Views(2, augment="crop_flip")(data, 0, MEAN, STD)["image"]
    assert torch.equal(Views(2, augment={"crop": [0.2, 1], "flip": 0.5})(data, 0, MEAN, STD)["image"], by_name)
    two = Views(3, augment=["none", {"crop": [0.2, 1], "flip": 0.5}])(data, 0, MEAN, STD)["image"]
    plain = View("none")(data, 0, MEAN, STD)["image"]
    assert torch.equal(two[:, 1], by_name[:, 1]) and torch.equal(two[:, 0], plain) and torch.equal(two[:, 2], plain)
    assert MultiCrop(2, {"flip": 0.5})(data, 0, MEAN, STD)["small"].shape == (24, 2, 3, 16, 16)
    assert View({"scale": 0.5})(data, 0, MEAN, STD)["image"].shape == (24, 3, 16, 16)


@pytest.mark.parametrize("value, sentence", [
    ("simclrr", 'augment: unknown augmentation "simclrr"; did you mean "simclr"'),
    ({"crops": [0.5, 1]}, 'augment: unknown field "crops"; did you mean "crop"'),
    ({3: 1}, 'augment: unknown field "3"'),
    ({"crop": 0.5}, r"augment.crop: should be the smallest and the largest share .* not 0.5"),
    ({"crop": [1, 0.5]}, r"augment.crop: .* not \[1, 0.5\]"),
    ({"crop": [0, 1]}, "augment.crop"),
    ({"crop": [0.5, 1.5]}, "augment.crop"),
    ({"crop": ["a", 1]}, "augment.crop"),
    ({"flip": 1.5}, "augment.flip: should be a probability, 0 to 1, not 1.5"),
    ({"flip": True}, "augment.flip"),
    ({"flip": "0.5"}, "augment.flip"),
    ({"flip": float("nan")}, "augment.flip"),
    ({"scale": 0}, "augment.scale"),
    ({"jitter": [0.4, 0.4, 0.4]}, "augment.jitter: should be the strengths"),
    ({"jitter": [float("inf"), 0, 0, 0]}, "augment.jitter: should be the strengths"),
    ({"jitter": [0.4, 0.4, 0.4, 0.6]}, "augment.jitter"),
    ({"rand": 2}, "augment.rand: should be how many operations"),
    ({"rand": [2]}, "augment.rand"),
    ({"rand": [2, 31]}, "augment.rand"),
    ({"rand": [0, 9]}, "augment.rand"),
    ({"rand": [1.5, 9]}, "augment.rand"),
    ({"rand": [2, 9, 3]}, "augment.rand"),
    ({"rand": [2, "fixmach"]}, r"augment.rand: .* or \[2, fixmatch\], not \[2, 'fixmach'\]"),
    ({"cutout": [0.5]}, "augment.cutout"),
    ({"shift": 0.6}, "augment.shift: should be a share of the image's side, 0 to 0.5, not 0.6"),
    ({"mixup": -1}, "augment.mixup: should be 0 or alpha"),
    ({"mixup": True}, "augment.mixup"),
    (["crop", {"scale": 0.5}], "augment: all views of a list have the same scale"),
    ([], "augment: should be a name"),
    (None, "augment: should be a name"),
    (3, "augment: should be a name"),
])
def test_errors_of_an_augmentation(value, sentence):
    with pytest.raises(UserError, match=sentence):
        augmentation(value)
    with pytest.raises(UserError, match=f"^runs.a.args.{sentence}"):
        augmentation(value, "runs.a.args.augment")


# --- On a GPU: nothing read back, nothing copied there


class Constants(TorchFunctionMode):
    """Refuses tensors made of values on a device: on a GPU each is a copy for which the host waits."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        makes = function in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy)
        assert not makes or torch.is_tensor(args[0]) or kwargs.get("device") is None, (function, args, kwargs)
        assert function not in (torch.Tensor.new_tensor, torch.Tensor.cuda)
        return function(*args, **kwargs)


@pytest.mark.parametrize("value", [
    *AUGMENTS, {"rand": [2, 9]}, {"rand": [2, 1, 10], "cutout": 0.5}, {"blur": 1.0}, {"mixup": 0.5}])
def test_on_a_gpu_nothing_is_read_back_or_copied_there(value):
    with FakeTensorMode():
        on_gpu = {"device": "cuda"}
        data = {"image": torch.empty(16, 3, 32, 32, dtype=torch.uint8, **on_gpu), **{
            name: torch.empty(16, dtype=torch.int64, **on_gpu) for name in ("index", "epoch")}}
        mean, std = torch.empty(3, **on_gpu), torch.empty(3, **on_gpu)
        with Constants():
            x = Views(2, augment=value)(data, 0, mean, std)["image"]
            small = MultiCrop(2, augment=value)(data, 0, mean, std)["small"]
    assert x.device.type == small.device.type == "cuda"
    assert x.shape == (16, 2, 3, 32, 32) and small.shape == (16, 2, 3, 16, 16)


@pytest.mark.parametrize("bad", [
    lambda x: torch.tensor([0.0, 1.0], device=x.device),
    lambda x: x.new_tensor([0.0, 1.0]),
    lambda x: x[x > 0],
    lambda x: bool(x.sum() > 0),
])
def test_that_this_would_be_seen(bad):
    with pytest.raises(Exception), FakeTensorMode():
        x = torch.empty(3, device="cuda")
        with Constants():
            bad(x)
