import multiprocessing
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import selfsup.data as data
from selfsup.core import rng
from selfsup import shards
from selfsup.data import images, resident, tars
from selfsup.errors import UserError
from tests.data.making import folder_spec, image_folder, img2dataset, tar_spec

SPEC = dict(source="scenes", size=16, train=53, val=9, test=7, seed=0, max_bad=0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Shards of 53 captioned training images, in eight tars."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 7)
        shards.write("toy", SPEC, folder, workers=1)
    return folder


def opened(toy, split="train"):
    return data.open(toy, split, "resident", cache=toy.parent / "cache")


def join(batches):
    batches = list(batches)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_a_split_holds(toy):
    split = opened(toy)
    read = [sample for entry in split.entries for sample in tars.samples(toy, split.card, entry)]
    assert len(split) == len(read) == 53 and split.columns == ["image", "label", "caption"]
    assert split.values["image"].dtype == torch.uint8 and split.values["image"].shape == (53, 3, 16, 16)
    assert split.values["label"].tolist() == [sample["label"] for sample in read]
    assert split.values["label"].dtype == torch.int64
    for pixels, sample in zip(split.values["image"], read):
        assert (pixels.permute(1, 2, 0).numpy() == images.decode(sample["image"], 16)).all()
    decoded = [split.tokenizer.decode(row.tolist()) for row in split.values["caption"]]
    assert decoded == [sample["caption"].lower() for sample in read]
    assert split.values["caption"].shape == (53, split.card["caption_length"])
    batch = next(split.batches(0, 4, 100))
    assert {name: (x.dtype, tuple(x.shape)) for name, x in batch.items()} == {
        "image": (torch.uint8, (4, 3, 16, 16)), "label": (torch.int64, (4,)), "index": (torch.int64, (4,)),
        "caption": (torch.int64, (4, split.card["caption_length"])), "epoch": (torch.int64, (4,))}


def test_the_global_order_is_the_contract(toy):
    split = opened(toy)
    stream = join(split.batches(5, 8, 3 * 53 + 5))
    for p in range(len(stream["index"])):
        epoch = p // 53
        assert stream["epoch"][p] == epoch and stream["index"][p] == rng.permutation(53, 5, epoch)[p % 53]
    assert torch.equal(stream["image"], split.values["image"][stream["index"]])
    assert torch.equal(stream["label"], split.values["label"][stream["index"]])
    assert torch.equal(stream["caption"], split.values["caption"][stream["index"]])
    assert len(stream["index"]) == (3 * 53 + 5) // 8 * 8


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), share=st.integers(1, 60), world=st.integers(1, 4), images=st.integers(0, 300))
def test_ranks_share_one_global_batch(toy, seed, share, world, images):
    split, batch = opened(toy), share * world
    whole = list(split.batches(seed, batch, images))
    ranks = [list(split.batches(seed, batch, images, rank, world)) for rank in range(world)]
    assert len(whole) == images // batch and all(len(rank) == len(whole) for rank in ranks)
    for step, batches in enumerate(zip(*ranks)):
        same(join(batches), whole[step])


@pytest.mark.parametrize("world", [1, 2])
def test_workers_change_nothing(toy, world):
    split = opened(toy)
    for rank in range(world):
        without = join(split.batches(1, 8, 200, rank, world))
        same(join(split.batches(1, 8, 200, rank, world, workers=2)), without)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), batch=st.integers(1, 70))
def test_every_sample_once_an_epoch(toy, seed, batch):
    stream = join(opened(toy).batches(seed, batch, 4 * 53 + batch))
    for epoch in range(4):
        assert sorted(stream["index"][stream["epoch"] == epoch].tolist()) == list(range(53))
    assert not torch.equal(stream["index"][:53], stream["index"][53:106])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_later_start_is_the_tail(toy, workers):
    split = opened(toy)
    whole = list(split.batches(3, 8, 160))
    for start in (0, 1, 7, 19, 20):
        tail = list(split.batches(3, 8, 160, start=start, workers=workers))
        assert len(tail) == 20 - start
        for a, b in zip(tail, whole[start:]):
            same(a, b)


def test_in_order(toy):
    split = opened(toy)
    for batch in (7, 53, 500):
        assert join(split.in_order(batch))["index"].tolist() == list(range(53))
    assert torch.equal(join(split.in_order(7))["image"], split.values["image"])


def test_decoded_once(toy, tmp_path):
    cache = tmp_path / "cache"
    first = data.open(toy, "val", "resident", cache=cache)
    folders = sorted(cache.glob("*/"))
    stamp = [path.stat().st_mtime_ns for path in sorted(cache.rglob("*.npy"))]
    second = data.open(toy, "val", "resident", cache=cache)
    assert torch.equal(first.values["image"], second.values["image"]) and sorted(cache.glob("*/")) == folders
    assert [path.stat().st_mtime_ns for path in sorted(cache.rglob("*.npy"))] == stamp
    first.values["image"][0] = 0  # a copy of this process alone
    assert torch.equal(data.open(toy, "val", "resident", cache=cache).values["image"], second.values["image"])
    data.open(toy, "test", "resident", cache=cache)
    assert len(list(cache.glob("*.lock"))) == 2


def _open_and_tell(toy, cache, queue):
    torch.set_num_threads(1)
    queue.put((os.getpid(), int(data.open(toy, "train", "resident", cache=cache).values["image"].sum())))


def test_two_processes_decode_once(toy, tmp_path, monkeypatch):
    """Each decoding process leaves a file named after it."""
    original = resident._fill

    def counted(*args):
        (tmp_path / f"decoded-{os.getpid()}").touch()
        original(*args)

    monkeypatch.setattr(resident, "_fill", counted)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_open_and_tell, args=(toy, tmp_path / "cache", queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({total for _, total in found}) == 1 and len(list(tmp_path.glob("decoded-*"))) == 1


def test_a_failed_decoding_leaves_no_cache(toy, tmp_path):
    import shutil

    harmed = tmp_path / "toy"
    shutil.copytree(toy, harmed)
    path = harmed / "train-000003.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="train-000003.tar is torn.*dvc repro shard@toy"):
        data.open(harmed, "train", "resident", cache=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_memory_is_flat_over_epochs(toy):
    psutil = pytest.importorskip("psutil")
    split, process = opened(toy), psutil.Process()

    def run(epochs):
        for _ in split.batches(0, 8, 53 * epochs):
            pass
        return process.memory_info().rss

    before = run(20)
    assert run(200) - before < 4 << 20


def test_errors(toy):
    split = opened(toy)
    with pytest.raises(UserError, match="10 images cannot be split evenly over 3 processes"):
        split.batches(0, 10, 100, world=3)
    with pytest.raises(UserError, match='no split "tets"; did you mean "test"'):
        opened(toy, "tets")
    with pytest.raises(UserError, match='no reader "residnet"; did you mean "resident"'):
        data.open(toy, "train", "residnet")


def test_an_empty_split(tmp_path):
    shards.write("toy", folder_spec(image_folder(tmp_path / "raw"), val_share=0), tmp_path / "out", workers=1)
    with pytest.raises(UserError, match='the split "val" of .*out is empty'):
        data.open(tmp_path / "out", "val", cache=tmp_path)


def test_unlabelled(tmp_path):
    root = img2dataset(tmp_path / "raw", tars=2, each=20)
    shards.write("toy", tar_spec(root), tmp_path / "out", workers=1)
    split = data.open(tmp_path / "out", "train", cache=tmp_path / "cache")
    assert split.reader == "resident" and "label" not in split.values and set(next(split.in_order())) == {
        "image", "index", "epoch", "caption"}
    assert len(split.values["caption"].unique(dim=0)) == len(split)


def test_uint8_means_what_the_card_says(toy):
    split = opened(toy)
    mean = (split.values["image"] / 255).double().mean((0, 2, 3))
    np.testing.assert_allclose(mean.numpy(), split.card["mean"], atol=1e-6)


def _flip(data):
    return data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]


@pytest.mark.parametrize("name", ["image.npy", "image.crc"])
@pytest.mark.parametrize("harm", [_flip, lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_a_damaged_cache_is_made_again(toy, tmp_path, capsys, name, harm, monkeypatch):
    monkeypatch.setattr(resident, "BLOCK", 1 << 10)
    whole = {name: value.clone() for name, value in data.open(toy, "train", cache=tmp_path).values.items()}
    file, = tmp_path.glob(f"*/{name}")
    content = file.read_bytes()
    file.write_bytes(harm(content if len(content) > 2000 else content + bytes(2001)))
    again = data.open(toy, "train", "resident", cache=tmp_path).values
    same(again, whole)
    assert file.read_bytes() == content
    assert "image.npy is damaged: it is made again" in capsys.readouterr().err
    data.open(toy, "train", "resident", cache=tmp_path)
    assert "damaged" not in capsys.readouterr().err


def test_a_split_is_held_by_a_device_where_it_is_a_quarter_of_its_memory(toy):
    split = opened(toy)
    images = split.values["image"]
    split.hold(torch.device("meta"), 4 * sum(value.nbytes for value in split.values.values()) - 1)
    assert split.values["image"] is images
    split.hold(torch.device("meta"), 4 * sum(value.nbytes for value in split.values.values()))
    batch = next(iter(split.batches(0, 4, 8)))
    assert {value.device.type for value in batch.values()} == {"meta"}
    assert batch["image"].shape == (4, *images.shape[1:]) and batch["index"].shape == batch["epoch"].shape == (4,)
