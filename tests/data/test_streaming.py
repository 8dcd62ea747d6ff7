import gzip
import json
import multiprocessing
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import selfsup.data as data
from selfsup import shards
from selfsup.data import streaming, streams, tars, workers
from selfsup.errors import UserError
from tests.data.making import encoded, img2dataset, picture, tar_spec, write_tar


def make(folder, train, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", size)
        spec = dict(source="scenes", size=8, train=train, val=9, test=7, seed=0, max_bad=0)
        shards.write("toy", spec, folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """8 shards of 6."""
    return make(tmp_path_factory.mktemp("even") / "toy", 48, 6)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """7 shards of 8 and one of 1."""
    return make(tmp_path_factory.mktemp("uneven") / "toy", 57, 8)


def opened(folder, split="train"):
    return data.open(folder, split, "streaming")


def join(batches):
    batches = list(batches)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def same(a, b):
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_samples_as_resident(uneven):
    resident = data.open(uneven, "train", "resident", cache=uneven.parent / "cache")
    split = opened(uneven)
    assert len(split) == 57 and split.columns == resident.columns
    stream = join(split.batches(0, 8, 160))
    same({**stream, "epoch": torch.zeros_like(stream["epoch"])},
         resident.take(stream["index"], torch.zeros_like(stream["epoch"])))
    for batch in (10, 100):
        same(join(split.in_order(batch)), join(resident.in_order(batch)))


@pytest.mark.parametrize("kind", ["even", "uneven"])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_one_global_order(request, kind, world, workers):
    split = opened(request.getfixturevalue(kind))
    whole = list(split.batches(3, 8, 120))
    ranks = [list(split.batches(3, 8, 120, rank, world, workers=workers)) for rank in range(world)]
    assert len(whole) == 15 and all(len(rank) == 15 for rank in ranks)
    for step, batches in enumerate(zip(*ranks)):
        same(join(batches), whole[step])


@pytest.mark.parametrize("block", [4, 1000])
def test_every_sample_once_an_epoch(even, block, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", block)
    stream = join(opened(even).batches(1, 16, 48 * 3))  # 8 lanes, 8 equal shards
    assert stream["epoch"].tolist() == [0] * 48 + [1] * 48 + [2] * 48
    orders = stream["index"].view(3, 48)
    assert (orders.sort(1).values == torch.arange(48)).all()
    assert not torch.equal(orders[0], orders[1])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), batch=st.sampled_from([1, 2, 3, 4, 8, 12]), steps=st.integers(1, 60))
def test_uneven_shards_repeat_no_sample_within_an_epoch(uneven, seed, batch, steps):
    stream = join(opened(uneven).batches(seed, batch, batch * steps))
    pairs = list(zip(stream["epoch"].tolist(), stream["index"].tolist()))
    assert len(pairs) == len(set(pairs)) == batch * steps


def test_uneven_shards_leave_no_sample_out(uneven):
    stream = join(opened(uneven).batches(2, 8, 57 * 10))
    for epoch in range(6):  # the lanes are not all in the same epoch, but none is far behind
        assert sorted(stream["index"][stream["epoch"] == epoch].tolist()) == list(range(57))


@settings(max_examples=8, deadline=None)
@given(start=st.integers(0, 30), block=st.sampled_from([3, 1000]))
def test_a_later_start_is_the_tail(uneven, start, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BLOCK", block)
        split = opened(uneven)
        whole = list(split.batches(3, 8, 240))
        tail = list(split.batches(3, 8, 240, start=start))
        assert len(tail) == 30 - start
        for a, b in zip(tail, whole[start:]):
            same(a, b)


def test_a_later_start_with_workers(uneven):
    split = opened(uneven)
    same(join(split.batches(3, 8, 160, start=7, workers=2)), join(list(split.batches(3, 8, 160))[7:]))


def _train(folder, rank, store, queue):
    torch.set_num_threads(1)
    group = torch.distributed.FileStore(store, 2)
    torch.distributed.init_process_group("gloo", store=group, rank=rank, world_size=2)
    total = torch.zeros(())
    for batch in opened(folder).batches(0, 8, 400, rank, 2):
        seen = torch.tensor(len(batch["index"]))
        torch.distributed.all_reduce(seen)  # hangs for ever if the other rank has run out of batches
        total += seen
    queue.put((rank, int(total)))
    torch.distributed.destroy_process_group()


def test_uneven_shards_do_not_hang(uneven, tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_train, args=(uneven, rank, str(tmp_path / "store"), queue), daemon=True)
                 for rank in range(2)]
    for process in processes:
        process.start()
    assert sorted(queue.get(timeout=120) for _ in processes) == [(0, 400), (1, 400)]
    for process in processes:
        process.join(60)


def test_lanes(even):
    split = opened(even)
    assert [split.lanes(batch, 1) for batch in (1, 6, 7, 16, 256)] == [1, 6, 7, 8, 8]
    assert split.lanes(8, 2) == split.lanes(8, 4) == split.lanes(8, 1) == 8
    assert split.lanes(12, 4) == 4  # alone it would take 6
    with pytest.raises(UserError, match="has 8 shards in train: too few to stream a batch of 32 to 16 processes"):
        list(split.batches(0, 32, 64, world=16))


def test_an_error_in_a_worker_stays_one_sentence(uneven, tmp_path):
    shutil.copytree(uneven, tmp_path / "toy")
    path = tmp_path / "toy" / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="^the shard .*train-000002.tar is torn .*dvc checkout.*shard@toy`$"):
        list(opened(tmp_path / "toy").batches(0, 8, 160, workers=2))


def test_existing_tars_with_bad_samples(tmp_path):
    root = img2dataset(tmp_path / "raw", tars=3, each=20)
    write_tar(root / "00001.tar", [(f"x{i}", {"jpg": encoded(picture(1000 + i), "JPEG") if i % 5 else b"bad", "txt": b"a b"})
                                   for i in range(20)])
    card = shards.write("toy", tar_spec(root, max_bad=0.1), tmp_path / "out", workers=1)
    assert sum(card["bad"].values()) == 4 and sum(card["counts"].values()) == 56
    resident = data.open(tmp_path / "out", "train", "resident", cache=tmp_path / "cache")
    split = opened(tmp_path / "out")
    same(join(split.in_order()), join(resident.in_order()))
    stream = join(split.batches(0, 4, 2 * len(split)))
    assert torch.equal(stream["image"], resident.values["image"][stream["index"]])


def test_the_size_decides(even, tmp_path):
    huge = tmp_path / "huge"
    huge.mkdir()
    card = json.loads((even / "card.json").read_text())
    schema = {"image": {**card["schema"]["image"], "shape": [3, 10**6, 10**6]}}
    (huge / "card.json").write_text(json.dumps({**card, "columns": ["image"], "schema": schema}))
    assert data.open(huge, "train", cache=tmp_path).reader == "streaming"
    assert data.open(even, "train", cache=tmp_path).reader == "resident"


@pytest.mark.parametrize("gzipped", [False, True])
def test_no_step_waits_for_a_whole_block(even, tmp_path, monkeypatch, gzipped):
    """Blocks all end at the same step; read when they are wanted, it would read 48 samples and the others none."""
    if gzipped:
        card = json.loads((even / "card.json").read_text())
        for entry in card["shards"]["train"]:
            (tmp_path / f"{entry['file']}.gz").write_bytes(gzip.compress((even / entry["file"]).read_bytes()))
            entry["file"] += ".gz"
        (tmp_path / "card.json").write_text(json.dumps(card))
    read, members = [], tars.members

    def counted(*args, **options):
        for each in members(*args, **options):
            read.append(each)
            yield each

    monkeypatch.setattr(tars, "members", counted)
    batches, each = opened(tmp_path if gzipped else even).batches(1, 8, 48 * 3), []
    for _ in batches:
        each.append(len(read))
        read.clear()
    assert each == [48] + [8] * 17


def test_of_a_local_tar_only_what_is_handed_out_is_read(even, monkeypatch):
    sizes, read = [], streams.Piece.read
    monkeypatch.setattr(streams.Piece, "read", lambda piece: sizes.append(piece.size) or read(piece))
    split = data.open(even, "train", "streaming", columns=["image"])
    next(split.batches(1, 8, 48))
    assert len(sizes) == 8


def test_a_tar_that_is_cut_while_it_is_read(even, tmp_path):
    shutil.copytree(even, tmp_path / "toy")
    batches = opened(tmp_path / "toy").batches(1, 8, 48)
    next(batches)
    for path in (tmp_path / "toy").glob("train*.tar"):
        os.truncate(path, 600)
    with pytest.raises(UserError, match="^the shard .*train-00000.*tar is torn [(]unexpected end of data[)].*checkout"):
        next(batches)


def test_the_workers_that_auto_stands_for(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [workers.chosen("auto", *where) for where in ((True, "cuda"), (True, "cpu"), (False, "cuda"))] == [8, 0, 0]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert workers.chosen("auto", True, "cuda") == 1
    assert workers.chosen(3, False, "cpu") == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is no GPU torch refuses to pin, which is seen here")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned_where_asked(even, workers):
    with pytest.raises(RuntimeError, match="[Pp]in|accelerator|driver"):
        next(opened(even).batches(1, 8, 48, workers=workers, pin=True))
