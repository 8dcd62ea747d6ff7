"""Files that hold samples, as others have made them: regular files alone, and none that would fill the memory."""

import os
import stat

from selfsup.data.images import Unreadable
from selfsup.errors import UserError

BYTES = 1 << 29  # most of a sample: of a file, or of all its members in a tar


def content(path):
    """The bytes of a file. Raises Unreadable, also for what never ends or never answers: a device, a pipe, a socket."""
    try:
        about = os.stat(path)  # before it is opened: opening a pipe waits for a writer
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable("not a regular file")
        if about.st_size > BYTES:
            raise Unreadable(f"{about.st_size:,} bytes, more than {BYTES:,}")
        with open(path, "rb") as file:
            return file.read(BYTES)  # some of /proc and /sys say that they are empty
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def opened(path):
    """A local file, or a URL through urllib (http, https) or fsspec (s3, gs, …): never through a shell, since a card
    may come from somebody else."""
    path = str(path)
    if "://" not in path:
        return open(path, "rb")
    try:
        if path.startswith(("http://", "https://")):
            from urllib.request import urlopen

            return urlopen(path, timeout=60)
        import fsspec

        return fsspec.open(path, "rb").open()
    except Exception as error:  # each of fsspec's back ends has errors of its own
        raise UserError(f"could not open {path}: {error}") from None
