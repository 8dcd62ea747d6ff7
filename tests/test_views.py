from types import SimpleNamespace

import pytest
import torch

from tests.pictures import batch, pictures
from selfsup.core import rng
from selfsup.errors import UserError
from selfsup.inputs import views
from selfsup.inputs.augment import AUGMENTS
from selfsup.inputs.views import MultiCrop, Pair, Taken, View, Views
from selfsup.layers import ImageEncoder

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


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


def test_a_judge_that_trains_feeds_an_encoder_the_column_that_it_takes():
    images, sound = pictures(), torch.arange(24 * 8, dtype=torch.int16).view(24, 8)
    data = batch(images, sound=sound)
    seeing = SimpleNamespace(takes="image", mean=MEAN, std=STD, size=None)
    view = View("crop_flip")(data, 3, MEAN, STD)["image"]
    assert torch.equal(views.trained_on(data, seeing, 3)["image"], view)
    hearing = SimpleNamespace(takes="sound", prepare=lambda column: column / 2)
    out = views.trained_on(data, hearing, 3)
    assert torch.equal(out["sound"], sound / 2) and torch.equal(out["image"], images)


def test_a_view_has_a_size_of_its_own():
    images = pictures(40, size=32)
    large, small = (Views(2, size=size)(batch(images), 1, MEAN, STD)["image"] for size in (None, 16))
    assert large.shape == (40, 2, 3, 32, 32) and small.shape == (40, 2, 3, 16, 16)
    # The same crops of the whole stored image, in fewer pixels.
    halved = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 2).view_as(small)
    assert torch.corrcoef(torch.stack([small.flatten(), halved.flatten()]))[0, 1] > 0.95
    crops = MultiCrop(3, size=16)(batch(images), 1, MEAN, STD)
    assert crops["image"].shape[-1] == 16 and crops["small"].shape == (40, 3, 3, 8, 8)
    for inputs in (View(size=16), Pair(size=16), Taken(size=16)):
        assert inputs(batch(images), 1, MEAN, STD)["image"].shape == (40, 3, 16, 16)
    same = View(size=32)(batch(images), 1, MEAN, STD)["image"]
    assert torch.equal(same, View()(batch(images), 1, MEAN, STD)["image"])


@pytest.mark.parametrize("size, part", [(28, slice(2, 30)), (30, slice(1, 31)), (32, slice(0, 32))])
def test_a_judge_sees_the_middle_of_larger_images(size, part):
    images, encoder = pictures(10, size=32), ImageEncoder()
    encoder.mean, encoder.std, encoder.size = MEAN, STD, None
    whole = encoder.prepare(images)
    encoder.size = size
    assert torch.equal(encoder.prepare(images), whole[..., part, part])


@pytest.mark.parametrize("size", [14, 28, 48])
def test_a_view_without_a_crop_is_what_a_judge_sees(size):
    images, encoder = pictures(10, size=32), ImageEncoder()
    encoder.mean, encoder.std, encoder.size = MEAN, STD, size
    view = View("none", size=size)(batch(images), 1, MEAN, STD)["image"]
    torch.testing.assert_close(view, encoder.prepare(images), atol=1e-4, rtol=0)
