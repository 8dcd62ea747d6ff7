"""Generated characters: pure functions of (seed, class, sample), splits of classes of their own, and what outliers
are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup import data, evals, shards, sources
from selfsup.errors import UserError
from selfsup.sources import glyphs
from selfsup.training import measure

SPEC = {"source": "glyphs", "size": 16, "train": 60, "val": 20, "test": 20, "seed": 0, "classes": 10, "max_bad": 0.0}


def images(split, start=0, stop=None, **changes):
    source = sources.open({**SPEC, **changes})
    stop = source.counts[split] if stop is None else stop
    some = [sample for _, sample in source.read(split, start, stop)]
    return np.stack([sample["image"] for sample in some]), np.array([sample["label"] for sample in some])


def test_the_bytes_are_the_known_ones():
    """Guards the promise that pixels are the same on every machine: pinned values, changed only on purpose."""
    (image,), _ = images("train", stop=1, size=32)
    assert [int(image[i, i]) for i in (4, 12, 16, 20, 27)] == [246, 107, 86, 247, 247]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 40), st.integers(1, 20))
def test_a_slice_equals_that_part_of_the_whole(start, length):
    whole, labels = images("train")
    part, some = images("train", start, start + length)
    assert np.array_equal(part, whole[start:start + length]) and np.array_equal(some, labels[start:start + length])


def test_each_split_has_classes_of_its_own_and_all_images_of_them():
    found = {split: images(split)[1] for split in sources.SPLITS}
    assert {split: sorted(set(some.tolist())) for split, some in found.items()} == {
        "train": list(range(6)), "val": [6, 7], "test": [8, 9]}
    assert all((np.bincount(some)[np.unique(some)] == 10).all() for some in found.values())
    (shared,) = {frozenset(images(split, new_classes=False)[1].tolist()) for split in sources.SPLITS}
    assert shared == set(range(10))
    with pytest.raises(UserError, match="of 2 classes none is left for test, which has 20 images of 100"):
        sources.open({**SPEC, "classes": 2})


def test_an_image_depends_on_its_class_and_number_alone():
    """More classes, or other counts, move none of them; splits share no image where they share classes."""
    few, labels = images("train")
    many, others = images("train", train=120, val=40, test=40, classes=20)
    for c in range(6):
        assert np.array_equal(few[labels == c], many[others == c])
    train, val = (images(split, new_classes=False)[0] for split in ("train", "val"))
    assert not (train[:, None] == val).all((2, 3)).any()
    assert not np.array_equal(images("train", seed=1)[0], few)


def nearest(train, labels, test):
    far = ((train.reshape(len(train), -1)[:, None].astype(float) - test.reshape(len(test), -1)) ** 2).sum(2)
    return labels[far.argmin(0)]


def test_classes_can_be_told_apart_and_pixels_are_not_enough():
    options = {"size": 32, "classes": 20, "train": 20, "val": 100, "test": 1, "new_classes": False}
    right = [(nearest(*images("train", **options, jitter=jitter), images("val", **options, jitter=jitter)[0])
              == images("val", **options, jitter=jitter)[1]).mean() for jitter in (0.0, 1.0, 2.0)]
    assert right[0] > 0.9 > 0.6 > right[1] > 0.15 and right[1] > right[2]  # chance is 5 %


def test_what_is_overlaid_is_no_class_and_for_training_alone():
    plain, labels = images("train", new_classes=False)
    mixed, same = images("train", new_classes=False, overlaid=0.4)
    other = (plain != mixed).any((1, 2))
    assert np.array_equal(labels, same) and 12 < other.sum() < 36
    middle = plain.mean(0)  # they lie between all classes: nearer to the mean than any glyph
    far = [np.abs(some - middle).mean((1, 2)) for some in (mixed[other], plain)]
    assert np.median(far[0]) < np.quantile(far[1], 0.05)
    for split in ("val", "test"):
        assert np.array_equal(images(split, new_classes=False)[0], images(split, new_classes=False, overlaid=0.4)[0])
    assert np.array_equal(images("train", 7, 30, new_classes=False, overlaid=0.4)[0], mixed[7:30])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards of new classes, and of shared ones: (folder, card) of each."""
    folder = tmp_path_factory.mktemp("glyphs")
    specs = {"new": SPEC, "shared": {**SPEC, "new_classes": False}}
    return {name: (folder / name, shards.write(name, spec, folder / name, workers=1)) for name, spec in specs.items()}


def test_the_card_says_which_splits_have_new_classes_and_judges_go_by_it(made):
    """Excludes episodes of classes that training saw."""
    new, shared = made["new"][1], made["shared"][1]
    assert new["new_classes"] == ["val", "test"] and "new_classes" not in shared
    assert evals.unfit("few_shot", new) is None and evals.unfit("knn", shared) is None
    assert evals.unfit("knn", new) == "train has no class of val and test, and knn learns from train which are which"
    assert evals.unfit("few_shot", shared) == "train has classes of val and test, and few_shot judges by new ones"
    assert evals.unfit("knn", {**shared, "counts": {**shared["counts"], "val": 0}}) == "the val split is empty"


def test_a_method_of_labels_has_no_objective_on_new_classes(made, tmp_path):
    from selfsup import methods, nets

    for name, (folder, card) in made.items():
        val = data.open(folder, "val", cache=tmp_path)
        method = methods.load("supervised")(nets.build("convnet", width=2, card=card), card)
        episodes = methods.load("prototypical")(method.encoder, 2, 1, 1)
        assert len(next(measure.held_out(episodes, val, 8, 0))["label"]) == 8
        if name == "shared":
            assert len(next(measure.held_out(method, val, 8, 0))["label"]) == 8
            continue
        with pytest.raises(UserError, match="train has no class of val"):
            measure.held_out(method, val, 8, 0)


def test_of_a_folder_whole_classes_are_carved(tmp_path):
    from tests.data.making import encoded, folder_spec, picture

    for c in range(12):
        for i in range(4):
            path = tmp_path / "raw" / f"c{c}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(10 * c + i)))
    spec = folder_spec(tmp_path / "raw", val_share=0.3, test_share=0.3, new_classes=True)
    card = shards.write("toy", spec, tmp_path / "toy", workers=1)
    assert card["new_classes"] == ["val", "test"] and len(card["classes"]) == 12
    assert {count for counts in card["class_counts"].values() for count in counts} == {0, 4}
    assert np.array_equal(np.sum(list(card["class_counts"].values()), 0), np.full(12, 4))
