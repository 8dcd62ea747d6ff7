"""Encoders of text, sound and points: what each protocol asks of an encoder, and what each is known for."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfsup import encoder, evals, layers, nets
from selfsup.errors import UserError
from selfsup.layers.sound import mel_bands
from selfsup.nets.pointnet import nearest
from selfsup.nets.voxel_convnet import voxels
from selfsup.training import setup
from selfsup.training.step import placed

V = 30
TRANSFORMER = {"name": "token_transformer", "vocabulary": V, "length": 12, "dim": 16, "depth": 2, "heads": 2}
NETS = {
    "forwards": {**TRANSFORMER, "causal": True},
    "both ways": TRANSFORMER,
    "lstm": {"name": "token_lstm", "vocabulary": V, "dim": 8, "depth": 2},
    "elmo": {"name": "token_lstm", "vocabulary": V, "dim": 8, "depth": 2, "directions": 2},
    "bag": {"name": "word_vectors", "vocabulary": V, "dim": 8},
    "sound": {"name": "sound_convnet", "rate": 4000, "mels": 16, "width": 4},
    "points": {"name": "pointnet", "coordinates": 6, "width": 4, "neighbours": 5},
    "voxels": {"name": "voxel_convnet", "grid": 8, "width": 4},
}
TEXTS = [name for name, config in NETS.items() if "vocabulary" in config]
named = pytest.mark.parametrize("name", NETS)


def column(net, n=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    if net.takes == "sound":
        return torch.randint(-(2**15), 2**15, (n, 2, 1000), generator=random).short()
    if net.takes == "points":
        return torch.randn(n, 40, 6, generator=random)
    text = torch.randint(4, V, (n, 10), generator=random)
    text[:, 0] = 1
    text[::2, 6:] = 0
    return text


def made(name, seed=0):
    torch.manual_seed(seed)
    net = nets.build(**NETS[name])
    return net, net.prepare(column(net))


@named
def test_encoder_interface(name):
    net, x = made(name)
    net.eval()
    features, maps = net(x), net.layers(x)
    assert net.config == NETS[name] and features.shape == (6, net.dim) and features.std() > 0
    assert maps and all(m.dim() == 4 and len(m) == 6 for m in maps)
    torch.testing.assert_close(maps[-1], net.features(x))
    torch.testing.assert_close(maps[-1].mean((2, 3)), features, atol=1e-5, rtol=1e-4)
    alone = torch.cat([net(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(alone, features, atol=1e-5, rtol=1e-4)


@named
def test_map_and_mean_both_use_every_parameter(name):
    net, x = made(name)
    for output in (net.features, net):
        net.zero_grad(set_to_none=True)
        output(x).square().sum().backward()
        assert [key for key, p in net.named_parameters() if p.grad is None] == []


@named
def test_save_and_load_on_a_device(name, tmp_path):
    net, x = made(name)
    placed(net, "cpu")(x)
    info = {"mean": [], "std": [], "size": 8, "seed": 0, "dim": net.dim}
    encoder.save(tmp_path / "run" / "0", {"encoder": net}, info)
    loaded = encoder.load(tmp_path / "run")
    torch.testing.assert_close(loaded(x), net.eval()(x), atol=1e-6, rtol=1e-5)  # weights lie in another order of memory
    assert loaded.takes == net.takes == nets.takes(NETS[name]["name"])
    assert json.loads((tmp_path / "run/0/encoder.json").read_text())["takes"] == net.takes


class Split:
    """n samples of two classes, which differ in what the encoder's column says."""

    def __init__(self, net, n, seed):
        self.card, self.columns = {"classes": ["a", "b"]}, [net.takes, "label"]
        values, label = column(net, n, seed), torch.arange(n) % 2
        if net.takes == "text":
            values = torch.where((values >= 4) & (label == 1)[:, None], 4 + values % 3, values)
        elif net.takes == "sound":
            low = torch.nn.functional.avg_pool1d(values[label == 1].float(), 5, 1, 2)  # without high pitches
            values[label == 1] = low.short()
        else:
            values[label == 1, :, 2] *= 0.1
        self.values = {net.takes: values, "label": label}

    def __len__(self):
        return len(self.values["label"])

    def in_order(self, batch=512):
        yield {**self.values, "index": torch.arange(len(self)), "epoch": torch.zeros(len(self), dtype=torch.long)}

    def batches(self, seed, batch, images):
        for step in range(images // batch):
            rows = torch.arange(step * batch, (step + 1) * batch)
            yield {key: value[rows % len(self)] for key, value in self.values.items()} | {"index": rows % len(self),
                                                                                          "epoch": rows // len(self)}


@named
def test_protocols_judge_it(name):
    torch.manual_seed(0)
    net = nets.build(**NETS[name]).eval()
    for key in ("mean", "std", "size"):
        setattr(net, key, None)
    train, val, test = (Split(net, n, seed) for seed, n in enumerate((160, 80, 80)))
    data = SimpleNamespace(card={"classes": ["a", "b"]}, train=train, val=val, test=test)
    finetune = {"images": 640, "batch": 16, "optimizer": "adamw", "lr": [3e-3], "weight_decay": 0.0, "warmup": 0.1,
                "clip": 1.0}
    for protocol, options in (("knn", {"k": [3], "temperature": [0.1]}), ("linear", {"weight_decay": [1e-3]}),
                              ("layerwise", {"weight_decay": [1e-3], "pool": 1}), ("finetune", finetune)):
        said = dict(evals.run(protocol, net, data, bootstrap=10, **options))
        assert said["accuracy"] > (60 if protocol == "finetune" else 65), (protocol, said)


@pytest.mark.parametrize("name, method, sentence", [
    ("sound", "rotation", "sound_convnet takes the column 'sound', and method rotation reads image"),
    ("points", "cpc", "pointnet takes the column 'points', and method cpc reads image"),
    ("forwards", "masked_token", "masked_token needs the encoder token_transformer, reading in both directions"),
    ("lstm", "masked_token", "masked_token needs the encoder token_transformer"),
    ("both ways", "next_token", "next_token needs an encoder of tokens that reads forwards alone"),
    ("elmo", "next_token", "next_token needs an encoder of tokens that reads forwards alone"),
    ("lstm", "elmo", "elmo needs the encoder token_lstm with `directions: 2`"),
    ("lstm", "word2vec", "word2vec needs the encoder word_vectors"),
])  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(name, method, sentence):
    run = SimpleNamespace(name="tiny-x", method=method, encoder=NETS[name], args={})
    with pytest.raises(UserError, match=sentence):
        setup.build(run, 0, {"vocabulary": V, "size": 32, "classes": ["a"]})


def test_an_encoder_of_images_is_none_of_tokens():
    run = SimpleNamespace(name="tiny-x", method="next_token", encoder={"name": "convnet", "width": 4}, args={})
    with pytest.raises(UserError, match="next_token needs an encoder of tokens"):
        setup.build(run, 0, {"vocabulary": V})


@named
def test_the_floor_and_the_ceiling_are_of_any_column(name):
    """random and supervised, by the trainer's own way: what they read is what the encoder takes."""
    net = nets.build(**NETS[name])
    card = {"classes": ["a", "b"], "mean": [], "std": [], "columns": [net.takes, "label"]}
    rows = next(Split(net, 8, 0).batches(0, 8, 8))
    for method in ("random", "supervised"):
        built = setup.build(SimpleNamespace(name="tiny-x", method=method, encoder=NETS[name], args={}), 0, card)
        assert built.inputs.columns[0] == net.takes and built.pictures(rows) == {}
        assert built(built.inputs(rows, 0, [], []))["loss"].isfinite()


def test_networks_follow_the_data():
    schema = {"sound": {"kind": "sound", "shape": [1, 100], "dtype": "int16", "rate": 8000},
              "points": {"kind": "array", "shape": [2, 50, 6], "dtype": "float32"}}
    card = {"vocabulary": 77, "caption_length": 20, "columns": ["sound", "points", "text"], "schema": schema}
    assert nets.configured(card, "sound_convnet") == {"name": "sound_convnet", "rate": 8000}
    assert nets.configured(card, "pointnet") == {"name": "pointnet", "coordinates": 6}
    assert nets.configured(card, "token_lstm", vocabulary=5) == {"name": "token_lstm", "vocabulary": 5}
    assert nets.build("token_transformer", card, dim=16).text.position.shape == (20, 16)
    plain = {"sound": {"kind": "sound", "shape": [1, 100], "dtype": "int16"}}
    assert nets.configured({"schema": plain}, "sound_convnet") == {"name": "sound_convnet"}, "16 kHz"
    with pytest.raises(UserError, match="pointnet takes the column 'points', which the data set does not have"):
        nets.build("pointnet", {"columns": ["image"]})


# --- Sound


def test_mel_bands_against_loops():
    bands = mel_bands(256, 8000, 20)
    mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    hertz = lambda m: 700 * (10 ** (m / 2595) - 1)  # noqa: E731
    edges = [hertz(mel(4000) * i / 21) for i in range(22)]
    for band in range(20):
        low, middle, high = edges[band : band + 3]
        row = []
        for k in range(129):
            f = k * 8000 / 256
            row.append(max(0, min((f - low) / (middle - low), (high - f) / (high - middle))))
        if sum(row):
            np.testing.assert_allclose(bands[band], row, atol=1e-6)
        assert bands[band].sum() > 0
    assert (mel_bands(64, 8000, 60).sum(1) > 0).all(), "bands narrower than a frequency hear the nearest one"


def test_the_spectrogram_against_loops():
    """A window of a Fourier transform at a time, in double precision."""
    torch.manual_seed(0)
    rate, wave = 4000, torch.rand(2, 900) * 2 - 1
    out = layers.LogMel(rate, 16)(wave)
    size, length, hop = 128, 100, 40
    assert out.shape == (2, 1, 16, 1 + 900 // hop)
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * i / length) for i in range(length)])
    bands = mel_bands(size, rate, 16)
    for n in range(2):
        padded = np.pad(wave[n].numpy().astype(np.float64), size // 2)
        for frame in range(out.shape[3]):
            part = padded[frame * hop : frame * hop + size].copy()
            start = (size - length) // 2
            part[:start], part[start + length :] = 0, 0
            part[start : start + length] *= window
            power = np.abs(np.fft.rfft(part)) ** 2 * 16 / length**2
            expected = np.log(bands @ power + 1e-6) / 5
            np.testing.assert_allclose(out[n, 0, :, frame].numpy(), expected, atol=1e-3)


def test_louder_is_more_and_higher_is_above():
    time = torch.arange(4000) / 4000
    low, high = ((2 * torch.pi * f * time).sin()[None] for f in (200, 1500))
    spectrogram = layers.LogMel(4000, 16)
    assert spectrogram(low)[0, 0, :, 40].argmax() < spectrogram(high)[0, 0, :, 40].argmax()
    a, b = (spectrogram(low * gain)[0, 0].amax() for gain in (1.0, 0.1))
    assert float((a - b) * 5) == pytest.approx(np.log(100), abs=0.01) and abs(float(a)) < 0.15
    silence = spectrogram(torch.zeros(1, 30))  # shorter than a frame
    torch.testing.assert_close(silence, torch.full_like(silence, np.log(1e-6) / 5))


def test_pcm_becomes_a_wave_of_one_channel():
    net, _ = made("sound")
    pcm = torch.tensor([[[-(2**15), 0, 16384], [0, 0, 16384]]], dtype=torch.int16)
    assert net.prepare(pcm).tolist() == [[-0.5, 0.0, 0.5]]


# --- Points


@pytest.mark.parametrize("name", ["points", "voxels"])
def test_the_order_of_points_does_not_matter(name):
    net, x = made(name)
    net.eval()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net(x[:, order]), net(x), atol=1e-5, rtol=1e-4)
    if name == "points":
        torch.testing.assert_close(net.points(x[:, order]), net.points(x)[:, order], atol=1e-5, rtol=1e-4)
    away = torch.cat([x[..., :3] + 7, x[..., 3:]], 2)
    torch.testing.assert_close(net(away), net(x), atol=1e-3, rtol=1e-3)


def test_neighbours_are_the_nearest():
    x = torch.rand(2, 20, 4)
    near = nearest(x, 5)
    for n in range(2):
        for p in range(20):
            distance = [float((x[n, p, :3] - x[n, q, :3]).norm()) for q in range(20)]
            assert set(near[n, p].tolist()) == set(np.argsort(distance)[:5].tolist())
    net = nets.build("pointnet", width=2, neighbours=16)
    assert net(torch.rand(2, 3, 3)).isfinite().all(), "fewer points than neighbours"


def test_voxels_against_loops():
    x = torch.rand(3, 25, 5)
    grid = voxels(x, 6)
    expected = np.zeros((3, 1, 6, 6, 6))
    for n in range(3):
        place = x[n, :, :3].numpy().astype(np.float64)
        place = place - place.mean(0)
        reach = np.linalg.norm(place, axis=1).max()
        for p in place:
            expected[(n, 0, *(min(5, int((c / reach + 1) * 3)) for c in p))] = 1
    assert np.array_equal(grid.numpy(), expected)
    assert voxels(torch.zeros(1, 4, 3), 6).sum() == 1, "points that are all the same"


def test_of_several_scans_the_first_is_judged():
    scans = torch.randn(2, 3, 20, 6)
    assert all(torch.equal(made(name)[0].prepare(scans), scans[:, 0]) for name in ("points", "voxels"))
