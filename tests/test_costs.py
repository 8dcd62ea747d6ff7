"""What an encoder is said to cost, against what it does: operations by hand, memory by hooks on real tensors."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from selfsup import cli, costs, nets
from selfsup.inputs.views import MultiCrop, View, Views

README, SCALE = ((Path(__file__).parents[1] / name).read_text() for name in ("README.md", "docs/scale.md"))


def test_operations_are_those_of_the_formulae():
    channels, sides = [3, 4, 8, 16, 32, 32], [16, 8, 4, 2, 2]
    assert costs.cost("convnet", 32, width=4).multiply_adds == sum(
        9 * i * o * side**2 for i, o, side in zip(channels, channels[1:], sides))
    dim, depth, tokens = 16, 2, 64
    block = 12 * dim**2 * tokens + 2 * tokens**2 * dim  # projections and an MLP, scores and what they weigh
    found = costs.cost("vit", 32, dim=dim, depth=depth, heads=2).multiply_adds
    assert found == depth * block + tokens * 4 * 4 * 3 * dim


@pytest.mark.parametrize("config", [{"name": "convnet", "width": 4}, {"name": "vit", "dim": 16, "depth": 2, "heads": 2},
                                    {"name": "test_resnet"}], ids=lambda config: config["name"])  # fmt: skip
def test_what_is_kept_is_what_a_network_keeps(config):
    net, kept = nets.build(**config, card={"size": 32}).train(), {}
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def keep(value):
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        net(torch.randn(8, 3, 32, 32))
    real = sum(value.untyped_storage().nbytes() for pointer, value in kept.items() if pointer not in own) / 8
    found = costs.cost(size=32, **config)
    assert abs(found.kept - real) < 0.01 * real  # of attention the kernel of this machine keeps a little more
    assert found.parameters == sum(p.numel() for p in net.parameters())


def cells(name):
    given = {"half": {"name": "convnet"}} if name == "split" else {}
    found = [costs.cost(name, size, **given) for size in costs.SIZES]
    known = costs.arguments(name) if nets.network(name) else {}
    told = [f"`{key}`" if default is inspect.Parameter.empty else f"`{key}: {default}`"
            for key, (_, default) in known.items() if key not in ("size", "channels")]
    work, kept = (", ".join(costs.million(getattr(one, what)) for one in found) for what in ("multiply_adds", "kept"))
    parameters, told = costs.million(found[-1].parameters), ", ".join(told) or ("–" if known else "timm's")
    return [f"`{name}`", told, f"{parameters} M", f"{work} M", f"{kept} MB"]


@pytest.mark.slow
def test_the_readme_has_every_encoder_and_what_it_costs():
    table = README.partition("| encoder | arguments |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [re.split(r" \| ", line.strip("| ")) for line in table]
    ours = [name for name in costs.names() if nets.takes(name) == "image"]
    assert [row[0].strip("`") for row in rows][: len(ours)] == ours
    for row in rows:
        assert row == cells(row[0].strip("`"))
    section = README.partition("## Encoders")[2].partition("\n## ")[0]
    assert all(f"`{name}`" in section for name in nets.names())


def test_batches_that_are_said_to_fit_do():
    """docs/scale.md's, and the next power of two does not."""
    lines = [line.strip("| ").split(" | ") for line in SCALE.splitlines() if re.match(r"\| \d+ \| `\{name", line)]
    assert len(lines) > 8
    for size, config, work, kept, *batches in lines:
        found = costs.cost(size=int(size), **yaml.safe_load(config.strip("`")))
        assert [work, kept] == [f"{costs.million(found.multiply_adds)} M", f"{costs.million(found.kept)} MB"]
        for memory, batch in zip((8e9, 24e9), batches, strict=True):
            batch = int(batch.replace(",", ""))
            assert 2 * batch * found.kept <= 0.75 * memory < 4 * batch * found.kept, (size, config)


def test_the_command_lists_them_and_knows_timms(capsys, monkeypatch):
    monkeypatch.setattr(costs, "SIZES", (32,))
    cli.main(["encoders"])
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{out}" for name in nets.names()) and "ResNet-18 as CIFAR has it" in out
    cli.main(["encoders", "vit"])
    assert re.search("patch=4 +integer from 1", out := capsys.readouterr().out) and "64 tokens" in out
    cli.main(["encoders", "vit_small_patch14_dinov2"])
    out = " ".join(capsys.readouterr().out.split())
    assert "32 px encoder.name: timm's vit_small_patch14_dinov2 cannot encode images of 32 pixels" in out
    with pytest.raises(SystemExit):
        cli.main(["encoders", "resnet81"])
    assert "unknown network 'resnet81'; did you mean \"resnet18\"?" in capsys.readouterr().err


def warnings(size, encoder, inputs=View(), batch=128, memory=8e9, precision="fp32", accumulate=None, processes=1):
    train = SimpleNamespace(batch=batch, accumulate=accumulate, precision=precision)
    return list(costs.warn(SimpleNamespace(encoder=encoder, train=train), inputs, {"size": size, "channels": 3}, memory, processes))


def test_tokens_that_explode_are_told():
    (said,) = warnings(224, {"name": "vit", "dim": 16, "depth": 1, "heads": 1})
    assert said == ("an image of 224 pixels is 3,136 tokens to vit, each of which attends to all others: `patch: 16` "
                    "makes 196 of it")
    assert warnings(224, {"name": "vit", "dim": 16, "depth": 1, "heads": 1, "patch": 16, "size": 224}) == []
    assert len(warnings(64, {"name": "vit", "dim": 16, "depth": 1, "heads": 1, "patch": 1}, batch=4)) == 1
    (said,) = warnings(224, {"name": "vit_tiny_patch16_224", "patch_size": 4, "depth": 1})
    assert said.endswith("`patch_size: 16` makes 196 of it")


def test_memory_that_is_not_there_is_told():
    net = {"name": "resnet18"}
    (said,) = warnings(64, net, Views(2), memory=4e9)
    assert said.startswith("resnet18 keeps up to 5 GB of a batch for the way back, and there are 4: lower train.batch")
    assert warnings(64, net, MultiCrop(8), memory=4e9) == [said], "two large crops"
    for enough in ({"memory": 6e9}, {"precision": "bf16"}, {"accumulate": 2}, {"processes": 2}, {"batch": 64}):
        assert warnings(64, net, Views(2), **{"memory": 4e9, **enough}) == []
    assert warnings(64, {"name": "sound_convnet"}, memory=1) == []
