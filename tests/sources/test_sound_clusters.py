"""What the source `clusters` makes of sounds: their statistics, and clusters of these."""

import numpy as np
import pytest
import torch

from selfsup import data, shards
from selfsup.core import cluster
from selfsup.errors import UserError
from selfsup.sources.clusters import statistics as s

RATE = 8000


def noise(n, length=4000, seed=0):
    return .1 * np.random.default_rng(seed).normal(size=(n, length))


def test_bands_cover_the_pitches_evenly():
    weights = s.bands(4000, RATE)
    frequency = np.arange(2001) * RATE / 4000
    inside = (frequency >= s.LOWEST) & (frequency <= 0.9 * RATE / 2)
    np.testing.assert_allclose((weights**2).sum(0)[inside], 1, atol=1e-9)
    middles = frequency[weights.argmax(1)]
    assert len(weights) == s.BANDS and (np.diff(middles) > 0).all() and (np.diff(s.ear(middles)).std() < .1)
    assert np.isclose(s.ear(1000), 21.4 * np.log10(.00437 * 1000 + 1), rtol=.01)  # Glasberg & Moore's own formula


def test_the_envelope_of_a_tone_is_its_amplitude():
    tone = .5 * np.sin(2 * np.pi * 1000 * np.arange(4000) / RATE)[None]
    loudness = s.cochleagram(tone, RATE)[0]
    assert loudness.shape == (s.BANDS, 200)
    strongest = loudness[:, 50:150].mean(1).max()
    weight = s.bands(4000, RATE)[:, 500].max()
    assert np.isclose(strongest, (.5 * weight) ** .3, rtol=1e-3)
    trembling = tone * (1 + .8 * np.sin(2 * np.pi * 16 * np.arange(4000) / RATE))
    octaves = s.statistics(trembling, RATE)[2].reshape(len(s.MODULATIONS), s.BANDS)
    band = loudness.mean(1).argmax()
    assert s.MODULATIONS[octaves[:, band].argmax()] == 16 and octaves[:, band].max() > .6  # of all its variance


def test_louder_changes_means_by_the_ears_power_and_correlations_not_at_all():
    mean, deviation, octaves, correlation = s.statistics(noise(3), RATE)
    louder = s.statistics(4 * noise(3), RATE)
    np.testing.assert_allclose(louder[0], 4**.3 * mean, rtol=1e-4)
    np.testing.assert_allclose(louder[1], 4**.3 * deviation, rtol=1e-4)
    np.testing.assert_allclose(louder[2], octaves, atol=1e-5)
    np.testing.assert_allclose(louder[3], correlation, atol=1e-5)
    pair = s.cochleagram(noise(1), RATE)[0, 3:5]
    number = [tuple(index) for index in np.transpose(np.triu_indices(s.BANDS, 1))].index((3, 4))
    assert np.isclose(correlation[0, number], np.corrcoef(pair)[0, 1], atol=1e-5)


def test_white_noise_is_as_loud_in_all_bands_for_their_width():
    mean = s.statistics(noise(20), RATE)[0].mean(0)
    width = np.sqrt((s.bands(4000, RATE) ** 2).sum(1))
    level = mean / width**.3
    assert np.abs(level / level.mean() - 1).max() < .05 and mean.max() > 1.2 * mean.min()


def test_two_sounds_in_a_row_have_both_their_statistics():
    first, second = noise(4), 3 * noise(4, seed=1)
    a, b, both = (s.statistics(x, RATE) for x in (first, second, np.concatenate([first, second], 1)))
    np.testing.assert_allclose(both[0], (a[0] + b[0]) / 2, rtol=.02)
    pooled = np.sqrt((a[1]**2 + b[1]**2) / 2 + (a[0] - b[0])**2 / 4)
    np.testing.assert_allclose(both[1], pooled, rtol=.05)


def test_silence_has_no_statistics_that_are_none():
    quiet = np.zeros((2, 4000))
    quiet[1, :100] = .1
    assert all(np.isfinite(group).all() for group in s.statistics(quiet, RATE))
    assert not s.statistics(quiet, RATE)[3][0].any()


def test_no_group_decides_alone():
    groups = s.statistics(noise(30) * np.linspace(.1, 3, 30)[:, None], RATE)
    scales = s.scales_of(groups)
    scaled = [group / scale for group, scale in zip(groups, scales)]
    assert [round(float(np.median(np.linalg.norm(g, axis=1))), 4) for g in scaled] == [1] * 4
    assert s.together(groups, scales).shape == (30, sum(g.shape[1] for g in groups))


def test_the_column_is_kmeans_of_the_training_sounds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = {"train": 60, "val": 10, "test": 10}
    plain = {"source": "scenes", "size": 8, **counts, "seed": 0, "max_bad": 0, "columns": ["sound"]}
    shards.write("plain", plain, "data/shards/plain", workers=1)
    spec = {"source": "clusters", "data": "plain", "root": "data/shards/plain", "clusters": 5, "size": 8, "max_bad": 0}
    cards = [shards.write("heard", spec, f"data/shards/heard{i}", workers=1) for i in range(2)]
    assert cards[0]["hash"] == cards[1]["hash"] and cards[0]["clusters"] == 5
    assert cards[0]["source"] == "clusters of plain by its sound" and "sound" in cards[0]["columns"]
    found = {split: next(iter(data.open("data/shards/heard0", split, "resident").in_order(100))) for split in counts}
    groups = {split: s.statistics(part["sound"][:, 0].numpy() / 2**15, RATE) for split, part in found.items()}
    scales = s.scales_of(groups["train"])
    vectors = {split: torch.from_numpy(s.together(some, scales)) for split, some in groups.items()}
    labels, centroids = cluster.kmeans(vectors["train"], 5)
    assert torch.equal(found["train"]["cluster"], labels) and len(labels.unique()) == 5
    assert torch.equal(found["test"]["cluster"], torch.cdist(vectors["test"], centroids).argmin(1))
    shards.write("silent", {**plain, "columns": []}, "data/shards/silent", workers=1)
    with pytest.raises(UserError, match="data/shards/silent has no sound"):
        shards.write("heard", {**spec, "data": "silent", "root": "data/shards/silent"}, "data/shards/heard2")
