import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup import shards, sources
from selfsup.core import files
from selfsup.data import columns, images, tars
from selfsup.errors import UserError
from selfsup.shards import tally
from tests.data.making import encoded, folder_spec, image_folder, img2dataset, picture, tar_spec, write_tar


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def contents(folder, card, split):
    return [sample for entry in tars.entries_of(card, folder, split)
            for sample in tars.samples(folder, card, entry)]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 7)


# Bytes and card


@pytest.mark.parametrize("source", ["folder", "scenes"])
def test_same_bytes_again_and_with_more_workers(tmp_path, small_shards, source):
    spec = folder_spec(image_folder(tmp_path / "raw"))
    if source == "scenes":
        spec = dict(source="scenes", size=16, train=20, val=8, test=5, seed=3, max_bad=0)
    for name, workers in [("a", 1), ("b", 1), ("c", 2)]:
        shards.write("toy", spec, tmp_path / name, workers=workers)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c")
    assert len(digests(tmp_path / "a")) > 3


def test_any_webdataset_reader_opens_them(tmp_path, small_shards):
    webdataset = pytest.importorskip("webdataset")
    card = shards.write("toy", folder_spec(image_folder(tmp_path / "raw")), tmp_path / "out", workers=1)
    urls = [str(tmp_path / "out" / entry["file"]) for entry in card["shards"]["train"]]
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "cls", "__key__"))
    ours = contents(tmp_path / "out", card, "train")
    assert len(read) == card["counts"]["train"] == len(ours)
    for (pixels, label, key), sample in zip(read, ours):
        assert label == sample["label"] == ["cat", "dog"].index(key.split("/")[0])
        assert (pixels == images.decode(sample["image"], 8)).all()


def test_card(tmp_path, small_shards):
    out = tmp_path / "out"
    card = shards.write("toy", folder_spec(image_folder(tmp_path / "raw")), out, workers=2)
    assert card == json.loads((out / "card.json").read_text()) == tars.card_of(out)
    assert card["classes"] == ["cat", "dog"] and card["columns"] == ["image", "label"] and card["size"] == 8
    assert sum(card["counts"].values()) == 40 and min(card["counts"].values()) > 0
    for split, entries in card["shards"].items():
        assert sum(entry["count"] for entry in entries) == card["counts"][split] == len(contents(out, card, split))
    pixels = np.stack([images.decode(sample["image"], 8) for sample in contents(out, card, "train")]) / 255
    np.testing.assert_allclose(card["mean"], pixels.mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(card["std"], pixels.std((0, 1, 2)), atol=1e-12)


def test_the_hash_is_of_the_content(tmp_path):
    spec = folder_spec(image_folder(tmp_path / "raw"))
    first = shards.write("toy", spec, tmp_path / "a", workers=1)["hash"]
    assert shards.write("other name", spec, tmp_path / "b", workers=1)["hash"] == first
    (tmp_path / "raw" / "cat" / "000.png").write_bytes(encoded(picture(999)))
    assert shards.write("toy", spec, tmp_path / "c", workers=1)["hash"] != first


def test_splits_do_not_share_and_do_not_move(tmp_path):
    root = image_folder(tmp_path / "raw", 60)
    def split_of():
        shards.write("toy", folder_spec(root), tmp_path / "out", workers=1)
        return {key: path.name[:3] for path in sorted((tmp_path / "out").glob("*.tar"))
                for key, _ in tars.groups(path)}
    before = split_of()
    assert len(before) == 60
    image_folder(root, 90)
    after = split_of()
    assert len(after) == 90 and all(after[key] == split for key, split in before.items())


def test_captions_train_a_tokenizer(tmp_path):
    import selfsup.data

    spec = dict(source="scenes", size=16, train=60, val=8, test=5, seed=0, max_bad=0)
    card = shards.write("toy", spec, tmp_path / "out", workers=1)
    tokenizer = selfsup.data.tokenizer(tmp_path / "out")
    assert tokenizer.get_vocab_size() == card["vocabulary"] <= 1000
    caption = contents(tmp_path / "out", card, "train")[0]["caption"]
    ids = tokenizer.encode(caption).ids
    assert tokenizer.decode(ids).lower().split() == caption.lower().split()
    assert tokenizer.encode(caption.upper()).ids == ids and 0 not in ids and 3 not in ids  # no padding, nothing unknown
    short, long = tokenizer.encode_batch(["a mug", caption])
    assert len(short.ids) == len(long.ids) and short.ids[-1] == 0


# Bad samples


def test_unreadable_samples_are_skipped_counted_and_reported(tmp_path, capsys):
    root = image_folder(tmp_path / "raw", 100, kind="JPEG")
    whole = (root / "cat" / "000.jpeg").read_bytes()
    (root / "cat" / "000.jpeg").write_bytes(whole[:len(whole) // 2])  # ends within the tables before the pixels
    (root / "dog" / "001.jpeg").write_bytes(b"")
    (root / "dog" / "003.jpeg").write_text("no picture")
    (root / "stray.jpeg").write_bytes(whole)
    card = shards.write("toy", folder_spec(root, max_bad=0.05), tmp_path / "out", workers=1)
    assert sum(card["bad"].values()) == 4 and sum(card["counts"].values()) == 97
    text = capsys.readouterr().err
    assert "skipped 4 unreadable of 101 samples" in text
    for words in ["cat/000.jpeg: truncated", "dog/001.jpeg: empty file", "dog/003.jpeg: not an image",
                  "stray.jpeg: lies in no class folder"]:
        assert words in text.lower()

    with pytest.raises(UserError, match=r"4 of 101 samples are unreadable.*max_bad = 0.03.*jpeg"):
        shards.write("toy", folder_spec(root, max_bad=0.03), tmp_path / "fails", workers=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_a_class_that_training_lacks(tmp_path):
    image_folder(tmp_path / "raw" / "train")
    image_folder(tmp_path / "raw" / "test", 10, classes=("cat", "dgo"))
    with pytest.raises(UserError, match='"dgo" is not in the training split; did you mean "dog"'):
        shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)


def test_a_wrong_label(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    labels = [b"0", b"1", b"two", b"-1", b"", b"1\n"] + [b"1"] * 20
    write_tar(root / "a.tar", [(f"{i:03d}", {"png": encoded(picture(i)), "cls": label}) for i, label in enumerate(labels)])
    card = shards.write("toy", tar_spec(root, max_bad=0.2), tmp_path / "out", workers=1)
    assert sum(card["bad"].values()) == 2 and sum(card["counts"].values()) == 24 and card["classes"] == ["0", "1"]
    assert sum(card["unlabelled"].values()) == 1  # -1 is a missing label
    with pytest.raises(UserError, match="the label 'two' is not a number"):
        shards.write("toy", tar_spec(root), tmp_path / "out", workers=1)
    assert tars.card_of(tmp_path / "out") == card  # the failure left what was there


# Torn tars


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.999), gzipped=st.booleans())
def test_a_tar_cut_anywhere_is_noticed(tmp_path_factory, share, gzipped):
    import gzip

    folder = tmp_path_factory.mktemp("torn")
    path = folder / ("a.tar.gz" if gzipped else "a.tar")
    write_tar(folder / "whole.tar", [(f"{i:03d}", {"txt": b"x" * (i * 200), "cls": b"1"}) for i in range(12)])
    whole = (folder / "whole.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    data = gzip.compress(whole, mtime=0) if gzipped else whole
    path.write_bytes(data[:int((len(data) if gzipped else end) * share)])
    found = []
    with pytest.raises(tars.Torn):
        for key, group in tars.groups(path):
            found.append(key)
            assert group == {"txt": b"x" * (int(key) * 200), "cls": b"1"}
    assert found == [f"{i:03d}" for i in range(len(found))]


def test_garbage_in_a_tar_is_noticed(tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{i:03d}", {"txt": b"x" * 100}) for i in range(9)])
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[4 * 1024:4 * 1024 + 512] = b"?" * 512  # a header
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(tars.Torn, match="garbage"):
        list(tars.groups(tmp_path / "a.tar"))


def test_a_torn_tar_of_others_costs_its_rest(tmp_path, capsys):
    root = img2dataset(tmp_path / "raw", tars=4, each=25)
    whole = (root / "00002.tar").read_bytes()
    (root / "00002.tar").write_bytes(whole[:len(whole) * 4 // 5])
    with pytest.raises(UserError, match="00002.tar: torn tar"):
        shards.write("toy", tar_spec(root, max_bad=0.02), tmp_path / "out", workers=2)
    card = shards.write("toy", tar_spec(root, max_bad=0.2), tmp_path / "out", workers=2)
    counted, bad = sum(card["counts"].values()), sum(card["bad"].values())
    assert counted + bad == 100 and 3 < bad < 10 and "torn tar" in capsys.readouterr().err
    assert sum(len(contents(tmp_path / "out", card, split)) for split in sources.SPLITS) == counted


@pytest.mark.parametrize("harm, words", [
    (lambda path: path.write_bytes(path.read_bytes()[:path.stat().st_size // 2]), "is torn"),
    (lambda path: path.unlink(), "is missing"),
    (lambda path: path.write_bytes(path.read_bytes().replace(b"IHDR", b"IHER", 1)), "is damaged"),
    (lambda path: write_tar(path, []), "holds 0 samples where its card says"),
])
def test_our_own_shards_must_be_whole(tmp_path, harm, words):
    import selfsup.data

    card = shards.write("toy", folder_spec(image_folder(tmp_path / "raw")), tmp_path / "out", workers=1)
    harm(tmp_path / "out" / card["shards"]["train"][0]["file"])
    for reader in ("resident", "streaming"):
        with pytest.raises(UserError, match=f"train-000000.tar.* {words}.*dvc checkout"):
            split = selfsup.data.open(tmp_path / "out", "train", reader, cache=tmp_path / "cache")
            list(split.batches(0, 8, 80))


def test_no_member_is_written_to_disk(tmp_path):
    (tmp_path / "in").mkdir()
    png = encoded(picture(1))
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        for name in ["../../escaped", str(tmp_path.parent / "escaped"), "ok"]:
            member = tarfile.TarInfo(name + ".png")
            member.size = len(png)
            tar.addfile(member, io.BytesIO(png))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    assert [list(group) for _, group in tars.groups(tmp_path / "in" / "a.tar")] == [["png"]] * 3
    assert set(tmp_path.rglob("*")) == before and not (tmp_path.parent / "escaped.png").exists()


# Existing tars


def test_existing_tars_get_only_a_card(tmp_path):
    root = img2dataset(tmp_path / "raw", tars=3, each=20)
    out = tmp_path / "shards" / "toy"
    card = shards.write("toy", tar_spec(root, urls="{00000..00002}.tar"), out, workers=2)
    assert sorted(path.name for path in out.iterdir()) == [
        "card.json", "test.hashes.npy", "tokenizer.json", "train.hashes.npy", "val.hashes.npy"]
    assert card["columns"] == ["image", "caption"] and card["classes"] == []
    keys = [sample["caption"] for split in sources.SPLITS for sample in contents(out, card, split)]
    assert len(keys) == len(set(keys)) == 60 and min(card["counts"].values()) > 0
    pixels = np.stack([images.decode(sample["image"], 8) for sample in contents(out, card, "train")]) / 255
    np.testing.assert_allclose(card["mean"], pixels.mean((0, 1, 2)), atol=1e-12)
    assert card == shards.write("toy", tar_spec(root), out, workers=1)


def test_existing_tars_that_name_their_split(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    for split, count in [("train", 6), ("val", 3), ("test", 2)]:
        some = [(f"{i}", {"png": encoded(picture(i)), "cls": b"0"}) for i in range(count)]
        write_tar(root / f"{split}-000.tar", some)
    card = shards.write("toy", tar_spec(root, urls=["{train,val}-000.tar", "test-*.tar"]), tmp_path / "out", workers=1)
    assert card["counts"] == {"train": 6, "val": 3, "test": 2}
    (root / "extra.tar").write_bytes((root / "val-000.tar").read_bytes())
    with pytest.raises(UserError, match="extra.tar: nothing in its name or folder says train"):
        shards.write("toy", tar_spec(root), tmp_path / "out", workers=1)


def test_tars_over_http(tmp_path):
    import http.server
    import threading

    root = img2dataset(tmp_path / "raw", tars=2, each=10)
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(root))
        def log_message(self, *args):
            pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        card = shards.write("toy", tar_spec(root, urls=address + "/{00000..00001}.tar"), tmp_path / "out", workers=1)
        local = shards.write("toy", tar_spec(root), tmp_path / "local", workers=1)
        assert card["counts"] == local["counts"] and card["hash"] == local["hash"]
        assert contents(tmp_path / "out", card, "train") == contents(tmp_path / "local", local, "train")
        with pytest.raises(UserError, match="could not open .*missing.tar.*404"):
            shards.write("toy", tar_spec(root, urls=address + "/missing.tar"), tmp_path / "out", workers=1)
        server.shutdown()


# Interrupted and full


def test_a_killed_stage_leaves_nothing_half(tmp_path):
    spec = dict(source="scenes", size=32, train=60000, val=10, test=10, seed=0, max_bad=0)
    code = ("from selfsup import shards\n"
            f"shards.write('toy', {spec}, r'{tmp_path}/shards/toy', workers=2)")
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    partial = tmp_path / "shards" / ".toy.partial"
    deadline = time.time() + 60
    while not list(partial.glob("*.tar")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "shards" / "toy").exists()
    card = shards.write("toy", {**spec, "train": 10}, tmp_path / "shards" / "toy", workers=1)
    assert card["counts"]["train"] == 10
    assert os.listdir(tmp_path / "shards") == ["toy"] and len(os.listdir(tmp_path / "shards" / "toy")) == 8


def test_one_writer_at_a_time(tmp_path):
    with shards.replacing(tmp_path / "out"):
        with pytest.raises(UserError, match="another process is writing"):
            with shards.replacing(tmp_path / "out", patience=0):
                pass
    assert (tmp_path / "out").is_dir()


def test_a_full_disk_is_named(capsys):
    from selfsup.errors import main

    @main
    def run():
        with files.naming("a.tar"), open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(SystemExit):
        run()
    assert "the disk is full: could not write a.tar" in capsys.readouterr().err


def test_a_killed_worker_is_an_error_not_a_hang(tmp_path):
    def work(task):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="a worker process was killed"):
        list(tars.parallel(work, [1, 2, 3], "work", workers=2))


# The card


@pytest.mark.parametrize("harm, words", [
    (lambda out: (out / "card.json").unlink(), "no data card.*card.json; make it with `dvc repro shard@toy`"),
    (lambda out: (out / "card.json").write_text("{"), "card.json is damaged"),
    (lambda out: (out / "card.json").write_text("{}"), "card.json is damaged .size: Field required"),
])
def test_a_damaged_card(tmp_path, harm, words):
    import selfsup.data

    out = tmp_path / "toy"
    shards.write("toy", folder_spec(image_folder(tmp_path / "raw")), out, workers=1)
    harm(out)
    with pytest.raises(UserError, match=words):
        selfsup.data.open(out, "train")
    with pytest.raises(UserError, match='no such data set: .*toi; did you mean "toy"'):
        selfsup.data.open(tmp_path / "toi", "train")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 99))
def test_moments_are_exact(sizes, seed):
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (n, 3, 3), np.uint8) for n in sizes]
    mean, std = tally.moments(sum(tally.histogram(p.transpose(2, 0, 1)) for p in pictures))
    pixels = np.concatenate([p.reshape(-1, 3) for p in pictures]) / 255
    np.testing.assert_allclose(mean, pixels.mean(0), atol=1e-12)
    np.testing.assert_allclose(std, np.maximum(pixels.std(0), 1 / 255), atol=1e-12)


@pytest.mark.parametrize("carved", [True, False])
def test_an_image_more_changes_one_tar(tmp_path, monkeypatch, carved):
    monkeypatch.setattr(shards, "SHARD", 4)
    for split in () if carved else ("train", "val", "test"):
        image_folder(tmp_path / "raw" / split, 90)
    image_folder(tmp_path / "raw" if carved else tmp_path / "raw/train", 90)
    first = shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    before = digests(tmp_path / "out")
    assert 11 <= len(first["shards"]["train"]) <= 32 and min(first["counts"].values()) > 0
    assert max(entry["count"] for entry in first["shards"]["train"]) <= 12
    for i in range(900, 903):
        (tmp_path / "raw" / ("" if carved else "train") / f"cat/{i}.png").write_bytes(encoded(picture(i)))
        card = shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
        after = digests(tmp_path / "out")
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        split = next(iter(changed - {"card.json"})).split(".")[0].split("-")[0]
        assert len(changed) == 3 and changed > {"card.json", f"{split}.hashes.npy"}
        assert sum(card["counts"].values()) == sum(first["counts"].values()) + i - 899
        before = after
    monkeypatch.setattr(shards, "SHARD", 2)  # as if there were twice as many
    assert len(shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)["shards"]["train"]) > 20


def test_the_order_of_a_folder_does_not_depend_on_how_it_is_cut(tmp_path, monkeypatch):
    image_folder(tmp_path / "raw", 60)
    keys = []
    for size in (3, 7, 1000):
        monkeypatch.setattr(shards, "SHARD", size)
        card = shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
        keys.append([key for entry in card["shards"]["train"] for key, _ in tars.members(tmp_path / "out", entry)])
    assert keys[0] == keys[1] == keys[2]
