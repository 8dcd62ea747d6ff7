"""The command line, as a user calls it: through files, in a folder of its own."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import selfsup
from selfsup import cli, config, evals, methods, nets
from selfsup import encoder
from selfsup import shards
from selfsup.config import catalogue
from selfsup.data import images, tars

ROOT = Path(__file__).parents[1]
NETS = {"tiny-convnet": {"name": "convnet", "width": 4}, "tiny-resnet18": {"name": "resnet18"},
        "tiny-vit": {"name": "vit", "size": 16, "dim": 16, "depth": 2, "heads": 2},
        "tiny-timm": {"name": "resnet10t"}, "tiny-timm18": {"name": "resnet18.a1_in1k"},
        "tiny-timmvit": {"name": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 4, "depth": 2},
        "tiny-split": {"name": "split", "half": {"name": "convnet", "width": 4}},
        "tiny-pixels": {"name": "pixel_transformer", "pixels": 4, "dim": 16, "depth": 2, "heads": 2}}  # fmt: skip


def save(run, seed=0, net=None, **changes):
    """An encoder folder with random weights, and statistics of BatchNorm as if it had been trained."""
    torch.manual_seed(seed)
    net = nets.build(**(net or NETS["tiny-convnet"]))
    with torch.no_grad():
        for _ in range(10):
            net.train()(torch.randn(16, net.channels, 16, 16))
    info = {"dim": net.dim, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "size": 16, "run": run, "seed": seed,
            "method": "simclr", "data": {"name": "tiny", "hash": "d" * 64}, "args": {}, "train": {"lr": 0.001},
            "images": 64, "steps": 2, "code": "c" * 64, "classes": ["a", "b"]}
    encoder.save(config.encoders(run) / str(seed), {"encoder": net}, {**info, **changes})


def result(run, protocol, accuracy, low, high, seed=0):
    folder = config.results(run)
    folder.mkdir(parents=True, exist_ok=True)
    one = {"accuracy": accuracy, "low": low, "high": high}
    content = {**one, "seeds": {str(seed): {**one, "accuracy": accuracy + 1}}}
    (folder / f"{protocol}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with encoders, and pictures in two class folders: large, small, upright, sideways, lossy and not."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run in ("tiny-convnet", "tiny-vit"):
            save(run, net=NETS[run])
        rng = np.random.default_rng(0)
        for i in range(12):
            size = [(16, 16), (40, 24), (9, 30)][i % 3]
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((5, 5, 1)))[: size[0], : size[1]].astype(np.uint8)
            path = Path(f"pictures/{'ab'[i % 2]}/{i}.{['jpg', 'png'][i // 2 % 2]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def work(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def embedded(*words):
    """{path: feature (dim,)} of what `selfsup embed` writes."""
    cli.main(["embed", *words, "-o", "out.parquet"])
    table = pq.read_table("out.parquet")
    return dict(zip(table["path"].to_pylist(), torch.tensor(table["feature"].to_pylist())))


def test_a_file_has_the_features_that_it_is_judged_by(work):
    spec = {"source": "folder", "root": "pictures", "size": 16, "max_bad": 0.0, "val_share": 0.3, "test_share": 0.3}
    card = shards.write("tiny", spec, "data/shards/tiny", workers=1)
    data, judged = evals.Data("data/shards/tiny", reader="streaming"), {}
    for split in (name for name, count in card["counts"].items() if count):
        x, _ = evals.embed(selfsup.load("data/encoders/tiny/tiny-convnet"), data.split(split))
        keys = [key for entry in card["shards"][split] for key, _ in tars.members("data/shards/tiny", entry)]
        judged |= dict(zip(keys, x))
    found = embedded("tiny-convnet", "pictures")
    assert list(found) == sorted(found) and len(found) == 12
    for path, feature in found.items():
        torch.testing.assert_close(feature, judged.pop(path.rpartition(".")[0]))
    assert not judged and torch.stack([*found.values()]).std(0).mean() > 1e-3


def test_a_parquet_file_says_whose_features_it_has(work):
    embedded("data/encoders/tiny/tiny-vit/0", "pictures")
    schema = pq.read_schema("out.parquet")
    about = json.loads(schema.metadata[b"selfsup"])
    assert (about["run"], about["seed"], about["data"]["hash"]) == ("tiny-vit", 0, "d" * 64)
    assert schema.field("feature").type.list_size == 16


def test_features_are_written_as_the_ending_says(work, capsys):
    expected = embedded("tiny-convnet", "pictures")
    for ending in ("csv", "npz", "npy"):
        cli.main(["embed", "tiny-convnet", "pictures", "-o", f"x.{ending}"])
    lines = [line.split(",") for line in Path("x.csv").read_text().splitlines()]
    assert lines[0][:2] == ["path", "f0"] and len(lines) == 13
    archive, array = np.load("x.npz"), np.load("x.npy")
    for paths, x in (([line[0] for line in lines[1:]], np.array([line[1:] for line in lines[1:]], dtype="float32")),
                     (archive["path"].tolist(), archive["feature"]), (Path("x.txt").read_text().splitlines(), array)):
        assert paths == list(expected)
        np.testing.assert_array_equal(x, torch.stack([*expected.values()]).numpy())
    assert json.loads(str(archive["selfsup"]))["run"] == "tiny-convnet"
    with pytest.raises(SystemExit):
        cli.main(["embed", "tiny-convnet", "pictures", "-o", "x.h5"])
    assert "x.h5: features are written as .parquet, .csv, .npy, .npz" in capsys.readouterr().err and not Path("x.h5").exists()


def test_batches_make_no_difference(work, monkeypatch):
    from selfsup import embed

    whole = embedded("tiny-convnet", "pictures")
    monkeypatch.setattr(embed, "BATCH", 5)
    parts = embedded("tiny-convnet", "pictures")
    assert pq.ParquetFile("out.parquet").num_row_groups == 3  # written as one goes
    assert list(parts) == list(whole)
    torch.testing.assert_close(torch.stack([*parts.values()]), torch.stack([*whole.values()]))


def test_unreadable_images_are_left_out_and_named(work, capsys):
    whole = embedded("tiny-convnet", "pictures")
    for name in ("0.jpg", "8.jpg"):
        path = Path("pictures/a") / name
        path.write_bytes(path.read_bytes()[:200])
    capsys.readouterr()
    found = embedded("tiny-convnet", "pictures")
    assert set(whole) - set(found) == {"a/0.jpg", "a/8.jpg"}
    for path, feature in found.items():
        torch.testing.assert_close(feature, whole[path])
    out, err = capsys.readouterr()
    assert "skipped 2 unreadable of 12" in err and "pictures/a/0.jpg: " in err and "10 images" in out


def test_neighbours_are_those_of_all_features(work, capsys, monkeypatch):
    from selfsup import embed

    monkeypatch.setattr(embed, "BATCH", 5)  # the best are kept over several batches
    features = embedded("tiny-convnet", "pictures")
    shutil.copy("pictures/a/4.jpg", "query.jpg")
    capsys.readouterr()
    cli.main(["neighbours", "tiny-convnet", "pictures", "pictures/b/3.png", "query.jpg", "-k", "4", "-o", "found.png"])
    lines = capsys.readouterr().out.splitlines()
    names, unit = list(features), F.normalize(torch.stack([*features.values()]), dim=1)
    for start, query, name, itself in ((0, "pictures/b/3.png", "b/3.png", True), (5, "query.jpg", "a/4.jpg", False)):
        similarity = unit @ unit[names.index(name)]
        if itself:
            similarity[names.index(name)] = -1
        best = similarity.topk(4)
        assert lines[start] == query
        expected = [f"  {s:.3f}  pictures/{names[i]}" for s, i in zip(best.values.tolist(), best.indices.tolist())]
        assert lines[start + 1 : start + 5] == expected
    assert lines[6].split() == ["1.000", "pictures/a/4.jpg"]  # a copy of it finds it
    with Image.open("found.png") as image:
        assert image.format == "PNG" and image.width > 5 * embed.TILE and image.height > 2 * embed.TILE


@pytest.mark.parametrize("run, to", [
    ("tiny-convnet", "onnx"),
    *(pytest.param(run, "onnx", marks=pytest.mark.slow) for run in ("tiny-vit", "tiny-timm", "tiny-split", "tiny-pixels")),
    ("tiny-vit", "timm"), ("tiny-resnet18", "timm"), ("tiny-timm", "timm"), ("tiny-resnet18", "torchvision"),
    ("tiny-timm18", "torchvision"), ("tiny-timmvit", "torchvision"),
    ("tiny-timm18", "hf"), ("tiny-vit", "hf"), ("tiny-timmvit", "hf"),
    pytest.param("tiny-timmvit", "onnx", marks=pytest.mark.slow),
])  # fmt: skip
def test_what_is_exported_has_the_same_features(work, run, to):
    out = {"onnx": "model.onnx", "hf": "model"}.get(to, "model.safetensors")
    save(run, net=NETS[run])
    cli.main(["export", run, "--to", to, "-o", out])
    net, x = selfsup.load(config.encoders(run), frozen=True), torch.randn(5, 3, 16, 16)
    if to == "hf":
        import timm

        assert sorted(path.name for path in Path(out).iterdir()) == ["README.md", "config.json", "model.safetensors"]
        about = json.loads(Path(out, "config.json").read_text())["pretrained_cfg"]
        assert about["mean"] == net.mean and about["crop_pct"] == 1 and "license" not in about
        features = timm.create_model(f"local-dir:{out}", pretrained=True).eval()(x).detach()
        torch.testing.assert_close(features, net(x), rtol=1e-4, atol=1e-5)
        return
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out)
        features = torch.from_numpy(session.run(["feature"], {"image": x.numpy()})[0])
        assert json.loads(session.get_modelmeta().custom_metadata_map["mean"]) == net.mean
    else:
        features = runpy.run_path(f"model.{to}.py")["features"](x).detach()
    assert features.std() > 1e-3
    torch.testing.assert_close(features, net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("run", ["tiny-timm18", "tiny-vit"])
def test_transformers_load_the_folder_of_the_hub(work, run):
    """Features and, of a picture, pixels; by the extra `references`."""
    transformers = pytest.importorskip("transformers")
    save(run, net=NETS[run])
    cli.main(["export", run, "--to", "hf"])
    net, picture = selfsup.load(config.encoders(run), frozen=True), Path("pictures/a/4.jpg")
    with Image.open(picture) as image:
        image = image.convert("RGB").crop((0, 0, 24, 24))  # others that one cuts when they are shrunk, we before
        pixels = transformers.AutoImageProcessor.from_pretrained(f"{run}-0.hf")(image, return_tensors="pt")
        x = net.prepare(torch.from_numpy(np.array(images.square(image, 16))).permute(2, 0, 1)[None])
    torch.testing.assert_close(pixels["pixel_values"], x)
    model = transformers.AutoModel.from_pretrained(f"{run}-0.hf").eval()
    torch.testing.assert_close(model(pixel_values=x).pooler_output.detach(), net(x), rtol=1e-4, atol=1e-5)


def test_one_library_does_not_overwrite_what_another_loads(work):
    save("tiny-timmvit", net=NETS["tiny-timmvit"])
    for to in ("timm", "torchvision"):
        cli.main(["export", "tiny-timmvit", "--to", to])
    x = torch.randn(2, 3, 16, 16)
    one, other = (runpy.run_path(f"tiny-timmvit-0.{to}.py")["features"](x) for to in ("timm", "torchvision"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


BANDS = {"mean": [0.5] * 5, "std": [0.25] * 5}


@pytest.mark.parametrize("net, to", [("tiny-resnet18", "torchvision"), ("tiny-resnet18", "timm"), ("tiny-vit", "timm"),
                                     ("tiny-timm", "timm"), ("tiny-timm18", "torchvision"),
                                     ("tiny-timmvit", "torchvision")])  # fmt: skip
def test_an_encoder_of_any_number_of_channels_is_exported(work, net, to):
    save("tiny-bands", net={**NETS[net], "channels": 5}, **BANDS)
    cli.main(["export", "tiny-bands", "--to", to, "-o", "bands.safetensors"])
    x = torch.randn(5, 5, 16, 16)
    features = runpy.run_path(f"bands.{to}.py")["features"](x).detach()
    torch.testing.assert_close(features, selfsup.load(config.encoders("tiny-bands"))(x), rtol=1e-4, atol=1e-5)


def test_an_encoder_of_many_channels_reads_its_own_files(work, capsys):
    column = {"kind": "image", "shape": [5, 16, 16], "dtype": "uint16", "picture": False}
    save("tiny-bands", net={**NETS["tiny-convnet"], "channels": 5}, column=column, **BANDS)
    Path("bands").mkdir()
    pixels = np.random.default_rng(0).integers(0, 2**16, (3, 16, 16, 5)).astype(np.uint16)
    for name, image in zip("abc", pixels):
        np.save(f"bands/{name}.npy", image)
    cli.main(["embed", "tiny-bands", "bands", "-o", "bands.parquet"])
    features = torch.tensor(pq.read_table("bands.parquet")["feature"].to_pylist())
    x = torch.tensor(pixels / 65535.0, dtype=torch.float32).permute(0, 3, 1, 2).sub(0.5).div(0.25)
    torch.testing.assert_close(features, selfsup.load(config.encoders("tiny-bands"))(x), rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    cli.main(["neighbours", "tiny-bands", "bands", "bands/a.npy", "-k", "2"])
    assert {*"bc"} == {line.split("/")[1][0] for line in capsys.readouterr().out.splitlines()[1:]}
    with pytest.raises(SystemExit):
        cli.main(["neighbours", "tiny-bands", "bands", "bands/a.npy", "-o", "found.png"])
    assert "bands/a.npy: not an image, and only pictures can be drawn" in capsys.readouterr().err


def test_an_export_that_computes_something_else_is_not_kept(work, monkeypatch, capsys):
    from selfsup import counterparts

    save("tiny-resnet18", net=NETS["tiny-resnet18"])
    stem = counterparts.stem
    monkeypatch.setattr(counterparts, "stem", lambda encoder: stem(encoder)[:1])  # with max-pooling
    with pytest.raises(SystemExit):
        cli.main(["export", "tiny-resnet18", "--to", "torchvision", "-o", "a.safetensors"])
    assert "other features" in capsys.readouterr().err and not [*work.glob("*a.*")]


def table(capsys, *words):
    capsys.readouterr()
    cli.main(["compare", *words])
    return {line.split("  ")[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}


def test_compare_says_what_differs_and_by_how_much(work, capsys):
    save("tiny-a", args={"temperature": 0.5}, train={"lr": 0.001, "batch": 32})
    save("tiny-b", args={}, train={"lr": 0.01, "batch": 32}, code="e" * 64, method="moco")
    result("tiny-a", "knn", 20.0, 18.0, 22.0), result("tiny-b", "knn", 25.5, 23.5, 27.5)
    result("tiny-a", "linear", 40.0, 35.0, 45.0), result("tiny-b", "linear", 38.0, 33.0, 43.0)
    result("tiny-b", "retrieval", 10.0, 9.0, 11.0)
    (config.results("tiny-a") / "cost.json").write_text('{"seeds": {"0": {"seconds": 1}}}')
    dep = "    - {{path: ssl/selfsup/{}.py, md5: {}}}\n".format
    Path("dvc.lock").write_text("stages:\n" + "".join(
        f"  pretrain@tiny-{run}:\n    deps:\n    - {{path: data/shards/tiny, md5: {run}}}\n" + dep("train", "1")
        + dep("rng", run) + dep(f"methods/{method}", run) for run, method in (("a", "simclr"), ("b", "moco"))))
    rows = table(capsys, "tiny-a", "tiny-b")
    assert rows["data"].endswith("the same")
    assert rows["code"].endswith("differs: methods/moco.py, methods/simclr.py, rng.py")
    assert rows["method"] == "method simclr moco" and rows["train.lr"] == "train.lr 0.001 0.01"
    assert rows["args.temperature"] == "args.temperature 0.5 default" and "train.batch" not in rows and "cost %" not in rows
    assert rows["knn %"] == "knn % 20.0 [18.0, 22.0] 25.5 [23.5, 27.5] +5.5 [+2.7, +8.3]"
    assert rows["linear %"].endswith("-2.0 [-9.1, +5.1]")
    assert rows["retrieval %"] == "retrieval % – 10.0 [9.0, 11.0]"
    one = table(capsys, "tiny-a", "data/encoders/tiny/tiny-b/0")  # that seed's result
    assert one["knn %"].endswith("+5.5 [+2.7, +8.3]")
    rows = table(capsys, "tiny-a", "tiny-a")
    assert set(rows) == {"", "data", "code", "knn %", "linear %"} and rows["code"].endswith("the same")
    assert rows["knn %"].endswith("20.0 [18.0, 22.0] 0, the same encoder")


def test_compare_knows_the_defaults_of_the_code_that_is_here(work, capsys):
    from types import SimpleNamespace

    from selfsup.training.code import code_hash

    code = code_hash(SimpleNamespace(method="simclr", encoder={"name": "convnet"}))
    for run, args in (("tiny-a", {"temperature": 0.1}), ("tiny-b", {}), ("tiny-c", {"temperature": 0.5})):
        save(run, args=args, code=code)
    assert table(capsys, "tiny-a", "tiny-b")["args.temperature"] == "args.temperature 0.1 0.5 (default)"
    assert "args.temperature" not in table(capsys, "tiny-b", "tiny-c")


def test_compare_reads_each_run_where_it_lies(work, tmp_path, capsys, monkeypatch):
    result("tiny-convnet", "knn", 20.0, 18.0, 22.0)
    shutil.copytree(work, tmp_path / "other")
    monkeypatch.chdir(tmp_path / "other")
    result("tiny-convnet", "knn", 21.0, 19.0, 23.0)
    save("tiny-convnet", data={"name": "tiny", "hash": "f" * 64}), save("tiny-convnet", seed=1)
    rows = table(capsys, str(work / "data/encoders/tiny/tiny-convnet"), "tiny-convnet")
    assert rows["knn %"].endswith("+1.0 [-1.8, +3.8], on other data") and rows["data"].endswith("other data")
    assert rows["seeds"] == "seeds 0 0, 1"


def test_the_lines_on_fine_tuning_train_the_whole_encoder(work):
    """Those in README, as they stand there, on images that are red or blue."""
    folder = config.encoders("tiny-convnet")
    (lines,) = re.findall(r"```python\n(model = .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    images = torch.zeros(64, 3, 16, 16, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    images[torch.arange(64), 2 * labels] = 200
    told = {"torch": torch, "encoder": selfsup.load(folder), "classes": 2, "batches": [(images, labels)] * 20}
    exec(lines, told)
    before = selfsup.load(folder, frozen=True)
    assert told["loss"] < 0.3
    assert all(not torch.equal(a, b) for a, b in zip(told["encoder"].parameters(), before.parameters()) if a.std() > 0)
    assert not any(p.requires_grad for p in before.parameters()) and not before.training


def test_the_catalogue_has_every_method_in_its_family(capsys):
    assert set(catalogue.families()) <= set(methods.names())  # the README's table, in which one's own need not be
    cli.main(["methods"])
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in out for name in methods.names())
    assert "https://arxiv.org/abs/2002.05709" in out and out.index("reconstruct the input") < out.index("\nmae\n")
    assert out.index("\nmae\n") < out.index("agree across views") < out.index("\nsimclr\n") < out.index("\nclip\n")


def test_one_method_in_full(capsys):
    cli.main(["methods", "simclr"])
    out = capsys.readouterr().out
    assert "agree across views" in out and "temperature=0.5" in out and "augment='simclr'" in out and "B.9" in out
    assert "Views of image" in out and "moco\n" not in out
    for line in (r"temperature=0.5 +number from 0.001 to 1,000", r"hidden=2048 +integer from 1 to 1,048,576", "augment='simclr' +text"):
        assert re.search(line, out), line
    cli.main(["methods", "moco"])
    out = capsys.readouterr().out
    assert re.search("head='mlp' +'linear' or 'mlp'", out) and re.search("temperature=None +number .* or null", out)


TABLE = {
    "no such folder": (["embed", "tiny-convnet", "pictuers", "-o", "a.parquet"], 'did you mean "pictures"'),
    "a folder without images": (["embed", "tiny-convnet", "data", "-o", "a.parquet"], "no images in data"),
    "no readable image": (["embed", "tiny-convnet", "bad", "-o", "a.parquet"], "bad/a.png: not an image"),
    "a run that is not there": (["embed", "tiny-convnt", "pictures", "-o", "a.parquet"], 'did you mean "tiny-convnet"'),
    "a path that is not there": (["embed", "data/encoder", "pictures", "-o", "a.parquet"], 'did you mean "encoders"'),
    "no encoder in it": (["embed", "pictures", "pictures", "-o", "a.parquet"], "pictures: no encoder here"),
    "a damaged encoder": (["embed", "bad", "pictures", "-o", "a.parquet"], "damaged"),
    "an output that is a folder": (["embed", "tiny-convnet", "pictures", "-o", "data"], "data is a folder"),
    "an output in no folder": (["embed", "tiny-convnet", "pictures", "-o", "dta/a.parquet"], 'did you mean "data"'),
    "a query that is not there": (["neighbours", "tiny-convnet", "pictures", "pictures/a/00.jpg"], "pictures/a/00.jpg"),
    "a query that is no image": (["neighbours", "tiny-convnet", "pictures", "bad/a.png", "-o", "b.png"], "bad/a"),
    "no neighbour": (["neighbours", "tiny-convnet", "pictures", "pictures/a/0.jpg", "-k", "0"], "-k"),
    "an architecture timm lacks": (["export", "tiny-convnet", "--to", "timm", "-o", "a.safetensors"], "--to onnx"),
    "one torchvision lacks": (["export", "tiny-vit", "--to", "torchvision", "-o", "a.safetensors"],
                              "torchvision has no network like the encoder's, vit; `--to timm`, `--to hf` or `--to onnx`"),
    "one the hub lacks": (["export", "tiny-convnet", "--to", "hf"], "like the encoder's, convnet; `--to onnx` writes it"),
    "a folder that is there": (["export", "tiny-vit", "--to", "hf", "-o", "data"], "data is there already"),
    "a run to compare with": (["compare", "tiny-vit", "tiny-vti"], 'did you mean "tiny-vit"'),
    "a damaged encoder.json": (["compare", "tiny-vit", "bad"], "bad/encoder.json is damaged"),
    "a method that is not there": (["methods", "simclear"], 'did you mean "simclr"'),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE)
def test_one_sentence_and_nothing_left(row, work, capsys):
    words, expected = TABLE[row]
    Path("bad").mkdir()
    Path("bad/a.png").write_bytes(b"no image")
    Path("bad/encoder.json").write_bytes(b"{")
    before = sorted(work.rglob("*"))
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    errors = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert end.value.code == 1 and len(errors) == 1 and expected in errors[0], errors
    assert sorted(work.rglob("*")) == before


def test_what_was_there_stays_when_embedding_fails(work, monkeypatch):
    from selfsup import embed

    def full(*args):
        yield [0], torch.zeros(1, 32)
        raise OSError(28, "No space left on device")

    Path("a.parquet").write_bytes(b"old")
    monkeypatch.setattr(embed, "features", full)
    with pytest.raises(SystemExit):
        cli.main(["embed", "tiny-convnet", "pictures", "-o", "a.parquet"])
    assert Path("a.parquet").read_bytes() == b"old" and not [*work.glob(".*")]


def test_help_and_compare_need_no_torch(work):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "ssl")}
    said = subprocess.check_output([sys.executable, "-m", "selfsup", "--help"], env=env, text=True)
    assert all(name in said for name in ("methods", "embed", "neighbours", "export", "compare"))
    code = ("import sys; from selfsup import cli; cli.main(['compare', 'tiny-vit', 'tiny-convnet']); import ssl; "
            "assert 'torch' not in sys.modules and ssl.create_default_context()")
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
