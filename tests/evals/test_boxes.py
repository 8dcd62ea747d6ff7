"""Average precision against loops, and a detector and a segmenter on scenes."""

import numpy as np
import pytest
import torch

from selfsup import evals, nets, shards
from selfsup.core import boxes
from selfsup.evals import detection, linear_segmentation


def around(n, d, seed, centres=None):
    """Boxes (n, d, 4) around `centres` (n, d, 4), or anywhere."""
    random = np.random.default_rng(seed)
    corner, size = random.uniform(0, 0.6, (n, d, 2)), random.uniform(0.1, 0.4, (n, d, 2))
    found = np.concatenate([corner, corner + size], 2)
    return found if centres is None else centres + random.normal(0, 0.04, (n, d, 4))


def overlap(a, b):
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def reference(scores, kinds, guesses, true_kinds, truths, threshold):
    """COCO's AP at one threshold, box by box: 101 points, the precision of each the best at that recall or more."""
    values = []
    for kind in sorted({k for row in true_kinds for k in row if k >= 0}):
        hits = []
        for image in range(len(scores)):
            taken = set()
            for d in range(len(scores[image])):
                if kinds[image][d] != kind:
                    continue
                best, which = threshold, None
                for g, truth in enumerate(truths[image]):
                    if true_kinds[image][g] == kind and g not in taken and overlap(guesses[image][d], truth) >= best:
                        best, which = overlap(guesses[image][d], truth), g
                taken.add(which)
                hits.append((-scores[image][d], image, d, which is not None))
        count, right, curve = sum(k == kind for row in true_kinds for k in row), 0, []
        for number, (*_, hit) in enumerate(sorted(hits), 1):
            right += hit
            curve.append((right / count, right / number))
        values.append(np.mean([max((p for r, p in curve if r >= place - 1e-9), default=0)
                               for place in np.linspace(0, 1, 101)]))
    return np.mean(values)


def measured(scores, kinds, guesses, true_kinds, truths):
    scores, kinds, guesses, true_kinds, truths = map(torch.as_tensor, (scores, kinds, guesses, true_kinds, truths))
    hit = boxes.matched(guesses, kinds, truths, true_kinds)
    return boxes.Precision(scores, kinds, hit, true_kinds), len(scores)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_against_loops(seed):
    random = np.random.default_rng(seed)
    n, g, d = 12, 3, 6
    truths, true_kinds = around(n, g, seed), random.integers(-1, 3, (n, g))
    guesses = np.concatenate([around(n, g, seed + 50, truths), around(n, d - g, seed + 90)], 1)
    kinds = np.concatenate([true_kinds, random.integers(-1, 3, (n, d - g))], 1)
    scores = -np.sort(-random.uniform(size=(n, d)), 1)
    given = scores, kinds, guesses, true_kinds, truths
    precision, _ = measured(*given)
    ours = precision(torch.ones(1, n, dtype=torch.float64))[0]
    theirs = [reference(*given, threshold) for threshold in boxes.THRESHOLDS]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert 0.05 < ours.mean() < 0.95
    # An image that counts as often as another does not is as if it stood there in its place.
    weights = torch.ones(2, n, dtype=torch.float64)
    weights[1, 0] = 0
    left = measured(*(x[1:] for x in given))[0](torch.ones(1, n - 1, dtype=torch.float64))
    torch.testing.assert_close(precision(weights), torch.cat([ours[None], left]))


def test_perfect_boxes_none_and_two_of_one():
    truths, kinds = around(5, 2, 0), np.array([[0, 1]] * 5)
    ones = torch.ones(1, 5, dtype=torch.float64)
    for scores, given, expected in [
        (np.ones((5, 2)), truths, 1.0), (np.ones((5, 2)), truths + 5, 0.0), (np.zeros((5, 0)), truths[:, :0], 0.0)]:
        precision, _ = measured(scores, kinds[:, :given.shape[1]], given, kinds, truths)
        assert precision(ones).unique().tolist() == [expected]
    twice = np.repeat(truths[:, :1], 2, 1)  # one box found twice: the second is wrong
    hit = boxes.matched(*map(torch.as_tensor, (twice, kinds * 0, truths[:, :1], kinds[:, :1])))
    assert hit[:, :, 0].all() and not hit[:, :, 1].any()


def test_a_mirror_image_has_its_boxes():
    image = torch.zeros(1, 16, 16)
    image[0, 3:9, 2:7] = 1
    across = image.flip(2)[0].any(0).nonzero().flatten()
    left, top, right, bottom = (detection.flipped(torch.tensor([2, 3, 7, 9]) / 16) * 16).tolist()
    assert (left, right) == (across.min(), across.max() + 1) and (top, bottom) == (3, 9)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    spec = {"source": "scenes", "size": 32, "train": 96, "val": 24, "test": 24, "seed": 0, "max_bad": 0.0,
            "columns": ["boxes", "mask"]}
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    shards.write("scenes", spec, folder, workers=1)
    return folder


def judged(scenes, protocol, tmp_path, net, **options):
    columns = tuple(dict.fromkeys((net.takes, "label", *evals.load(protocol).columns)))
    data = evals.Data(scenes, cache=tmp_path, columns=columns)
    net.mean, net.std = data.card["mean"], data.card["std"]
    torch.manual_seed(0)
    return dict(evals.run(protocol, net, data, bootstrap=20, **options))


BUDGET = {"batch": 32, "optimizer": "adamw", "lr": [3e-3], "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0}


def test_a_detector_learns_boxes(scenes, tmp_path, monkeypatch):
    net = nets.build("convnet", width=8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = judged(scenes, "detection", tmp_path, net, images=32 * 40, **BUDGET)
    assert found["AP50"] >= found["accuracy"] >= found["AP75"] * 0.2 and found["AP50"] > 3
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # a copy was trained
    vit = nets.build("vit", depth=1, dim=16, size=32)  # all of whose maps are of one side
    assert detection.Pyramid(vit, 32).sides == [8] or len(detection.Pyramid(vit, 32).sides) == 1


def test_pixels_are_told_by_a_linear_layer(scenes, tmp_path):
    net = nets.build("convnet", width=8)
    found = judged(scenes, "linear_segmentation", tmp_path, net, weight_decay=[1e-3], images=64, side=16)
    assert found["kinds"]["background"] > 60 and found["low"] <= found["accuracy"] <= found["high"]
    assert found["accuracy"] == pytest.approx(np.mean(list(found["kinds"].values())), abs=0.02)
    assert set(found["layers"]) == {"1", "2", "3", "4", "5"}
    random = torch.Generator().manual_seed(0)
    guess, truth = torch.randint(3, (2, 4, 8, 8), generator=random)
    both, either = linear_segmentation.overlap(guess, truth)
    for image in range(4):
        for kind in range(3):
            one, other = guess[image] == kind, truth[image] == kind
            assert both[image, kind] == (one & other).sum() and either[image, kind] == (one | other).sum()


@pytest.mark.parametrize("protocol, column", [("detection", "boxes"), ("linear_segmentation", "mask")])
def test_data_without_the_truth_are_one_sentence(tmp_path, protocol, column):
    spec = {"source": "scenes", "size": 8, "train": 20, "val": 10, "test": 10, "seed": 0, "max_bad": 0.0}
    shards.write("plain", spec, tmp_path / "plain", workers=1)
    options = {"weight_decay": [1.0], "images": 8, "side": 4} if column == "mask" else {"images": 8, **BUDGET}
    with pytest.raises(evals.UserError, match=f"{protocol} needs the column '{column}'"):
        evals.load(protocol).choose(nets.build("convnet", width=4), evals.Data(tmp_path / "plain", cache=tmp_path), **options)
