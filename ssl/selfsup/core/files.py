"""Files written so that a reader finds the whole one or none, and a full disk is one sentence and leaves nothing."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def naming(path):
    """Name the file in errors of writes to it, such as a full disk, which Python leaves unnamed."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextlib.contextmanager
def replacing(path):
    """A binary file to write, which takes the place of `path` when the block ends well. Else it is removed: it may be
    what fills the disk. Raises the OSError that writing met, whatever a library made of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    file = None
    try:
        with naming(path):
            file = _Told(temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the rename: it must not be believed after a power cut
            file.close()
            os.replace(temporary, path)
    except BaseException as error:
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
            temporary.unlink(missing_ok=True)
            if file.error is not None and not isinstance(error, OSError):
                raise OSError(file.error.errno, file.error.strerror, str(path)) from error
        raise


def write(path, content):
    """Write bytes or a text as the whole content of a file. What is no UTF-8, as a folder's name may be, is escaped."""
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with replacing(path) as file:
        file.write(content)


class _Told:
    """A file that remembers why a write failed: libraries that are given one raise errors of their own."""

    def __init__(self, path):
        self.file, self.error = open(path, "wb"), None

    def write(self, data):
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name):
        return getattr(self.file, name)
