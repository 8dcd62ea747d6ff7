"""Inputs of other signals than images: noise of each sample's own, whatever the batch, the process and the reader."""

import numpy as np
import pytest
import torch

from selfsup.core import rng
from selfsup.data.columns import Array, Frames as FramesColumn, Sound as SoundColumn, Text, picture
from selfsup.inputs.frames import Frames
from selfsup.inputs.points import Points, kept, turned
from selfsup.inputs.sound import ImageSound, Sound, heard
from selfsup.inputs.tokens import WORDS, Tokens, masked, shifted, windows
from selfsup.inputs.views import Taken, View
from tests.data.test_columns import both, noise, shard

MEAN, STD, VOCABULARY = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3], 30
KEEP = torch.linspace(0, 1, VOCABULARY) * (torch.arange(VOCABULARY) >= WORDS)


def made(n=40, seed=0):
    """The columns of n samples as readers give them."""
    random = torch.Generator().manual_seed(seed)
    text = torch.randint(WORDS, VOCABULARY, (n, 20), generator=random)
    text[:, 0], text[:, 15] = 1, 2
    text[:, 16:] = 0
    return {"image": torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=random),
            "sound": torch.randint(-(2**15), 2**15, (n, 2, 200), generator=random).short(),
            "frames": torch.randint(256, (n, 3, 3, 8, 8), dtype=torch.uint8, generator=random),
            "points": torch.randn(n, 2, 30, 6, generator=random), "text": text}


def batch(columns, index=None, epoch=0):
    index = torch.arange(len(columns["image"])) if index is None else index
    return {**columns, "index": index, "epoch": torch.full_like(index, epoch)}


def masks(data, seed):
    return torch.stack(masked(data["text"], Tokens()(data, seed, MEAN, STD)["key"], VOCABULARY), 1)


def pairs(data, seed):
    centre, around = windows(data["text"], Tokens()(data, seed, MEAN, STD)["key"], KEEP)
    return torch.cat([centre[:, :, None], around], 2)


INPUTS = {
    "sound": lambda data, seed: Sound()(data, seed, MEAN, STD)["sound"],
    "image and sound": lambda data, seed: ImageSound()(data, seed, MEAN, STD)["sound"],
    "frames": lambda data, seed: Frames("simclr")(data, seed, MEAN, STD)["frames"],
    "points": lambda data, seed: Points(count=3, jitter=0.01)(data, seed, MEAN, STD)["points"],
    "masked": masks,
    "windows": pairs,
}


@pytest.mark.parametrize("name", INPUTS)
def test_noise_is_the_samples_own(name):
    inputs, columns = INPUTS[name], made()
    whole = inputs(batch(columns), 1)
    assert len(whole) == 40
    some = torch.arange(40).flip(0)[::3]
    part = inputs(batch({key: value[some] for key, value in columns.items()}, some), 1)
    torch.testing.assert_close(part, whole[some], atol=1e-5, rtol=0)
    same = {key: value[:1].expand(40, *value.shape[1:]).contiguous() for key, value in columns.items()}
    first = inputs(batch(same), 1)
    others = inputs(batch(same), 2), inputs(batch(same, epoch=1), 1), inputs(batch(same, torch.arange(40) + 99), 1)
    for other in (*others, first.roll(1, 0)):  # the seed, the epoch, the index and the neighbour each make another one
        assert ((first - other).abs().float().flatten(1).amax(1) > 1e-4).float().mean() > 0.8


def test_both_readers_and_two_processes_give_the_same(tmp_path, monkeypatch):
    kinds = [picture(8), SoundColumn("sound", (2, 200), rate=8000), FramesColumn("frames", (3, 3, 8, 8)),
             Array("points", (2, 30, 6)), Text("text")]
    value = {"image": lambda i: noise(i, (8, 8, 3), np.uint8), "sound": lambda i: noise(i, (2, 200), np.int16),
             "frames": lambda i: list(noise(i, (3, 8, 8, 3), np.uint8)),
             "points": lambda i: noise(i, (2, 30, 6), np.float32),
             "text": lambda i: " ".join("abcdefgh"[(i * k) % 8] * 3 for k in range(9))}
    card = shard(monkeypatch, tmp_path / "out", kinds, lambda name, i: value[name](i))
    vocabulary, keep = card["vocabulary"], torch.full((card["vocabulary"],), 0.7)
    inputs = {**INPUTS, "masked": lambda data, seed: torch.stack(masked(data["text"], key(data, seed), vocabulary), 1),
              "windows": lambda data, seed: windows(data["text"], key(data, seed), keep)[1]}

    def key(data, seed):
        return Tokens()(data, seed, MEAN, STD)["key"]

    def found(reader, **where):
        """{(epoch, index): what each of the inputs gives}, of two epochs."""
        out = {}
        for data in reader.batches(3, 4, 24, **where):
            views = {name: make(data, 1) for name, make in inputs.items()}
            for row, place in enumerate(zip(data["epoch"].tolist(), data["index"].tolist())):
                out[place] = {name: view[row] for name, view in views.items()}
        return out

    resident, streaming = both(tmp_path / "out")
    whole = found(resident)
    processes = {**found(resident, rank=0, world=2), **found(resident, rank=1, world=2)}
    assert len(whole) == 24 and processes.keys() == whole.keys()
    streamed = found(streaming)  # in an order of its own, so that some samples are of another epoch
    assert len(streamed.keys() & whole.keys()) >= 12
    for other in (streamed, processes):
        for place in other.keys() & whole.keys():
            for name, view in other[place].items():
                torch.testing.assert_close(view, whole[place][name], atol=1e-5, rtol=0, msg=f"{name} of {place}")


def test_what_an_encoder_takes_is_a_view_or_left_to_it():
    data = batch(made())
    image = Taken(augment="crop_flip", more=("label",))
    assert image.columns == ("image", "label")
    assert torch.equal(image(data, 1, MEAN, STD)["image"], View("crop_flip")(data, 1, MEAN, STD)["image"])
    sound = Taken("sound")(data, 1, MEAN, STD)
    assert sound["sound"] is data["sound"] and torch.equal(sound["key"], Tokens()(data, 1, MEAN, STD)["key"])


# --- Sound


def test_a_sound_is_scaled_and_moved_as_loops_say():
    pcm, key = made(200)["sound"], rng.key(0, torch.arange(200))
    out = heard(pcm, key, 0.1, 0.05).numpy()
    plain = pcm.numpy().astype(np.float64).mean(1) / 2**15
    np.testing.assert_allclose(heard(pcm, key, 0, 0).numpy(), plain, atol=1e-6)
    gains, starts = [], []
    for before, after in zip(plain, out):
        scores = []
        for start in range(-10, 11):  # 5 % of 200 samples
            moved = np.array([before[i - start] if 0 <= i - start < 200 else 0 for i in range(200)])
            gain = moved @ after / (moved @ moved)
            scores.append((np.abs(after - gain * moved).max(), start, gain))
        error, start, gain = min(scores)
        assert error < 1e-5
        gains.append(gain), starts.append(start)
    assert 0.9 <= min(gains) < 0.91 and 1.09 < max(gains) <= 1.1
    assert set(starts) == set(range(-10, 11)), "all shifts occur, both ends included"


# --- Frames


def test_all_frames_change_as_the_image_does():
    columns = made()
    still = columns["image"][:, None].expand(-1, 4, -1, -1, -1)
    out = Frames("simclr")(batch({**columns, "frames": still}), 1, MEAN, STD)["frames"]
    image = View("simclr")(batch(columns), 1, MEAN, STD)["image"]
    for number in range(4):
        torch.testing.assert_close(out[:, number], image, atol=1e-5, rtol=0)
    moved = still.clone()
    moved[:, 2] = 255 - moved[:, 2]
    out = Frames("crop")(batch({**columns, "frames": moved}), 1, MEAN, STD)["frames"]
    assert torch.equal(out[:, 0], out[:, 3]) and not torch.allclose(out[:, 0], out[:, 2])


# --- Points


def test_turned_points_keep_their_distances_and_normals_their_angles():
    key = rng.key(0, torch.arange(60))
    for how in ("axis", "any"):
        turn = turned(key, how)
        torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(60, 3, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.linalg.det(turn), torch.ones(60), atol=1e-5, rtol=0)
    about = (turned(key, "axis").diagonal(dim1=1, dim2=2) == 1).sum(1)
    assert (about == 1).all(), "about one of the axes, which stays"
    data = batch(made())
    inputs = Points(count=2, crop=(1, 1), drop=0, turn="any", scale=(1, 1), normals=True)
    out = inputs(data, 1, MEAN, STD)
    assert torch.equal(out["which"], torch.arange(30).expand(40, 2, 30)), "each point keeps its place"
    before, after = data["points"], out["points"]
    distance = (before[:, :, :, None, :3] - before[:, :, None, :, :3]).norm(dim=4)
    torch.testing.assert_close((after[:, :, :, None, :3] - after[:, :, None, :, :3]).norm(dim=4), distance, atol=1e-4, rtol=0)
    angle = (before[..., :3] * before[..., 3:]).sum(3)
    torch.testing.assert_close((after[..., :3] * after[..., 3:]).sum(3), angle, atol=1e-4, rtol=0)
    plain = Points(count=2, crop=(1, 1), drop=0, turn="any", scale=(1, 1), mirror=0)(data, 1, MEAN, STD)["points"]
    assert torch.equal(plain[..., 3:], before[..., 3:]), "what are no normals stays"


def test_a_mirror_makes_a_left_hand_of_a_right_one():
    corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).expand(400, 4, 3)
    data = {"points": corner, "index": torch.arange(400), "epoch": torch.zeros(400, dtype=torch.long)}
    for probability in (0.0, 0.5, 1.0):
        inputs = Points(count=1, crop=(1, 1), drop=0, turn="any", scale=(1, 1), mirror=probability)
        hand = torch.linalg.det(inputs(data, 1, MEAN, STD)["points"][:, 0, 1:])
        torch.testing.assert_close(hand.abs(), torch.ones(400), atol=1e-5, rtol=0)
        assert abs((hand < 0).float().mean() - probability) < 0.08


def test_points_are_cropped_dropped_and_repeated_as_loops_say():
    place, key = torch.rand(50, 60, 3, generator=torch.Generator().manual_seed(1)), rng.key(3, torch.arange(50))
    extent = place.amax(1) - place.amin(1)
    for least, most, drop in ((0.5, 0.5, 0.0), (1.0, 1.0, 0.4), (0.6, 0.6, 0.3)):
        which = kept(place, key, least, most, drop)
        middle = (rng.uniform(key, 2, salt=2) * 60).long()
        for n in range(50):
            stays = []
            for p in range(60):
                away = (place[n, p] - place[n, middle[n]]).abs()
                inside = least == 1 or bool((away[0] <= extent[n] * least / 2).all())
                stays += [p] if inside and not (drop and bool((away[1] <= extent[n] * drop / 2).all())) else []
            assert 0 < len(stays) < 60 and set(which[n].tolist()) == set(stays)
            times = which[n].bincount(minlength=60)[stays]
            assert times.max() - times.min() <= 1, "repeated alike"
    assert len({tuple(row) for row in which[:, :5].tolist()}) == 50, "in an order of each sample's own"


def test_views_are_of_the_scans_in_turn():
    columns = made()
    inputs = Points(count=4, crop=(1, 1), drop=0, turn="none", scale=(1, 1), mirror=0)
    out = inputs(batch(columns), 1, MEAN, STD)["points"]
    for number in range(4):
        assert torch.equal(out[:, number], columns["points"][:, number % 2])
    out = Points(count=4, crop=(1, 1), drop=0, turn="none", scale=(1, 1), mirror=0, scans=1)(batch(columns), 1, MEAN, STD)
    assert torch.equal(out["points"], columns["points"][:, :1].expand(-1, 4, -1, -1))


# --- Tokens


def test_masks_are_berts():
    """create_masked_lm_predictions: how many, of what, and in 8, 1 and 1 cases of ten what becomes of them."""
    tokens = made(20_000)["text"]  # 14 words each: 2 are chosen
    hidden, chosen = masked(tokens, rng.key(0, torch.arange(20_000)), VOCABULARY)
    assert (chosen.sum(1) == 2).all() and not chosen[tokens < WORDS].any()
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    was, now = tokens[chosen], hidden[chosen]
    words = VOCABULARY - WORDS
    assert abs((now == VOCABULARY).float().mean() - 0.8) < 0.01
    assert abs((now == was).float().mean() - (0.1 + 0.1 / words)) < 0.006
    other = now[(now != VOCABULARY) & (now != was)]
    share = other.bincount(minlength=VOCABULARY)[WORDS:] / len(other)
    assert other.min() >= WORDS and (share - 1 / words).abs().max() < 0.015
    place = chosen.float().mean(0)[1:15]
    assert (place - 2 / 14).abs().max() < 0.015, "each place as often"


@pytest.mark.parametrize("words, share, most, expected", [
    (14, 0.15, 20, 2), (3, 0.15, 20, 1), (1, 0.15, 20, 1), (0, 0.15, 20, 0), (14, 0.9, 20, 13), (14, 0.9, 5, 5),
    (10, 0.15, 20, 2)])  # fmt: skip
def test_how_many_are_masked(words, share, most, expected):
    tokens = torch.zeros(1, 18, dtype=torch.long)
    tokens[0, : words + 2] = torch.tensor([1, *[7] * words, 2])
    assert masked(tokens, rng.key(0, torch.arange(1)), VOCABULARY, share, most)[1].sum() == expected


def test_windows_are_those_of_a_list_by_hand():
    """A text of five words, of which the third is dropped: its neighbours close ranks."""
    tokens = torch.tensor([[1, 5, 6, 7, 8, 9, 2, 0]]).expand(300, -1)
    keep = torch.ones(VOCABULARY)
    keep[[0, 1, 2, 3, 7]] = 0
    centre, around = windows(tokens, rng.key(0, torch.arange(300)), keep, width=2)
    assert (centre == torch.tensor([5, 6, 8, 9, 0, 0, 0, 0])).all() and around.shape == (300, 8, 4)
    full = {5: [0, 0, 6, 8], 6: [0, 5, 8, 9], 8: [5, 6, 9, 0], 9: [6, 8, 0, 0]}
    wide = 0
    for row in around:
        for place, word in enumerate((5, 6, 8, 9)):
            near = [0, full[word][1], full[word][2], 0]
            assert row[place].tolist() in (full[word], near)
        wide += row[1].tolist() == full[6]
    assert 110 < wide < 190, "a window of one or of two words, as often"
    assert (around[:, 4:] == 0).all()


def test_words_are_kept_as_often_as_said():
    tokens = torch.arange(WORDS, VOCABULARY).expand(4000, -1)
    centre, _ = windows(tokens, rng.key(0, torch.arange(4000)), KEEP)
    share = centre.flatten().bincount(minlength=VOCABULARY)[WORDS:] / 4000
    assert (share - KEEP[WORDS:]).abs().max() < 0.03


def test_windows_wider_than_the_text():
    text = torch.tensor([[5, 6]])
    assert shifted(text, 7).tolist() == [[0, 0]] and shifted(text, -1).tolist() == [[0, 5]]
    centre, around = windows(torch.tensor([[5, 6]]), rng.key(0, torch.arange(1)), torch.ones(9), width=9)
    assert centre.tolist() == [[5, 6]] and around.sum() <= 11
