"""Files that hold samples, as others have made them: regular files alone, and none that would fill the memory."""

import os
import stat

from selfsup.data.images import Unreadable
from selfsup.data.remote import Remote

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
    """A local file, or what lies at a URL, see Remote."""
    return Remote(str(path)) if "://" in str(path) else open(path, "rb")
