import ast
import builtins
import json
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup import arguments, evals, layers, nets
from selfsup import encoder
from selfsup.core.colour import lab_to_rgb
from selfsup.errors import UserError

ENCODERS = [
    {"name": "convnet", "width": 4},
    {"name": "convnet", "width": 4, "norm": "group"},
    {"name": "vit", "size": 32, "patch": 8, "dim": 16, "depth": 2, "heads": 2},
    {"name": "resnet18"},
    {"name": "split", "half": {"name": "convnet", "width": 4}},
    {"name": "pixel_transformer", "pixels": 8, "dim": 16, "depth": 2, "heads": 2},
    {"name": "test_resnet"},  # timm's, by name: a ResNet,
    {"name": "mobilenetv3_small_050"},  # one with a wide layer after its pooling,
    {"name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "depth": 2},  # and a transformer
]
named = pytest.mark.parametrize("config", ENCODERS, ids=[" ".join(map(str, c.values())) for c in ENCODERS])


@named
def test_encoder_interface(config):
    net = nets.build(**config)
    x = torch.randn(2, 3, 32, 32)
    net.eval()
    features, maps = net(x), net.layers(x)
    assert net.config == config and features.shape == (2, net.dim)
    assert len(maps) >= 2 and all(m.dim() == 4 and len(m) == 2 for m in maps)
    sides = [m.shape[-1] for m in maps]
    assert sides == sorted(sides, reverse=True), "from shallow to deep"
    torch.testing.assert_close(maps[-1], net.features(x))
    torch.testing.assert_close(maps[-1].mean((2, 3)), features, atol=1e-5, rtol=1e-4)
    assert layers.map_side(net, 32) == sides[-1]


@named
def test_map_and_mean_both_use_every_parameter(config):
    """A parameter without a gradient would stop DistributedDataParallel."""
    net = nets.build(**config)
    x = torch.randn(4, 3, 32, 32)
    for output in (net.features, net):
        net.zero_grad(set_to_none=True)
        output(x).square().sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_convnet_of_the_default_width_has_a_million_parameters():
    assert 0.9e6 < sum(p.numel() for p in nets.build("convnet", width=32).parameters()) < 1.1e6


def test_resnet18_keeps_small_images_large():
    assert [m.shape[1:] for m in nets.build("resnet18").eval().layers(torch.zeros(1, 3, 32, 32))] == [
        (64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)
    ]  # fmt: skip


def test_wide_resnet_is_the_papers():
    """WRN-28-2: with a linear layer of ten classes 1,467,610 parameters, as its PyTorch ports print them."""
    net = nets.build("wide_resnet").eval()
    assert [m.shape[1:] for m in net.layers(torch.zeros(1, 3, 32, 32))] == [
        (16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8)
    ]  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) + 128 * 10 + 10 == 1_467_610 and net.dim == 128
    with pytest.raises(UserError, match="encoder.depth: a Wide ResNet has 6 n \\+ 4 layers, as 10, 16, 22 or 28, not 20"):
        nets.build("wide_resnet", depth=20)


def test_group_norm_convnet_has_no_state_beside_its_parameters():
    assert list(nets.build("convnet", width=4, norm="group").buffers()) == []


class TestViT:
    net = nets.build("vit", size=16, patch=4, dim=16, depth=2, heads=2)
    x = torch.randn(3, 3, 16, 16)

    def test_keeping_all_is_keeping_none_back(self):
        order = torch.stack([torch.randperm(16) for _ in range(3)])
        everything = self.net.tokens(self.x)
        reordered = self.net.tokens(self.x, order)
        expected = torch.stack([t[o] for t, o in zip(everything, order)])
        torch.testing.assert_close(reordered, expected, atol=1e-5, rtol=1e-4)

    def test_what_is_not_kept_has_no_effect(self):
        keep = torch.tensor([[0, 5], [3, 3 + 4], [15, 1]])  # patches of each sample, counted along the rows
        before = self.net.tokens(self.x, keep)
        assert before.shape == (3, 2, 16)
        changed = torch.randn(3, 3, 16, 16)
        for n, patches in enumerate(keep.tolist()):
            for patch in patches:
                top, left = 4 * (patch // 4), 4 * (patch % 4)
                changed[n, :, top : top + 4, left : left + 4] = self.x[n, :, top : top + 4, left : left + 4]
        assert torch.equal(before, self.net.tokens(changed, keep))

    def test_positions_matter(self):
        same = self.x[:, :, :4, :4].repeat(1, 1, 4, 4)  # every patch the same
        assert self.net.tokens(same).std(1).mean() > 1e-3

    def test_features_are_the_tokens_in_place(self):
        tokens, features = self.net.tokens(self.x), self.net.features(self.x)
        for patch in range(16):
            assert torch.equal(features[:, :, patch // 4, patch % 4], tokens[:, patch])


def test_sincos_against_loops():
    table = layers.sincos(3, 5, 8).numpy()
    for y in range(3):
        for x in range(5):
            row = []
            for position in (y, x):
                for f in (np.sin, np.cos):
                    row += [f(position / 10000 ** (i / 2)) for i in range(2)]
            np.testing.assert_allclose(table[5 * y + x], row, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("start, size", [(1, 8), (2, 32), (8, 8)])
def test_decoder_reaches_the_size(start, size, norm):
    decoder = layers.Decoder(16, start, size, channels=2, norm=norm)
    assert decoder(torch.randn(3, 16, start, start)).shape == (3, 2, size, size)
    kinds = {type(m) for m in decoder.modules()}
    assert start == size or (torch.nn.BatchNorm2d in kinds) == (norm == "batch")


def test_map_side_leaves_the_encoder_as_it_was():
    net = nets.build("convnet", width=4).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert layers.map_side(net, 32) == 2 and net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_mlp():
    head = layers.mlp(8, 16, 4, layers=3)
    assert [type(m).__name__ for m in head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert head(torch.randn(5, 8)).shape == (5, 4)
    assert [type(m).__name__ for m in layers.mlp(8, 16, 4, norm=False)] == ["Linear", "ReLU", "Linear"]


def test_text_transformer_ignores_padding():
    net = nets.build("text_transformer", vocabulary=20, dim=16, length=8)
    caption = torch.tensor([[3, 7, 1]])
    padded = torch.tensor([[3, 7, 1, 0, 0, 0]])
    torch.testing.assert_close(net(caption), net(padded), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(net(caption), net(torch.tensor([[7, 3, 1]]))), "the order of words counts"
    assert net(torch.randint(1, 20, (2, 30))).shape == (2, 16), "long captions are cut"
    assert net(torch.zeros(1, 3, dtype=torch.long)).isfinite().all(), "a caption may be empty"


@pytest.mark.parametrize(
    "config, sentence",
    [
        ({"name": "resnet81"}, "unknown network 'resnet81'"),
        ({"name": "convnt"}, 'did you mean "convnet"'),
        ({"name": "convnet", "widht": 3}, "arguments it does not take .*widht"),
        ({"name": "vit", "size": 32, "patch": 5}, "32 pixels cannot be cut into patches of 5"),
        ({"name": "vit", "dim": 30, "heads": 3}, r"width \(30\) must be divisible by 4"),
        ({"name": "vit", "dim": 32, "heads": 3}, r"width \(32\) must be divisible by its number of heads \(3\)"),
    ],
)
def test_errors_of_build(config, sentence):
    with pytest.raises(UserError, match=sentence):
        nets.build(**config)


def test_error_of_a_size_that_doubling_misses():
    with pytest.raises(UserError, match="side of 2, and so cannot reach 28 pixels"):
        layers.Decoder(16, 2, 28)


# --- The encoder folder


INFO = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "size": 32, "seed": 0}


@named
def test_save_and_load(config, tmp_path):
    net = nets.build(**config)
    net(torch.randn(4, 3, 32, 32))  # moves BatchNorm's statistics away from where they start
    encoder.save(tmp_path / "run" / "0", {"encoder": net}, {**INFO, "dim": net.dim})
    loaded = encoder.load(tmp_path / "run")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), net.eval()(x))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert (loaded.dim, loaded.mean, loaded.std, loaded.size) == (net.dim, INFO["mean"], INFO["std"], 32)
    assert loaded.info["parts"] == {"encoder": config}


@pytest.fixture
def run(tmp_path):
    """data/encoders/run with seeds 2 and 10, of two parts."""
    for seed in (10, 2):
        parts = {"encoder": nets.build("convnet", width=4), "image_head": nets.build("linear", d_in=32, d_out=5)}
        parts["image_head"].bias.data.fill_(seed)
        encoder.save(tmp_path / "run" / str(seed), parts, INFO)
    return tmp_path / "run"


def test_seeds_and_parts(run):
    (run / ".3.tmp").mkdir()  # what a killed training leaves
    assert encoder.seeds(run) == [2, 10]
    assert encoder.load(run, part="image_head").bias[0] == 2, "the lowest seed, counted as a number"
    assert encoder.load(run, seed=10, part="image_head").bias[0] == 10
    assert encoder.load(run / "10", part="image_head").bias[0] == 10
    assert encoder.load(str(run)).dim == 32


def test_same_weights_same_bytes(tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(0)
        encoder.save(tmp_path / name, {"encoder": nets.build("convnet", width=4)}, INFO)
    for file in ("weights.safetensors", "encoder.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def edit(**changes):
    def apply(path):
        info = json.loads(path.read_text())
        for key, value in changes.items():
            info.pop(key) if value is None else info.update({key: value})
        path.write_text(json.dumps(info))

    return apply


@pytest.mark.parametrize(
    "file, damage",
    [
        ("weights.safetensors", truncate),
        ("weights.safetensors", lambda path: path.write_bytes(b"")),
        ("weights.safetensors", lambda path: path.unlink()),
        ("encoder.json", truncate),
        ("encoder.json", lambda path: path.write_text("[]")),
        ("encoder.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("encoder.json", edit(parts=None)),
        ("encoder.json", edit(mean=None)),
        ("encoder.json", edit(parts={"encoder": {"name": "convnet", "width": 8}})),
    ],
)
def test_damaged_folder(run, file, damage):
    damage(run / "2" / file)
    with pytest.raises(UserError, match=rf"{run / '2'}.*damaged"):
        encoder.load(run)


@pytest.mark.parametrize(
    "where, arguments, sentence",
    [
        ("run", {"seed": 3}, "no seed 3 here"),
        ("elsewhere", {}, "no encoder here; run `dvc pull`"),
        ("run", {"part": "text"}, "has no part 'text', only encoder, image_head"),
    ],
)
def test_what_is_not_there(run, where, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        encoder.load(run.parent / where, **arguments)


def test_split_halves_see_nothing_of_each_other():
    net = nets.build("split", half={"name": "convnet", "width": 4}).eval()
    assert net.dim == 64
    x = torch.randn(3, 3, 32, 32) * 0.3
    lightness, colour = net.lab(x)
    again = net.lab(x + 0)
    assert lightness.shape == (3, 1, 32, 32) and colour.shape == (3, 2, 32, 32) and torch.equal(again[0], lightness)
    features = net(x)
    grey = lab_to_rgb(torch.cat([(lightness + 1) * 50, torch.zeros_like(colour)], 1))
    changed = net((grey - 0.5) / 0.25)  # the same lightness, no colour
    apart = [float((c - f).detach().norm() / f.detach().norm()) for c, f in zip(changed.split(32, 1), features.split(32, 1))]
    assert apart[0] < 0.02 and apart[1] > 0.5
    assert [m.shape[1] for m in net.layers(x)] == [8, 16, 32, 64, 64] and net.features(x).shape == (3, 64, 2, 2)


def test_split_keeps_what_images_were_normalised_with():
    net = nets.build("split", half={"name": "convnet", "width": 4})
    net.normalised_with({"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]})
    other = nets.build(**net.config)
    other.load_state_dict(net.state_dict())
    white = (torch.ones(1, 3, 4, 4) - net.pixel_mean) / net.pixel_std
    for n in (net, other):
        lightness, colour = n.lab(white)
        torch.testing.assert_close(lightness, torch.ones(1, 1, 4, 4), atol=1e-4, rtol=0)
        torch.testing.assert_close(colour, torch.zeros(1, 2, 4, 4), atol=1e-3, rtol=0)


def test_vit_takes_smaller_images_with_its_positions_stretched():
    net = nets.build("vit", size=32, patch=4, dim=16, depth=1, heads=2).eval()
    x = torch.randn(2, 3, 16, 16)
    assert net(x).shape == (2, 16) and net.features(x).shape == (2, 16, 4, 4) and net.layers(x)[0].shape == (2, 16, 4, 4)
    with torch.no_grad():
        net.embed.weight.zero_(), net.embed.bias.zero_()
    position = net.embedded(x)[0].T.unflatten(1, (4, 4))
    whole = net.position.T.unflatten(1, (8, 8))
    torch.testing.assert_close(position, torch.nn.functional.interpolate(whole[None], (4, 4), mode="bicubic")[0])


def test_vit_attention_is_what_its_last_block_uses():
    net = nets.build("vit", size=16, patch=4, dim=16, depth=2, heads=2).eval()
    x = torch.randn(2, 3, 16, 16)
    attention = net.attention(x)
    assert attention.shape == (2, 2, 16, 16)
    torch.testing.assert_close(attention.sum(3), torch.ones(2, 2, 16))
    block = net.blocks[-1]
    t = net.blocks[0](net.embedded(x))
    _, _, v = block.query_key_value(t)
    t = t + block.out((attention @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block(net.blocks[0](net.embedded(x))), t + block.mlp(block.norm2(t)), atol=1e-5, rtol=1e-4)


# --- Columns, sizes and arguments


@pytest.mark.parametrize("dtype, most", [(torch.uint8, 255), (torch.uint16, 65535)])
@pytest.mark.parametrize("channels", [1, 3, 13])
def test_an_encoder_prepares_its_own_column(dtype, most, channels):
    net = nets.build("convnet", width=4, channels=channels)
    mean, std = torch.linspace(0.3, 0.6, channels), torch.linspace(0.2, 0.4, channels)
    net.mean, net.std = mean.tolist(), std.tolist()
    column = torch.randint(most + 1, (5, channels, 16, 16)).to(dtype)
    before = column.clone()
    x = net.prepare(column)
    expected = (column.double() / most - mean.double().view(-1, 1, 1)) / std.double().view(-1, 1, 1)
    assert net.takes == "image" and x.dtype == torch.float32 and torch.equal(column, before)
    torch.testing.assert_close(x, expected.float(), atol=1e-5, rtol=1e-5)
    assert net.eval()(x).shape == (5, 32)


@named
def test_preparing_does_what_training_and_judging_always_did(config):
    """To the bit: clusters of features become labels."""
    column = torch.randint(256, (5, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    net = nets.build(**config)
    net.mean, net.std = INFO["mean"], INFO["std"]
    mean, std = torch.tensor(INFO["mean"]), torch.tensor(INFO["std"])
    assert torch.equal(net.prepare(column), (column.float() / 255 - mean[:, None, None]) / std[:, None, None])
    assert net.prepare(column).stride() == column.stride()


def test_sizes_follow_the_data_unless_said():
    card = {"size": 16, "channels": 13, "mean": [0.5] * 13, "std": [0.25] * 13}
    net = nets.build("vit", card, patch=4, dim=16, depth=1, heads=2)
    assert net.config == {"name": "vit", "patch": 4, "dim": 16, "depth": 1, "heads": 2, "size": 16, "channels": 13}
    assert net.grid == 4
    assert (net.mean, net.std) == (card["mean"], card["std"])
    again = nets.build(**net.config)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 13, 16, 16)
    assert torch.equal(again.eval()(x), net.eval()(x))
    said = {"name": "vit", "size": 32, "channels": 3, "dim": 16}
    assert nets.configured(card, **said) == said
    with pytest.raises(UserError, match="vit takes images with 3 channels, and the data's have 13"):
        nets.build(card=card, **said)
    assert layers.map_side(nets.build("convnet", card, width=4), 16) == 1
    ordinary = {"size": 32, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    assert nets.build("vit", ordinary, dim=16).config == {"name": "vit", "dim": 16}, "what is so by default is not written"
    split = nets.build("split", {**ordinary, "size": 16}, half={"name": "vit", "dim": 16})
    assert split.colour.grid == split.lightness.grid == 4 and nets.build(**split.config).lightness.grid == 4
    assert split.pixel_mean.flatten().tolist() == [0.5] * 3
    assert nets.build("convnet", {}, width=4).mean is None
    assert nets.build("linear", ordinary, d_in=2, d_out=3).config == {"name": "linear", "d_in": 2, "d_out": 3}


def test_timms_models_take_the_datas_channels():
    net = nets.build("resnet10t", {"size": 32, "channels": 4, "mean": [0.5] * 4, "std": [0.25] * 4})
    assert net.config == {"name": "resnet10t", "channels": 4} and net.eval()(torch.randn(2, 4, 32, 32)).shape == (2, net.dim)


class Tone(torch.nn.Module):
    """An encoder of another signal, as a user may write one: sound (N, length), int16."""

    takes = "sound"

    def __init__(self, dim=8):
        super().__init__()
        self.dim, self.linear = dim, torch.nn.Linear(16, dim)

    def prepare(self, column):
        return column.float().div(2**15).unflatten(1, (-1, 16))

    def forward(self, x):
        return self.linear(x).mean(1)


def test_an_encoder_of_another_column_is_judged_and_kept_like_one_of_images(tmp_path, monkeypatch):
    monkeypatch.setitem(nets.HEADS, "tone", Tone)
    net = nets.build("tone", {"size": 32, "channels": 3})
    sound = torch.randint(-(2**15), 2**15, (6, 64), dtype=torch.int16)
    split = evals.Batch({"sound": sound, "label": torch.arange(6)})
    features, labels = evals.embed(net, split)
    torch.testing.assert_close(features, net(sound.float().div(2**15).view(6, 4, 16)))
    assert labels.tolist() == list(range(6))
    encoder.save(tmp_path, {"encoder": net}, {"seed": 0})  # such data have no mean, and images no size
    loaded = encoder.load(tmp_path)
    assert loaded.takes == loaded.info["takes"] == "sound"
    assert torch.equal(evals.embed(loaded, split)[0], features)


def test_a_folder_of_an_image_encoder_is_as_it_was(tmp_path):
    encoder.save(tmp_path, {"encoder": nets.build("convnet", width=4)}, INFO)
    info = json.loads((tmp_path / "encoder.json").read_text())
    assert info == {"parts": {"encoder": {"name": "convnet", "width": 4}}, **INFO}


def test_annotations_need_nothing_but_the_module_of_arguments():
    """params.yaml is checked against them, read from the source text."""
    scope = {**vars(builtins), **vars(typing), **vars(arguments)}
    for file in sorted(Path(nets.__file__).parent.glob("[!_]*.py")):
        functions = [f for f in ast.walk(ast.parse(file.read_text())) if getattr(f, "name", None) == "__init__"]
        given = [a for f in functions for a in (*f.args.args, *f.args.kwonlyargs) if a.arg != "self"]
        assert given, f"{file.name} has no arguments"
        for argument in given:
            assert argument.annotation is not None, f"{file.name}: {argument.arg} has no type"
            assert eval(ast.unparse(argument.annotation), {"__builtins__": {}}, scope)


def test_data_without_the_encoders_column_are_refused(monkeypatch):
    monkeypatch.setitem(nets.HEADS, "tone", Tone)
    with pytest.raises(UserError, match=r"tone takes the column 'sound', which the data set does not have \(it has image, label\)"):
        nets.build("tone", {"columns": ["image", "label"]})
    assert nets.build("tone", {"columns": ["sound"], "mean": [], "std": []}).takes == "sound"


def uninitialised(conv):
    """Whether the weight gradient of a convolution of maps of one pixel keeps what lay in memory: its border is 0."""
    out = conv(torch.randn(8, 16, 1, 1))
    left = [torch.full((16 * 32 * 9 * size,), torch.nan, dtype=torch.bfloat16) for size in (1, 2) * 16]
    del left
    out.float().square().sum().backward()
    border = conv.weight.grad.clone()
    border[:, :, 1, 1] = 0
    return bool((border != 0).any())


def test_gradients_of_a_map_of_one_pixel_are_computed():
    shape = dict(kernel_size=3, stride=2, padding=1, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        if not any(uninitialised(torch.nn.Conv2d(16, 32, **shape)) for _ in range(5)):
            pytest.skip("this processor's convolution is right")
        assert not any(uninitialised(layers.Conv2d(16, 32, **shape)) for _ in range(5))
    # The fourth block meets it, where an image is a tile of 8 pixels.
    assert all(isinstance(block[0], layers.Conv2d) for block in nets.build("convnet", width=4).blocks)
