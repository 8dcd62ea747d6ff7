"""The bytes of a URL, though the connection breaks now and then."""

import sys
import time
import urllib.error
import urllib.request

from selfsup.errors import UserError

WAITS = (0.5, 1, 2, 4, 8, 16, 32)  # seconds between one attempt and the next, until it gives up
AT_FIRST = 4  # so many of them while nothing has come: an address may be wrong
TOLD = 4  # seconds of a wait that is said
TIMEOUT = 60  # seconds without an answer
AGAIN = (408, 425, 429)  # HTTP's 4xx that do not last; of 5xx all


class Remote:
    """What lies at a URL, read in turn: by urllib (http, https) or fsspec (s3, gs, …), never through a shell, since a card
    may come from somebody else.

    Where the connection breaks, or ends before all has come, it is opened again, after growing waits, and goes on at the
    byte where it was. Raises UserError, which names the URL, for what is not there or not allowed, at once; where
    nothing comes any more; and where another file is there meanwhile.
    """

    def __init__(self, url):
        self.url, self.at, self.size, self.version, self.stream = url, 0, None, None, None
        self._insist(self._open)

    def read(self, size=-1):
        return self._insist(self._read, size)

    def close(self):
        if self.stream is not None:
            self.stream.close()

    def _insist(self, do, *args):
        for wait in (*(WAITS if self.at else WAITS[:AT_FIRST]), None):
            try:
                if self.stream is None and do != self._open:
                    self._open()
                return do(*args)
            except UserError:
                raise
            except Exception as error:  # each of fsspec's back ends has errors of its own
                self.close()
                self.stream = None
                if wait is None or lasting(error):
                    where = f"read {self.url} from byte {self.at:,} on" if self.at else f"open {self.url}"
                    raise UserError(f"could not {where}: {error or type(error).__name__}") from None
                if wait >= TOLD:
                    print(f"{self.url}: {error or type(error).__name__}; again in {wait:g} s", file=sys.stderr)
                time.sleep(wait)

    def _read(self, size):
        data = self.stream.read(size)
        self.at += len(data)
        if not data and size != 0 and self.size is not None and self.at < self.size:
            raise ConnectionError(f"the connection ended at byte {self.at:,} of {self.size:,}")
        return data

    def _open(self):
        self.stream, size, version = (self._http if self.url.startswith(("http://", "https://")) else self._other)()
        if self.version is None:
            self.size, self.version = size, (size, version)
        elif self.version != (size, version):
            raise UserError(f"{self.url} is another file than when it was opened")

    def _http(self):
        asked = urllib.request.Request(self.url, headers={"Range": f"bytes={self.at}-"} if self.at else {})
        stream = urllib.request.urlopen(asked, timeout=TIMEOUT)
        size = stream.headers.get("Content-Length")
        whole = None if size is None else int(size)
        if self.at and stream.status == 206:
            whole = None if whole is None else whole + self.at
        else:
            self._pass_over(stream)  # a server that knows no ranges
        return stream, whole, stream.headers.get("ETag")

    def _other(self):
        import fsspec

        stream = fsspec.open(self.url, "rb").open()
        stream.seek(self.at)
        return stream, getattr(stream, "size", None), None

    def _pass_over(self, stream):
        left = self.at
        while left:
            data = stream.read(min(left, 1 << 20))
            if not data:
                raise ConnectionError("the connection ended")
            left -= len(data)


def lasting(error):
    """Whether the same is to be expected at another attempt."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500 and error.code not in AGAIN
    return isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError)
