"""What is written is whole or not there: full disks, damaged checkpoints."""

import contextlib
import os
import random
import resource
from pathlib import Path

import pytest
import torch

from selfsup import encoder, errors, nets, shards
from selfsup.core import files
from selfsup.training.checkpoint import Checkpoint, Progress
from tests.data.making import folder_spec, image_folder


@contextlib.contextmanager
def at_most(size):
    """Files of this process, and of those that it starts, may have so many bytes: writes beyond fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def checkpoint(folder):
    torch.manual_seed(0)
    net = torch.nn.Linear(300, 50)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(3, 300)).sum().backward()
    optimizer.step()
    return Checkpoint(folder, net, optimizer, 0, True)


def encoder_folder(folder):
    encoder.save(folder / "encoder", {"encoder": nets.build("convnet", width=8, card={})}, {})


def picture_folder(folder):
    shards.write("toy", folder_spec(Path(os.environ["TOY"])), folder / "out", workers=1)


def cache(folder):
    import selfsup.data

    selfsup.data.open(os.environ["TOY_SHARDS"], "train", "resident", cache=folder)


WRITES = {
    "a checkpoint": (lambda folder: checkpoint(folder).save(Progress()), 20_000, "checkpoint.pt"),
    "an encoder": (encoder_folder, 2_000, "weights.safetensors"),
    "a shard": (picture_folder, 2_000, "train-000000.tar"),
    "a cache": (cache, 1_000, "image.npy"),
    "a small file": (lambda folder: files.write(folder / "knn.json", "x" * 5000), 100, "knn.json"),
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    shards.write("toy", folder_spec(image_folder(folder / "raw")), folder / "shards", workers=1)
    return folder


@pytest.mark.parametrize("what", WRITES)
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(what, toy, tmp_path, monkeypatch, capsys):
    write, size, name = WRITES[what]
    monkeypatch.setenv("TOY", str(toy / "raw"))
    monkeypatch.setenv("TOY_SHARDS", str(toy / "shards"))
    with pytest.raises(SystemExit) as stop, at_most(size):
        errors.main(write)(tmp_path)
    assert stop.value.code == 1
    line, = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "could not write" in line and name in line
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not left
    write(tmp_path)  # with room again
    assert next(tmp_path.rglob(name))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    saved = checkpoint(tmp_path)
    saved.save(Progress(step=3))
    with pytest.raises(OSError, match="checkpoint.pt"), at_most(20_000):
        saved.save(Progress(step=4))
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and saved.load("cpu").step == 3


def flipped(data, bit):
    return data[:bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1:]


@pytest.mark.parametrize("harm", [
    lambda data: data[:len(data) // 2], lambda data: data[:-1], lambda data: b"", lambda data: b"garbage" * 99,
    lambda data: flipped(data, 8 * (len(data) // 2)),
])
def test_a_damaged_checkpoint_is_set_aside(tmp_path, capsys, harm):
    saved = checkpoint(tmp_path)
    saved.save(Progress(step=3))
    saved.path.write_bytes(harm(saved.path.read_bytes()))
    assert saved.load("cpu") == Progress()
    assert "checkpoint.pt is damaged" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["checkpoint.damaged"]


def test_a_flipped_bit_never_gives_other_numbers(tmp_path, capsys):
    saved = checkpoint(tmp_path)
    saved.save(Progress(step=3, seconds=1.5, history=[{"loss": 2.5}]))
    whole, weights = saved.path.read_bytes(), {name: value.clone() for name, value in saved.method.state_dict().items()}
    draw = random.Random(0)
    # Half of them where the weights are not: in what describes them.
    places = [draw.randrange(8 * len(whole)) for _ in range(40)] + [-8 * draw.randrange(1, 1500) for _ in range(40)]
    for place in places:
        saved.path.write_bytes(flipped(whole, place % (8 * len(whole))))
        progress = saved.load("cpu")
        if progress.step:
            assert progress == Progress(step=3, seconds=1.5, history=[{"loss": 2.5}]), place
            assert all(torch.equal(value, weights[name]) for name, value in saved.method.state_dict().items()), place


def test_a_name_that_is_no_utf8_can_be_written(tmp_path):
    """As a class folder's, which Python holds with surrogates: the report is written after all the work."""
    files.write(tmp_path / "report.html", "caf" + os.fsdecode(b"\xe9"))
    assert (tmp_path / "report.html").read_text() == "caf\\udce9"


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        encoder_folder(tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "encoder").iterdir()} == {0o644}
