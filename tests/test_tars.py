"""Existing tars as people have them: a sample is read or bad with its reason, or the tar is refused with the cause."""

import bz2
import io
import json
import lzma
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup import data, shards, sources
from selfsup.data import tars
from selfsup.errors import UserError
from tests.data.making import encoded, folder_spec, picture, tar_spec, write_tar


def png(i):
    return encoded(picture(i))


def written(folder, *samples, name="a.tar", **changes):
    """The card of one tar of samples, which are (key, {extension: bytes})."""
    (folder / "raw").mkdir(exist_ok=True)
    write_tar(folder / "raw" / name, samples)
    return shards.write("toy", tar_spec(folder / "raw", **changes), folder / "out", workers=1)


@settings(max_examples=300, deadline=None)
@given(name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120),
       size=st.integers(0, 9 * 2**30), kind=st.sampled_from([b"0", b"\0", b"5", b"2", b"x", b"S"]),
       form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT]),
       change=st.none() | st.tuples(st.integers(0, 511), st.integers(0, 255)), sums=st.booleans())
def test_a_header_is_read_as_tarfile_reads_it(name, size, kind, form, change, sums):
    """The quick way for plain files; also where a byte is another one, and the checksum then right or not."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    try:
        header = bytearray(member.tobuf(form)[-512:])
    except ValueError:  # too long or too large for this format
        return
    if change:
        header[change[0]] = change[1]
        if sums:
            header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]

    def told(kind):
        try:
            found = kind.frombuf(bytes(header), "utf-8", "surrogateescape")
        except Exception as error:
            return type(error)
        return found.name, found.size, found.type, found.isreg(), found.issparse()

    assert told(tars._Member) == told(tarfile.TarInfo)


# Columns


def test_columns_are_those_of_any_sample(tmp_path):
    beside = [{"cls": b"%d" % (i % 2), "txt": b"words"} if i else {} for i in range(60)]
    some = [(f"{i:03d}", {"png": png(i), **beside[i]}) for i in range(60)]
    with pytest.raises(UserError, match="1 of 60 samples are unreadable.*a.tar: 000: no label among the members png"):
        written(tmp_path, *some)
    card = written(tmp_path, *some, max_bad=0.05)
    assert card["columns"] == ["image", "label", "caption"] and sum(card["counts"].values()) == 59
    card = written(tmp_path, *some, columns=["image"])
    assert card["columns"] == ["image"] and sum(card["counts"].values()) == 60


def test_labels_in_json(tmp_path):
    some = [(f"{i:03d}", {"png": png(i), "txt": b"words", "json": json.dumps({"key": i, "label": i % 3}).encode()})
            for i in range(40)]
    card = written(tmp_path, *some)
    assert card["columns"] == ["image", "label", "caption"] and card["classes"] == ["0", "1", "2"]
    for reader in ("resident", "streaming"):
        split = data.open(tmp_path / "out", "train", reader, cache=tmp_path / "cache", columns=["label"])
        keys = [int(key) for entry in split.entries for key, _ in tars.members(split.folder, entry)]
        assert [label for part in split.in_order() for label in part["label"].tolist()] == [key % 3 for key in keys]
    text = [(key, {**group, "json": b'{"label": "cat"}'}) for key, group in some]
    with pytest.raises(UserError, match="the label 'cat' is not a number"):
        written(tmp_path, *text)
    for nothing in (b"{}", b"[1]", b"no json", b'{"label": null}', b"[" * 9999):
        card = written(tmp_path, *[(key, {**group, "json": nothing}) for key, group in some])
        assert card["columns"] == ["image", "caption"]


def test_labels_of_every_kind(tmp_path):
    labels = [b"-2", b"9" * 5000, b"two", b"1.0", b"9" * 19] + [b"%d" % (i % 3 - 1) for i in range(35)]
    some = [(f"{i:03d}", {"png": png(i), "cls": label}) for i, label in enumerate(labels)]
    card = written(tmp_path, *some, max_bad=0.2)
    assert sum(card["bad"].values()) == 5 and sum(card["counts"].values()) == 35 and card["classes"] == ["0", "1"]
    for sample, words in zip(some, ["'-2' is negative [(]-1 means", "has 5000 characters", "'two' is not a number",
                                    "'1.0' is not a number", "has 19 characters"]):
        with pytest.raises(UserError, match=words):
            written(tmp_path, sample, *some[5:])


# Members


@pytest.mark.parametrize("samples, words", [
    ([("a", {"png": png(0), "cls": b"0"}), ("a", {"png": png(1), "cls": b"1"})],
     "a.tar: a.png is there twice, so that one sample would overwrite another"),
    ([("a", {"png": png(0)}), ("b", {"png": png(1)}), ("a", {"cls": b"0"}), ("b", {"cls": b"1"})],
     "the members of a do not stand side by side.*tar --sort=name"),
    ([("a", {"cls": b"0"}), ("b", {"cls": b"1"}), ("a", {"png": png(0)}), ("b", {"png": png(1)})],
     "the members of a do not stand side by side"),
    ([("img.v2.1", {"png": png(0), "cls": b"0"}), ("img.v2.2", {"png": png(1), "cls": b"1"})],
     "no images.*the first sample has the members v2.1.png, v2.1.cls, v2.2.png, v2.2.cls [(]the key ends at the first"),
    ([("a", {"heic": b"x", "cls": b"0"})], "no images in .*the first sample has the members heic, cls"),
])
def test_what_webdataset_would_not_read_is_told_with_its_cause(tmp_path, samples, words):
    with pytest.raises(UserError, match=words):
        written(tmp_path, *samples)


def test_what_is_passed_over_is_named(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    for name in ("empty.tar", "z.tar"):
        write_tar(tmp_path / "raw" / name, [])
    (tmp_path / "raw/notes.md").write_text("x")
    with tarfile.open(tmp_path / "raw/a.tar", "w") as tar:
        for i in range(40):
            for name, content in ((f"./._{i:03d}.png", b"AppleDouble"), (f"./{i:03d}.png", png(i))):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "./000.png"
        tar.addfile(link)
    card = shards.write("toy", tar_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    assert sum(card["counts"].values()) == 40
    assert ("toy: skipped: 1 file ending in .md that urls does not name; "
            "40 members of hidden names or without an ending; "
            "1 link or special file; 2 tars without a sample\n") in capsys.readouterr().err


@pytest.mark.parametrize("pack, words", [(lzma.compress, "compressed by xz"), (bz2.compress, "compressed by bzip2"),
                                         (lambda raw: b"\x28\xb5\x2f\xfd" + raw, "compressed by zstd"),
                                         (lambda raw: b"PK\x03\x04" + raw, "a zip")])
def test_other_compressions_are_named(tmp_path, pack, words):
    (tmp_path / "raw").mkdir()
    write_tar(tmp_path / "whole.tar", [("a", {"png": png(0)})])
    (tmp_path / "raw/a.tar.xz").write_bytes(pack((tmp_path / "whole.tar").read_bytes()))
    with pytest.raises(UserError, match=f"a.tar.xz is {words}, which is not read: make it a plain .tar"):
        shards.write("toy", tar_spec(tmp_path / "raw", urls="*"), tmp_path / "out", workers=1)


def hostile(headers, count=1):
    """A member whose PAX header is nonsense, or that has `count` of them."""
    one = tarfile.TarInfo._create_pax_generic_header(headers, tarfile.XHDTYPE, "utf-8")
    return one * count + tarfile.TarInfo("b.png").tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("evil, words", [
    (hostile({"GNU.sparse.map": "a,b,c"}), "skipped: 1 link or special file"),
    (hostile({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"}), "1 link or special file"),
    (hostile({"size": "-512"}), "b.tar: torn tar"), (hostile({"path": "x" * 9}, 1000), "b.tar: torn tar")])
def test_hostile_headers_cost_no_more_than_the_rest_of_their_tar(tmp_path, capsys, evil, words):
    (tmp_path / "raw").mkdir()
    for name, first in (("a", 0), ("b", 40)):
        write_tar(tmp_path / f"raw/{name}.tar", [(f"{i:03d}", {"png": png(i)}) for i in range(first, first + 40)])
    whole = (tmp_path / "raw/b.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "raw/b.tar").write_bytes(whole + bytes(-len(whole) % 512) + evil + bytes(10240))
    spec = tar_spec(tmp_path / "raw", val_share=0.0, test_share=0.0, max_bad=0.1)
    card = shards.write("toy", spec, tmp_path / "out", workers=1)
    assert card["counts"]["train"] >= 79 and card["bad"]["train"] <= 2 and words in capsys.readouterr().err


# Classes


def test_class_names_from_a_file_beside_the_tars(tmp_path):
    some = [(f"{i:03d}", {"png": png(i), "cls": b"%d" % (i % 3)}) for i in range(40)]
    (tmp_path / "raw").mkdir()
    numbered = written(tmp_path, *some)
    (tmp_path / "raw/classnames.txt").write_text("tench\ncafe\u0301\n  owl \n\n", "utf-8")
    card = written(tmp_path, *some)
    assert card["classes"] == ["tench", "caf\u00e9", "owl"] and numbered["classes"] == ["0", "1", "2"]
    assert card["hash"] != numbered["hash"]
    for text, words in (("a\nb\n", "there is a label 2, but the file of class names in .*raw has 2 lines"),
                        ("a\n\nb\n", "classnames.txt, line 2: a class has no name")):
        (tmp_path / "raw/classnames.txt").write_text(text)
        with pytest.raises(UserError, match=words):
            written(tmp_path, *some)


@pytest.mark.parametrize("label", [b"1000000", b"9" * 18, b"40"])
def test_ids_are_no_classes(tmp_path, label):
    some = [(f"{i:03d}", {"png": png(i), "cls": label if i == 7 else b"%d" % (i % 2)}) for i in range(40)]
    with pytest.raises(UserError, match=f"labels up to {int(label)} of 40 samples are ids rather.*classes.txt"):
        written(tmp_path, *some)


def test_a_trial_may_have_fewer_samples_than_classes(tmp_path):
    card = written(tmp_path, *[(f"{i:03d}", {"png": png(i), "cls": b"%d" % i}) for i in range(40)], limit=5)
    assert max(card["counts"].values()) <= 5 and len(card["classes"]) <= 40


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_one_class_is_no_labels(tmp_path, capsys, kind):
    if kind == "tars":
        card = written(tmp_path, *[(f"{i:03d}", {"png": png(i), "cls": b"0"}) for i in range(40)])
    else:
        (tmp_path / "raw/images").mkdir(parents=True)
        for i in range(40):
            (tmp_path / f"raw/images/{i}.png").write_bytes(png(i))
        card = shards.write("toy", folder_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    assert card["columns"] == ["image"] and card["classes"] == [] and "class_counts" not in card
    assert "toy: skipped: all labels, which are " in capsys.readouterr().err


# Twins


def twins_of(tmp_path, source, monkeypatch, **changes):
    """A data set of 90 samples, of which 30 pictures come three times under different keys; its card."""
    monkeypatch.setattr(shards, "SHARD", 20)
    raw, pictures = tmp_path / "raw", [i if i < 60 else i % 30 for i in range(120)]
    raw.mkdir()
    if source == "folder":
        for i, number in enumerate(pictures):
            (raw / "ab"[number % 2]).mkdir(exist_ok=True)
            (raw / "ab"[number % 2] / f"{i:03d}.png").write_bytes(png(number))
    elif source == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"image": [png(n) for n in pictures], "label": [n % 2 for n in pictures]})
        pq.write_table(table, raw / "all.parquet")
    else:
        for t in range(4):
            write_tar(raw / f"{t}.tar", [(f"{i:03d}", {"png": png(n), "cls": b"%d" % (n % 2)})
                                         for i, n in enumerate(pictures) if i % 4 == t])
    spec = tar_spec(raw) if source == "webdataset" else folder_spec(raw, source=source)
    spec |= {"label": "label"} if source == "parquet" else {}
    return shards.write("toy", spec | changes, tmp_path / "out", workers=2)


@pytest.mark.parametrize("source", ["folder", "parquet", "webdataset"])
def test_the_same_picture_never_stands_in_two_carved_splits(tmp_path, monkeypatch, capsys, source):
    card = twins_of(tmp_path, source, monkeypatch)
    seen = {}
    for split in sources.SPLITS:
        streamed, resident = (data.open(tmp_path / "out", split, reader, cache=tmp_path / "cache")
                              for reader in ("streaming", "resident"))
        images = np.concatenate([part["image"].numpy() for part in streamed.in_order()])
        assert (images == resident.values["image"].numpy()).all() and len(images) == card["counts"][split]
        hashes = np.load(tars.hashes_of(tmp_path / "out", split))
        assert len(hashes) == len(images) == sum(card["class_counts"][split])
        seen[split] = {image.tobytes() for image in images}
        if split == "train":
            np.testing.assert_allclose(card["mean"], (images / 255).mean((0, 2, 3)), atol=1e-12)
    assert not seen["train"] & seen["val"] and not seen["train"] & seen["test"] and not seen["val"] & seen["test"]
    left = card["twins"]["left_out"]
    assert len(set.union(*seen.values())) == 60 and "between" not in card["twins"]
    assert sum(card["counts"].values()) + sum(left.values()) == 120 and left["train"] > 0 and not left.get("test")
    said = f"Left out of toy: {left['train']} samples, carved into train, of which the like stands in val or test"
    assert said in capsys.readouterr().err


def test_between_given_splits_twins_are_counted_and_stay(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    for split, numbers in (("train", range(30)), ("val", range(27, 33)), ("test", [0, 1, 30, 31, 40])):
        write_tar(tmp_path / f"raw/{split}.tar", [(f"{i:03d}", {"png": png(i)}) for i in numbers])
    card = shards.write("toy", tar_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    assert card["counts"] == {"train": 30, "val": 6, "test": 5}
    assert card["twins"] == {"between": {"val": {"train": 3}, "test": {"train": 2, "val": 2}}}
    assert "share samples, value by value: 3 of val stand in train" in capsys.readouterr().err
    given = shards.write("toy", tar_spec(tmp_path / "raw", urls="t*.tar"), tmp_path / "out", workers=1)  # val is carved
    assert list(given["twins"]) == ["left_out"] and sum(given["twins"]["left_out"].values()) == 2
    assert given["counts"]["test"] == 5 and given["counts"]["train"] + given["counts"]["val"] == 28


def test_a_clean_card_says_nothing_of_twins(tmp_path):
    card = written(tmp_path, *[(f"{i:03d}", {"png": png(i)}) for i in range(40)])
    assert "twins" not in card and sum(card["counts"].values()) == 40


def test_nothing_left_to_train_on_says_why(tmp_path):
    words = "nothing is left for the training split. Left out of toy: .* carved into train, of which the like stands"
    with pytest.raises(UserError, match=words):
        written(tmp_path, *[(f"{i:03d}", {"png": png(1)}) for i in range(40)])


def test_a_split_whose_labels_are_all_missing_is_named(tmp_path):
    from selfsup import evals

    (tmp_path / "raw").mkdir()
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        labels = [b"-1" if split == "test" else b"%d" % (i % 2) for i in range(20)]
        write_tar(tmp_path / f"raw/{split}.tar", [
            (f"{i}", {"png": png(i), "cls": labels[i - first]}) for i in range(first, first + 20)])
    card = shards.write("toy", tar_spec(tmp_path / "raw"), tmp_path / "out", workers=1)
    assert evals.lacking(card) == "no sample of test has a label: all are -1"
    for change in ({"unlabelled": card["counts"]}, {"columns": ["image"]}):
        assert evals.lacking({**card, **change}) == "the data has no labels"
