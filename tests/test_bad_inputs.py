"""What a user can get wrong: each gives one clear sentence on stderr, exit status 1, and leaves what was there.

Every row runs a real script of pipelines/ on a small working folder that one thing is wrong with.
"""

import io
import os
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from selfsup.data import remote

ROOT = Path(__file__).parent.parent
TRAIN = {
    "images": 64, "batch": 32, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0,
    "precision": "fp32", "threads": 1, "workers": 0, "reader": "auto", "checkpoint_every": 30,
}  # fmt: skip
SCENES = {"source": "scenes", "size": 16, "train": 80, "val": 40, "test": 40, "seed": 0, "max_bad": 0.0}
FOLDER = {"source": "folder", "root": "pictures", "size": 16, "val_share": 0.2, "test_share": 0.2, "max_bad": 0.1}
TARS = {"source": "webdataset", "root": "tars", "urls": "*.tar", "size": 16, "val_share": 0.2, "test_share": 0.2,
        "max_bad": 0.0}  # fmt: skip
BUDGET = {"images": 64, "batch": 32, "optimizer": "sgd", "lr": [1e-3], "weight_decay": 0.0, "warmup": 0.0, "clip": 0.0}
PARAMS = {
    "experiment": "tiny", "fetch": [], "datasets": {"tiny": SCENES}, "train": TRAIN,
    "encoder": {"name": "convnet", "width": 4}, "notes": {}, "claims": {},
    "annotation": {"seconds": 10, "wage": 15, "kinds": {}},
    "protocols": {
        "knn": {"k": [5], "temperature": [0.1], "bootstrap": 10},
        "linear": {"weight_decay": [0.01], "bootstrap": 10},
        "finetune": {"runs": {}, **BUDGET, "bootstrap": 10},
        "low_shot": {"runs": {}, "shares": [0.1], "linear": {"weight_decay": [0.01]}, "finetune": BUDGET, "bootstrap": 10},
        "layerwise": {"runs": {}, "weight_decay": [0.01], "pool": 1, "bootstrap": 10},
        "retrieval": {"runs": {}, "k": [5], "bootstrap": 10},
        "zero_shot": {"runs": {}, "prompts": ["a {}"], "bootstrap": 10},
    },
    "runs": {"tiny-random": {"method": "random", "data": "tiny", "seeds": [0]}},
}  # fmt: skip


def script(name, *words):
    """Run pipelines/<name>.py in this process -> exit status."""
    AcceleratorState._reset_state(reset_partial_state=True)
    sys.argv = [f"pipelines/{name}.py", *words]
    try:
        runpy.run_path(str(ROOT / f"pipelines/{name}.py"), run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder in which everything works: shards and one encoder made."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SELFSUP_TRACKING", "off")
        patch.setattr(sys, "argv", sys.argv)
        Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
        assert script("shard", "tiny") == 0
        assert script("pretrain", "tiny-random") == 0
        assert script("evaluate", "knn", "tiny-random") == 0
    return folder


def params(*path, value):
    """Set params.yaml's value at `path`."""

    def spoil():
        whole = yaml.safe_load(Path("params.yaml").read_text())
        at = whole
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        Path("params.yaml").write_text(yaml.safe_dump(whole))

    return spoil


def run(**entry):
    return params("runs", "tiny-random", value={"method": "random", "data": "tiny", "seeds": [0], **entry})


def text(content):
    return lambda: Path("params.yaml").write_text(content)


def file(path, content=b""):
    def spoil():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    return spoil


def cut(path, share):
    """Cut a file off after a share of its bytes."""

    def spoil():
        content = Path(path).read_bytes()
        Path(path).write_bytes(content[: int(share * len(content))])

    return spoil


def remove(path):
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def picture(size=16):
    stream = io.BytesIO()
    Image.new("RGB", (size, size), "teal").save(stream, "JPEG")
    return stream.getvalue()


def folder_of_truncated_jpegs():
    params("datasets", "tiny", value=FOLDER)()
    for i in range(20):
        file(f"pictures/train/{'ab'[i % 2]}/{i}.jpg", picture()[: 200 if i % 2 else None])()


def empty_folder():
    params("datasets", "tiny", value=FOLDER)()
    Path("pictures/train/a").mkdir(parents=True)


def tars(label=b"0", torn=False):
    def spoil():
        params("datasets", "tiny", value=TARS)()
        Path("tars").mkdir()
        for name in ("a", "b"):
            with tarfile.open(f"tars/{name}.tar", "w") as tar:
                for i in range(10):
                    for end, content in (("jpg", picture()), ("cls", label)):
                        member = tarfile.TarInfo(f"{name}{i}.{end}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        if torn:
            cut("tars/b.tar", 0.4)()

    return spoil


def pictures(*names, link=None):
    """The data set is the folder `pictures` with such files, and with a linked folder."""
    def spoil():
        params("datasets", "tiny", value=FOLDER)()
        for name in names:
            file(f"pictures/{name}", picture())()
        if link:
            Path("elsewhere").mkdir()
            Path("pictures", link).symlink_to("../elsewhere")

    return spoil


def digits_for_clip():
    digits = {"source": "digits", "size": 16, "val_share": 0.2, "test_share": 0.2, "max_bad": 0.0}
    params("datasets", "tiny", value=digits)()
    shutil.rmtree("data/shards/tiny")
    assert script("shard", "tiny") == 0
    run(method="clip")()


def other_classes():
    """The encoder is judged on other data than its own, of other classes."""
    whole = {"samples": 20, "weight_decay": [0.01], "directions": 2, "clip": 10.0, "components": 2, "mu": [1.0], "bootstrap": 10}
    params("datasets", "other", value={**SCENES, "classes": ["car", "duck"]})()
    params("protocols", "adaptation", value={**whole, "runs": {"tiny-random": "other"}})()
    assert script("shard", "other") == 0


SHARD, PRETRAIN, KNN = ("shard", "tiny"), ("pretrain", "tiny-random"), ("evaluate", "knn", "tiny-random")
ENCODER, SHARDS = "data/encoders/tiny/tiny-random/0", "data/shards/tiny"
VIT = {"name": "vit", "dim": 16, "depth": 1, "heads": 2}
TABLE = {
    # params.yaml
    "no params.yaml": (remove("params.yaml"), PRETRAIN, "params.yaml"),
    "params.yaml is no YAML": (text("runs: [a, b"), PRETRAIN, "params.yaml, line"),
    "a key given twice": (text("fetch: []\nfetch: []\n"), PRETRAIN, '"fetch" is given twice'),
    "an empty params.yaml": (text(""), PRETRAIN, "params.yaml"),
    "an unknown section": (params("dataset", value={}), PRETRAIN, 'did you mean "datasets"'),
    "a misspelt key": (params("train", "bacth", value=3), PRETRAIN, 'did you mean "batch"'),
    "a missing key": (params("datasets", "tiny", value={"source": "scenes"}), SHARD, "datasets.tiny"),
    "a wrong type": (params("train", "lr", value="fast"), PRETRAIN, "train.lr"),
    "a negative rate": (params("train", "lr", value=-1.0), PRETRAIN, "train.lr"),
    "an unknown optimiser": (params("train", "optimizer", value="adam"), PRETRAIN, "train.optimizer"),
    "a budget below one batch": (params("train", "images", value=16), PRETRAIN, "train.images"),
    "an empty grid": (params("protocols", "knn", "k", value=[]), KNN, "protocols.knn.k"),
    "a run of another experiment": (params("runs", "quick-a", value={}), PRETRAIN, "runs.quick-a"),
    "the same seed twice": (run(seeds=[0, 0]), PRETRAIN, "seeds"),
    "an unknown method": (run(method="simclear"), PRETRAIN, 'did you mean "simclr"'),
    "an unknown argument": (run(method="simclr", args={"temprature": 1}), PRETRAIN, 'did you mean "temperature"'),
    "an unknown data set in a run": (run(data="tinny"), PRETRAIN, 'did you mean "tiny"'),
    "an unknown encoder": (run(encoder={"name": "resnet81"}), PRETRAIN, "resnet18"),
    "an encoder's unknown argument": (run(encoder={"name": "convnet", "widht": 4}), PRETRAIN, "widht"),
    "an encoder for another size": (run(encoder={**VIT, "size": 32}), PRETRAIN, "size"),
    "a command started in a subfolder": (lambda: (Path("sub").mkdir(), os.chdir("sub")), PRETRAIN, "run the command there"),
    "a merge conflict in dvc.lock": (file("dvc.lock", b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n"),
                                     ("experiment", "--save"), "git checkout --ours dvc.lock"),
    # names on the command line
    "nothing to tune": (None, ("tune",), "tiny has nothing to tune: bounds have no choice"),
    "a damaged table of trials": (file("data/results/tiny/tune.json", b'{"runs": {"a": 1}}'), ("tune",), "tune.json is damaged (runs.a"),
    "a run that is not there": (None, ("pretrain", "tiny-ranom"), 'did you mean "tiny-random"'),
    "a data set that is not there": (None, ("shard", "tin"), 'did you mean "tiny"'),
    "a protocol that is not there": (None, ("evaluate", "kmn", "tiny-random"), "kmn"),
    # sources
    "an unknown source": (params("datasets", "tiny", "source", value="scene"), SHARD, 'did you mean "scenes"'),
    "no such folder": (params("datasets", "tiny", value=FOLDER), SHARD, "pictures"),
    "a folder without images": (empty_folder, SHARD, "pictures"),
    "too many truncated images": (folder_of_truncated_jpegs, SHARD, "max_bad"),
    "a torn tar": (tars(torn=True), SHARD, "b.tar"),
    "labels that are no numbers": (tars(label=b"cat"), SHARD, "cat"),
    "a class that is called train": (pictures("bus/1.jpg", "train/2.jpg"), SHARD, "the folder train says train, but others"),
    "two folders of one split": (pictures("val/1.jpg", "valid/2.jpg"), SHARD, "val and valid both say val"),
    "a class folder that is a link": (pictures("bus/1.jpg", link="car"), SHARD, "where DVC does not look"),
    "a broken link": (lambda: (pictures("bus/1.jpg")(), Path("pictures/bus/2.jpg").symlink_to("nowhere")), SHARD,
                      "pictures/bus/2.jpg is a link to nothing"),
    "a class folder that is not UTF-8": (lambda: (pictures("bus/1.jpg")(), os.mkdir(b"pictures/caf\xe9")), SHARD, "not UTF-8"),
    "labels that are ids": (tars(label=b"9" * 15), SHARD, "ids rather than classes"),
    "a label of 5,000 digits": (tars(label=b"9" * 5000), SHARD, "5000 characters"),
    "a tar that says no split": (lambda: (tars()(), os.rename("tars/a.tar", "tars/train-a.tar")), SHARD, "tars/b.tar: nothing in"),
    "an unknown torchvision class": (
        params("datasets", "tiny", value={**FOLDER, "source": "torchvision", "dataset": "CIFAR01"}), SHARD, "CIFAR10"),
    "a remote tar that cannot be had": (
        params("datasets", "tiny", value={**TARS, "urls": "http://127.0.0.1:9/a.tar"}), SHARD, "127.0.0.1:9"),
    # shards
    "no shards": (remove(SHARDS), PRETRAIN, "dvc repro shard@tiny"),
    "a damaged card": (cut(f"{SHARDS}/card.json", 0.5), PRETRAIN, "card.json"),
    "a shard cut off": (lambda: (shutil.rmtree("data/cache"), cut(f"{SHARDS}/train-000000.tar", 0.5)()),
                        PRETRAIN, "train-000000.tar"),
    "a shard missing": (lambda: (shutil.rmtree("data/cache"), remove(f"{SHARDS}/train-000000.tar")()),
                        PRETRAIN, "train-000000.tar"),
    # training
    "a column that the data lacks": (digits_for_clip, PRETRAIN, "caption"),
    "a loss that is not finite": (run(method="rotation", train={"lr": 1e30, "clip": 0.0}), PRETRAIN, "train.lr"),
    "an encoder that cannot mask": (run(method="mae"), PRETRAIN, "vit"),
    "a batch of one": (run(method="jigsaw", args={"permutations": 4, "tile": 4}, train={"batch": 1}), PRETRAIN, "train.batch"),
    "a choice that is none": (params("encoder", "norm", value="bacth"), PRETRAIN, "encoder.norm should be 'batch' or 'group'"),
    "a truth value in quotes": (run(method="swav", args={"sinkhorn": "false"}), PRETRAIN, "args.sinkhorn should be a valid boolean"),
    "a temperature of 0": (run(method="moco", args={"temperature": 0}), PRETRAIN, "args.temperature should be greater than"),
    "a timm model too deep for the images": (run(method="rotation", encoder={"name": "vgg11"}), PRETRAIN, "16 pixels"),
    "a timm model's damaged argument": (run(encoder={"name": "test_resnet", "pretrained_cfg": {"url": "http://127.0.0.1:9/a.pth"}}),
                                        PRETRAIN, "pretrained_cfg"),
    "more clusters than images": (run(method="deepcluster", args={"clusters": 81}), PRETRAIN, "clusters"),
    # judging, report, tracking
    "no encoder": (remove(ENCODER), KNN, "dvc pull"),
    "a seed that was not trained": (run(seeds=[0, 1]), KNN, "seed 1"),
    "damaged weights": (cut(f"{ENCODER}/weights.safetensors", 0.5), KNN, "damaged"),
    "a damaged encoder.json": (file(f"{ENCODER}/encoder.json", b"{"), KNN, "damaged"),
    "zero-shot without a text encoder": (params("protocols", "zero_shot", "runs", value={"tiny-random": "tiny"}), ("evaluate", "zero_shot", "tiny-random"), "image_head"),
    "fine-tuning that diverges": (params("protocols", "finetune", value={**BUDGET, "lr": [1e30], "bootstrap": 10}),
                                  ("evaluate", "finetune", "tiny-random"), "diverges"),
    "more layers frozen than there are": (params("protocols", "finetune", value={**BUDGET, "freeze": [6], "bootstrap": 10}),
                                          ("evaluate", "finetune", "tiny-random"), "freeze: 6, and the encoder has 5 layers"),
    "a domain pair with other classes": (other_classes, ("evaluate", "adaptation", "tiny-random--other"), "other has other classes (car, duck)"),
    "classes that scenes do not have": (params("datasets", "tiny", value={**SCENES, "classes": ["cat", "duck"]}), SHARD,
                                        'scenes have no "cat"; did you mean "car"?'),
    "a judge that does not judge this run": (None, ("evaluate", "finetune", "tiny-random"), 'judges no "tiny-random"'),
    "a report before training": (remove(ENCODER), ("report",), "tiny-random"),
    "a result cut off": (cut("data/results/tiny/tiny-random/knn.json", 0.5), ("report",), "knn.json is damaged"),
    "a result that is no object": (file("data/results/tiny/tiny-random/knn.json", b"[1]"), ("report",),
                                   "knn.json is damaged"),
    "a history cut off": (file(f"{ENCODER}/history.jsonl", b'{"step": 1, "images": 32}\n{"step": 2, "ima'), ("report",),
                          "history.jsonl is damaged"),
    "a picture that is none": (file(f"{ENCODER}/pictures/views.png", b"%!PS-Adobe"), ("report",), "views.png is damaged"),
    "a dead MLflow server": (None, ("track",), "127.0.0.1:9"),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE)
def test_one_sentence_and_exit_status_1(row, good, tmp_path, monkeypatch, capfd):
    spoil, command, expected = TABLE[row]
    folder = tmp_path / "work"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(remote, "WAITS", (0.01,))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("SELFSUP_TRACKING", "on" if command == ("track",) else "off")
    threads = torch.get_num_threads()
    if spoil:
        spoil()
    before = {f: f.read_bytes() for f in folder.rglob("data/results/**/*") if f.is_file()}
    capfd.readouterr()
    assert script(*command) == 1
    errors = [line for line in capfd.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and expected in errors[0], errors
    assert {f: f.read_bytes() for f in before} == before
    torch.set_num_threads(threads)
