"""`selfsup train`: an experiment on one's own folder from one command."""

import shutil
from pathlib import Path

import pytest

from selfsup import cli, config, own
from selfsup.config import compose
from selfsup.errors import UserError
from tests.data.making import image_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout's configuration and, beside it, two folders of pictures."""
    top = tmp_path / "top"
    shutil.copytree(ROOT / "conf", top / "conf")
    shutil.copy(ROOT / "dvc.yaml", top)
    image_folder(tmp_path / "My Photos", 12)
    image_folder(top / "labelled", 12)
    monkeypatch.chdir(top)
    return top


def composed(name):
    compose.write("params.yaml", "conf", f"experiment={name}")
    params = config.load("params.yaml")
    config.check(params)
    return params


def test_it_is_an_experiment_like_those_that_are_there(checkout):
    name = own.write(Path("../My Photos"), "simclr", "resnet18", 4096, 32)
    assert name == "my_photos" and own.write(Path("../My Photos"), "simclr", "resnet18", 4096, 32) == name
    params = composed(name)
    assert list(params.runs) == ["my_photos-random", "my_photos-simclr"]
    run = params.runs["my_photos-simclr"]
    assert run.encoder["name"] == "resnet18" and run.train.images == 4096 and run.seeds == [0]
    assert params.datasets[name].size == 32 and params.datasets[name].root == str((checkout / "../My Photos").resolve())
    with pytest.raises(UserError, match="my_photos.yaml is there, with another content: run it by `make experiment E=my_photos`"):
        own.write(Path("../My Photos"), "simclr", "resnet18", 8192, 32)


def test_it_is_judged_on_the_folder_that_has_labels(checkout):
    params = composed(own.write(Path("../My Photos"), "mae", "vit", None, 32, Path("labelled")))
    assert params.datasets["my_photos_judge"].root == "labelled"
    for protocol in ("knn", "linear"):
        judged = config.protocol(params, protocol)
        assert params.protocols[protocol].runs == dict.fromkeys(params.runs, "my_photos_judge"), judged


@pytest.mark.parametrize("words, said", [
    (["../My Photo", "--method", "simclr"], 'no such folder: ../My Photo'),
    (["../My Photos", "--method", "simclir"], 'there is no method "simclir"; did you mean "simclr"'),
    (["../My Photos", "--method", "clip"], "method clip also reads caption, which a folder of images does not have"),
    (["../My Photos", "--method", "simclr", "--encoder", "resnet81"], "unknown network 'resnet81'"),
    (["../My Photos", "--method", "simclr", "--images", "0"], "--images should be at least 1, not 0"),
    (["../My Photos", "--method", "simclr", "--judge", "labeled"], 'no such folder: labeled; did you mean "labelled"'),
])
def test_mistakes_are_a_sentence_and_no_file(checkout, words, said, capsys):
    before = sorted(Path("conf/experiment").iterdir())
    with pytest.raises(SystemExit):
        cli.main(["train", *words])
    assert said in capsys.readouterr().err and sorted(Path("conf/experiment").iterdir()) == before


def test_elsewhere_than_in_a_checkout_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run this in the top folder of a checkout"):
        own.write(tmp_path, "simclr", None, None, 32)
