"""Reading shards: a folder's card, and the samples of any WebDataset tar, with the standard library alone.

Apart from what writes them: what reads an encoder's data can change the encoder, what wrote it shows in the data.
"""

import contextlib
import gzip
import hashlib
import multiprocessing
import os
import re
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from selfsup import artefacts, process
from selfsup.core import bars
from selfsup.data import columns, files
from selfsup.data.files import BYTES
from selfsup.data.images import Unreadable, blamed
from selfsup.data.streams import Local, Piece, Watched
from selfsup.errors import UserError, nearest, nearest_path

MEMBER = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # key and extension, as WebDataset splits a member's name

UNNAMED, SPECIAL = "member{s} of hidden names or without an ending", "link{s} or special file{s}"
# Size, time and checksum in a header as nearly all programs write them.
PLAIN = re.compile(rb"[0-7]{11}[\0 ].{12}[0-7]{6}[\0 ]{2}", re.DOTALL).fullmatch
# So mode, user, group, time and device: nobody here uses them, but where they are no numbers tarfile refuses the header.
NUMBERS = re.compile(rb"(?:[0-7]{6}[0-7 ][\0 ]){3}[0-7]{11}[\0 ](?:\0{8}|[0-7]{6}[0-7 ][\0 ]){2}").fullmatch
HEADER = 1 << 20  # bytes; most of what a tar says about a member beside it, as a long name, and where it does:
ABOUT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class Torn(Exception):
    """A tar that ends early or turns into garbage: the reason, without the file's name."""


class _Member(tarfile.TarInfo):
    """What tarfile reads of a member."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """Of a plain file nothing but what is used, in a quarter of the time."""
        plain = len(buf) == tarfile.BLOCKSIZE and buf[156:157] == tarfile.REGTYPE and not buf[345]
        if plain and PLAIN(buf[124:156]) and NUMBERS(buf[100:124] + buf[136:148] + buf[329:345]):
            if int(buf[148:154], 8) == 256 + sum(buf[:148]) + sum(buf[156:]):
                member = cls(buf[:100].partition(b"\0")[0].decode(encoding, errors))
                member.size = int(buf[124:135], 8)
                return member
        return super().frombuf(buf, encoding, errors)

    def _proc_member(self, tar):
        if self.size > HEADER and self.type in ABOUT:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tar)

    def _sparse(self, member, *_):
        member.sparse = []  # enough to pass it over, whatever its map says

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse

    def _apply_pax_info(self, headers, *how):
        super()._apply_pax_info({key: headers[key] for key in headers if not key.startswith("GNU.sparse.")}, *how)


class _Tar(tarfile.TarFile):
    tarinfo = _Member


def card_of(folder):
    """The card of a folder of shards; a UserError says what is missing and how to get it."""
    path = Path(folder) / "card.json"
    again = f"make it with `dvc repro shard@{Path(folder).name}` or fetch it with `dvc pull`"
    if not Path(folder).is_dir():
        raise UserError(f"no such data set: {folder}{nearest_path(folder)}; {again}")
    if not path.exists():
        raise UserError(f"no data card: {path}; {again}")
    return artefacts.read(path, artefacts.Card, again)


def entries_of(card, folder, split):
    """The card's entries for a split, with "first" (position in the split of the shard's first sample) added."""
    if split not in card["shards"]:
        raise UserError(f'{folder} has no split "{split}"{nearest(split, card["shards"])}')
    if not card["counts"][split]:
        raise UserError(f'the split "{split}" of {folder} is empty: give it a share of the samples in params.yaml')
    first, entries = 0, []
    for entry in card["shards"][split]:
        if entry["count"]:
            entries.append({**entry, "first": first})
        first += entry["count"]
    return entries


def hashes_of(folder, split):
    """Where the hash of each decoded image of a split is kept: uint64 (N,), in split order."""
    return Path(folder) / f"{split}.hashes.npy"


def samples(folder, card, entry, wanted=None):
    """{column: parsed value} of the samples of one shard in order, of the columns `wanted`: {name: Column}, by default
    all.

    A UserError if the tar is not what the card says."""
    wanted = columns.of(card) if wanted is None else wanted
    for key, group in members(folder, entry, wanted.values(), later=True):
        yield parsed(folder, entry, key, group, wanted)


def parsed(folder, entry, key, group, wanted):
    """{column: parsed value} of one sample as `members` gives it, of the columns `wanted`: {name: Column}."""
    try:
        with blamed(), torn(folder, entry):
            group = {name: raw.read() if isinstance(raw, Piece) else raw for name, raw in group.items()}
            return {name: column.parse(column.find(group)) for name, column in wanted.items()}
    except Unreadable as error:
        raise damaged(folder, entry, f" at {key} ({error})") from None


@contextlib.contextmanager
def torn(folder, entry):
    """A tar's tear in the block is a UserError."""
    try:
        yield
    except (Torn, tarfile.ReadError) as error:
        raise UserError(f"the shard {_path(folder, entry)} is torn ({error}); {_advice(folder)}") from None


def stacked(folder, column, items):
    """(n, *column.shape) of (entry, parsed value) pairs. A UserError names the shard of one that cannot be decoded."""
    try:
        with blamed():
            return np.ascontiguousarray(column.stack([value for _, value in items]))
    except Unreadable:
        pass
    for entry, value in items:
        try:
            with blamed():
                column.stack([value])
        except Unreadable as error:
            raise damaged(folder, entry, f": its {column.name} cannot be read ({error})") from None
    raise AssertionError("what cannot be decoded together can be one by one")


def damaged(folder, entry, how):
    return UserError(f"the shard {_path(folder, entry)} is damaged{how}; {_advice(folder)}")


def _path(folder, entry):
    return entry["file"] if "://" in entry["file"] else os.path.join(folder, entry["file"])


def _advice(folder):
    return f"get it back with `dvc checkout`, or run `dvc repro shard@{Path(folder).name}`"


def members(folder, entry, wanted=None, later=False):
    """(key, {extension: bytes}) of the samples of one shard in order, of the Columns `wanted` only, by default all
    members. `later`: see `groups`.

    A UserError if the tar is not what the card says."""
    path, advice = _path(folder, entry), _advice(folder)
    skip, ends, count = set(entry.get("skip", ())), entry.get("keys", (0, 1)), 0
    try:
        for position, (key, group) in enumerate(groups(path, wanted=wanted, later=later)):
            if position in skip or not within(fraction(key), ends):
                continue
            yield key, group
            count += 1
    except Torn as error:
        if not entry.get("torn"):
            raise UserError(f"the shard {path} is torn ({error}); {advice}") from None
    except FileNotFoundError:
        raise UserError(f"the shard {path} is missing; {advice}") from None
    if count != entry["count"]:
        raise UserError(f"the shard {path} holds {count} samples where its card says {entry['count']}; {advice}")


def groups(path, digest=None, wanted=None, passed=None, later=False):
    """(key, {extension: bytes}) of each sample of a tar, local or remote, plain or gzipped, in order. Members that are
    of none of the Columns `wanted` are passed over. `later`: of a plain local tar the headers alone are read, and a
    Piece stands for the bytes of each member.

    Nothing is written to disk; links, special files and names without an extension are passed over, and counted in the
    Counter `passed`. Where the members of a sample take more than BYTES, an Unreadable stands in the place of those
    beyond, as a gzip of a few MB may hold GBs. Raises Torn at the end if the tar is cut off or turns into garbage, a
    boundary between two members included; UserError where a sample has one member twice, as two in a row of one key
    have. `digest`, a hashlib object, is fed all bytes read."""
    key, group, held = None, {}, 0
    try:
        stream = Local(path) if later and Local.fits(path) else Watched(path, digest)
        with contextlib.closing(stream), _Tar.open(fileobj=stream, mode=stream.how) as tar:
            for member in tar:
                tar.members.clear()  # else it remembers every member
                match = MEMBER.fullmatch(member.name)
                if match is None or not member.isreg() or member.issparse():
                    if passed is not None and not member.isdir():
                        passed[UNNAMED if member.isreg() and match is None else SPECIAL] += 1
                    continue
                if match[1] != key and key is not None:
                    yield key, group
                    group, held = {}, 0
                key, extension = match[1], match[2].lower()
                if wanted is None or any(column.owns(extension) for column in wanted):
                    if extension in group:
                        raise UserError(f"{path}: {member.name} is there twice, so that one sample would overwrite "
                                        f"another: give each a key of its own")
                    held += member.size
                    if held > BYTES:
                        raw = Unreadable(f"{held:,} bytes with its {extension}, more than {BYTES:,}")
                    else:
                        raw = stream.piece(member) if isinstance(stream, Local) else tar.extractfile(member).read()
                    group[extension] = raw
            stream.check_end(tar.offset)
    except (tarfile.TarError, EOFError, gzip.zlib.error, gzip.BadGzipFile) as error:
        raise Torn(str(error) or type(error).__name__) from None
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:  # tarfile's own, of a header
        raise Torn(f"a header that makes no sense ({error})") from None
    if key is not None:
        yield key, group


def within(at, ends):
    return ends[0] <= at < ends[1]


def fraction(key):
    """A number in [0, 1) from a key; even, and the same everywhere."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


# Processes


def parallel(work, tasks, title, total=None, workers=None):
    """Yield work(task) for each task, in order, from `workers` processes (by default one a core), with a progress bar
    that counts the tasks, or up to `total` by the results' "images". Forked: `work` may hold anything."""
    workers = min(workers or process.cores(), len(tasks))
    with bars.bar(None, title, total or len(tasks), unit=" images" if total else " tars") as bar:
        if workers <= 1:
            for task in tasks:
                result = work(task)
                bar.update(result["images"] if total else 1)
                yield result
            return
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _prepare, (work, os.getpid()))
        try:
            for future in [pool.submit(_perform, task) for task in tasks]:
                result = future.result()
                bar.update(result["images"] if total else 1)
                yield result
        except BrokenProcessPool:
            raise UserError(f"{title}: a worker process was killed, perhaps for want of memory") from None
        except BaseException:  # what they are at is not wanted any more, and a tar takes them long
            for one in (pool._processes or {}).values():
                one.kill()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare(work, parent):
    global _work
    _work = work
    process.worker(parent)
    if "torch" in sys.modules:  # its thread pool does not survive a fork
        sys.modules["torch"].set_num_threads(1)


def _perform(task):
    return _work(task)
