"""timm's models as encoders: built for the data's size and channels or refused by a sentence, and never fetched."""

import json
import socket

import pytest
import torch

import selfsup
from selfsup import encoder, methods, nets
from selfsup.errors import UserError

SMALL = {"size": 32, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
INFO = {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 32, "seed": 0}


def saved(folder, config):
    """An encoder folder of this configuration, as an older version or somebody else may have written it."""
    torch.manual_seed(1)
    net = nets.build("test_resnet")
    encoder.save(folder, {"encoder": net}, INFO)
    info = json.loads((folder / "encoder.json").read_text())
    info["parts"]["encoder"] = config
    (folder / "encoder.json").write_text(json.dumps(info))
    return net.eval()


@pytest.fixture
def no_network(monkeypatch):
    """Whoever asks for a connection, or for an address, is told of."""
    asked = []

    def refuse(*args, **_):
        asked.append(args)
        raise AssertionError(f"the network was asked for: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    return asked


ADDRESS = "https://example.org/weights.pth"
ASKS = [
    {"pretrained_cfg": {"url": ADDRESS}}, {"pretrained_cfg": {"file": "weights.pth"}}, {"pretrained_cfg": "a1_in1k"},
    {"pretrained_cfg_overlay": {"url": ADDRESS, "hf_hub_id": "a/b"}}, {"checkpoint_path": "weights.pth"},
    {"checkpoint_path": ADDRESS}, {"cache_dir": "cache"}, {"act_layer": "../gelu"}, {"act_layer": {"url": ADDRESS}},
    {"features_only": True}, {"kwargs_filter": ["in_chans"]},
]  # fmt: skip


@pytest.mark.parametrize("more", [{"pretrained": True}, *ASKS, *({"pretrained": True, **more} for more in ASKS)], ids=json.dumps)
def test_loading_fetches_nothing_and_opens_no_file(tmp_path, no_network, more):
    net = saved(tmp_path, {"name": "test_resnet", **more})
    x = torch.randn(2, 3, 32, 32)
    if more == {"pretrained": True}:  # where the weights beside it came from: an older folder's
        assert torch.equal(selfsup.load(tmp_path)(x), net(x))
    else:
        with pytest.raises(UserError, match="encoder"):
            selfsup.load(tmp_path)
    assert not no_network


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "hf_hub:a/b", "local-dir:/x", "https://example.org/resnet18",
                                  "../test_resnet", "test_resnet/", "timm/test_resnet.r160_in1k"])  # fmt: skip
def test_a_name_is_an_architecture(tmp_path, no_network, name):
    saved(tmp_path, {"name": name})
    try:
        net = selfsup.load(tmp_path)  # a tag after the name says which weights, which are not asked for
        assert net.net.__class__.__name__ == "ResNet"
    except UserError:
        pass
    assert not no_network


def test_weights_within_another_network_are_not_fetched_either(tmp_path, no_network):
    net = nets.build("split", half={"name": "test_resnet"})
    encoder.save(tmp_path, {"encoder": net}, INFO)
    info = json.loads((tmp_path / "encoder.json").read_text())
    info["parts"]["encoder"]["half"] |= {"pretrained": True}
    (tmp_path / "encoder.json").write_text(json.dumps(info))
    selfsup.load(tmp_path)
    assert not no_network


@pytest.mark.parametrize("name, size, config", [
    ("test_vit", 32, {"img_size": 32}),
    ("test_vit", 160, {}),  # what it is made for is not written
    ("test_resnet", 32, {}),
    ("swin_tiny_patch4_window7_224", 32, {"img_size": 32}),
])  # fmt: skip
def test_a_model_made_for_another_size_is_built_for_the_datas(name, size, config):
    net = nets.build(name, {**SMALL, "size": size, "channels": 2, "mean": [0.5] * 2, "std": [0.25] * 2})
    assert net.config == {"name": name, "channels": 2, **config}
    again = nets.build(**net.config)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 2, size, size)
    assert torch.equal(again.eval()(x), net.eval()(x)) and net(x).shape == (2, net.dim)
    net.train()(x).mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name, size, words", [
    ("vgg11", 16, "cannot encode images of 16 pixels"),  # five times halved
    ("test_vit", 8, "8"),
    ("resnet81", 32, "unknown network 'resnet81'"),
])  # fmt: skip
def test_what_cannot_be_built_or_encode_is_a_sentence(name, size, words):
    with pytest.raises(UserError, match=f"encoder.name: .*{words}"):
        nets.build(name, {**SMALL, "size": size})


@pytest.mark.parametrize("arguments, words", [({"drop_rate": "x"}, "encoder.drop_rate should be a number from 0 to below 1, not 'x'"),
                                              ({"drop_path_rate": 1.5}, "encoder.drop_path_rate should be a number"),
                                              ({"act_layer": "geluu"}, "timm cannot build test_resnet with act_layer: 'geluu'"),
                                              ({"widht": 3}, "timm cannot build test_resnet with widht: 3"),
                                              ({"num_classes": 5}, "encoder.num_classes")])  # fmt: skip
def test_arguments_that_do_not_suit_it_are_a_sentence(arguments, words):
    with pytest.raises(UserError, match=words):
        nets.build("test_resnet", SMALL, **arguments)


# --- Transformers, of which patches can be left out


SMALLER = {"depth": 2, "embed_dim": 48, "num_heads": 3, "patch_size": 8}
TRANSFORMERS = [
    {"name": "vit_small_patch16_224", **SMALLER},  # with a class token,
    {"name": "deit_tiny_distilled_patch16_224", **SMALLER},  # two of that kind,
    {"name": "vit_base_patch16_siglip_gap_224", **SMALLER},  # none,
    {"name": "vit_small_patch16_18x2_224", **SMALLER},  # with blocks side by side,
    {"name": "vit_small_patch16_dinov3", **SMALLER},  # with positions that turn queries and keys,
    {"name": "vit_small_patch16_rope_mixed_224", **SMALLER},  # learned ones in every block
]
transformers = pytest.mark.parametrize("config", TRANSFORMERS, ids=[config["name"] for config in TRANSFORMERS])


def transformer(config):
    torch.manual_seed(0)
    net = nets.build(**config, card=SMALL).eval()
    for name, value in net.named_parameters():
        if "gamma" in name:  # what a block adds is scaled by, from near 0 at the start
            torch.nn.init.ones_(value)
    return net


@transformers
@torch.no_grad()
def test_patches_can_be_left_out_of_a_transformer(config):
    net, x = transformer(config), torch.randn(2, 3, 32, 32)
    assert (net.patch, net.grid) == (8, 4)
    whole = net.tokens(x)
    assert torch.equal(whole.transpose(1, 2).unflatten(2, (4, 4)), net.features(x)), "in place"
    keep = torch.stack([torch.randperm(16) for _ in x])
    expected = torch.stack([tokens[order] for tokens, order in zip(whole, keep)])
    torch.testing.assert_close(net.tokens(x, keep), expected, atol=1e-4, rtol=1e-4)
    few, other = net.tokens(x, keep[:, :4]), torch.randn(2, 3, 32, 32)
    for image, own, order in zip(other, x, keep[:, :4]):
        for top, left in [(8 * (i // 4), 8 * (i % 4)) for i in order.tolist()]:
            image[:, top : top + 8, left : left + 8] = own[:, top : top + 8, left : left + 8]
    assert torch.equal(few, net.tokens(other, keep[:, :4])), "what is hidden does not reach the network"
    assert not torch.allclose(few, expected[:, :4], atol=1e-3), "nor do the tokens of what is"
    assert torch.equal(net.tokens(x), whole), "nothing of it stays"


@transformers
@torch.no_grad()
def test_attention_is_that_of_the_last_block(config):
    net, x = transformer(config), torch.randn(2, 3, 32, 32)
    before, found = net(x), net.attention(x)
    assert found.shape == (2, 3, 16, 16) and found.min() >= 0 and torch.equal(net(x), before)
    torch.testing.assert_close(found.sum(3) <= 1 + 1e-5, torch.ones(2, 3, 16, dtype=torch.bool))
    assert net.net.num_prefix_tokens or (found.sum(3) - 1).abs().max() < 1e-5
    assert found.std(3).max() > 1e-6


@transformers
def test_images_of_another_size_stretch_the_positions(config):
    net = transformer(config)
    assert [net(torch.randn(2, 3, side, side)).shape for side in (16, 32, 64)] == [(2, 48)] * 3


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_relpos_small_patch16_224", "test_resnet"])
def test_whose_patches_know_of_each_other_is_none_of_these(name):
    """A hybrid's come of convolutions over all of the image, and relative positions stand for all patches."""
    net = nets.build(name, {**SMALL, "size": 224})
    assert net.patch is None
    with pytest.raises(UserError, match=f"mae needs the encoder vit or a transformer of timm's, .* and not {name}"):
        methods.load("mae")(net)
