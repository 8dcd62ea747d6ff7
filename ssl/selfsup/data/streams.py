"""How the bytes of a tar are read: all of them in turn, or of a local one no more than is asked for."""

import gzip
import os
import re
import stat
import tarfile

from selfsup.data import files
from selfsup.errors import UserError

GZIP = ("gz", "tgz")  # how names of gzipped tars end
# How files begin that are no plain tars.
OTHER = {"compressed by xz": rb"\xfd7zXZ\0", "compressed by bzip2": rb"BZh[1-9]1AY&SY",
         "compressed by zstd": rb"\x28\xb5/\xfd",
         "compressed by gzip, though its name does not end in .gz": rb"\x1f\x8b", "a zip": rb"PK\x03\x04"}
CHUNK = 1 << 20  # bytes


def refuse_other(path, start):
    """A UserError where a file that begins so is no tar."""
    for kind, begins in OTHER.items():
        if re.match(begins, start):
            raise UserError(f"{path} is {kind}, which is not read: make it a plain .tar, or a .tar.gz")


class Watched:
    """A stream that notices how it ends: tarfile takes a cut between two members, or garbage there, for the end."""

    how = "r|"  # in tarfile's words

    def __init__(self, path, digest=None):
        self.raw = files.opened(path)
        self.stream = gzip.open(self.raw) if str(path).endswith(GZIP) else self.raw
        self.path, self.digest, self.length, self.content = path, digest, 0, 0

    def read(self, size):
        data = self.stream.read(size)
        if not self.length:
            refuse_other(self.path, data)
        self.length += len(data)
        stripped = len(data.rstrip(b"\0"))
        if stripped:
            self.content = self.length - len(data) + stripped  # the end of the last byte that is not 0
        if self.digest is not None:
            self.digest.update(data)
        return data

    def check_end(self, offset):
        """Only zeros may follow the header at which tarfile stopped, and at least one block of them."""
        while self.read(CHUNK):
            pass
        if self.content > offset:
            raise tarfile.ReadError("garbage after the last whole member")
        if self.length < offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("no end mark")

    def close(self):
        self.stream.close()
        self.raw.close()


class Local:
    """The same of a plain local file, in which tarfile goes from header to header; what lies between is read by `piece`
    when it is wanted, also after `close`."""

    how = "r:"

    def __init__(self, path):
        self.path, self.at, self.file = path, 0, None
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        refuse_other(path, os.pread(self.file, 512, 0))

    @staticmethod
    def fits(path):
        """Whether a path is one of such a file; of what is not there `open` says so."""
        return "://" not in str(path) and not str(path).endswith(GZIP) and stat.S_ISREG(os.stat(path).st_mode)

    def read(self, size):
        data = os.pread(self.file, size, self.at)
        self.at += len(data)
        return data

    def seek(self, at):
        self.at = at

    def tell(self):
        return self.at

    def piece(self, member):
        return Piece(self, member.offset_data, member.size)

    def check_end(self, offset):
        if os.fstat(self.file).st_size < offset + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("no end mark")
        self.seek(offset)
        while data := self.read(CHUNK):
            if data.strip(b"\0"):
                raise tarfile.ReadError("garbage after the last whole member")

    def close(self):
        """Nothing: pieces may be wanted yet."""

    def __del__(self):
        if self.file is not None:
            os.close(self.file)


class Piece:
    """What a member of a local tar holds, not read yet."""

    __slots__ = ("stream", "at", "size")

    def __init__(self, stream, at, size):
        self.stream, self.at, self.size = stream, at, size

    def read(self):
        """Its bytes. Raises tarfile.ReadError where the file was cut meanwhile."""
        data = os.pread(self.stream.file, self.size, self.at)
        if len(data) < self.size:
            raise tarfile.ReadError("unexpected end of data")
        return data
