"""Reading over a connection that breaks: against a server that does."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from selfsup.data import remote
from selfsup.errors import UserError

CONTENT = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves CONTENT, and breaks off after `each` bytes while there are `breaks` left. ranges: whether it knows them."""

    def __init__(self, breaks=0, each=10_000, ranges=True, status=200):
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.each, self.ranges, self.status = breaks, each, ranges, status
        self.asked, self.content = [], CONTENT
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/train-000000.tar"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, start = self.server, 0
        server.asked.append(self.headers.get("Range"))
        if server.status != 200:
            return self.send_error(server.status)
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        part = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            part = part[:server.each + (0 if server.ranges else start + server.each * len(server.asked))]
        self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01, 0.01))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("size", [-1, 1000, 7777])
def test_it_goes_on_where_it_broke(ranges, size):
    server = Server(breaks=3, ranges=ranges)
    file, parts = remote.Remote(server.url), []
    while data := file.read(size):
        parts.append(data)
    assert b"".join(parts) == CONTENT
    assert len(server.asked) == 4 and server.asked[0] is None and all(server.asked[1:])


def test_where_nothing_comes_any_more_the_url_is_named():
    server = Server(breaks=99, each=0)
    with pytest.raises(UserError, match=f"could not open {server.url}|could not read {server.url} from byte 0"):
        remote.Remote(server.url).read()
    server = Server()
    file = remote.Remote(server.url)
    file.read(1000)
    server.status = 503
    file.close(), setattr(file, "stream", None)
    with pytest.raises(UserError, match=f"could not read {server.url} from byte 1,000 on: .*503"):
        file.read(1000)
    assert len(server.asked) == 1 + 4


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_not_there_is_not_asked_for_again(status):
    server = Server(status=status)
    with pytest.raises(UserError, match=f"could not open {server.url}: .*{status}"):
        remote.Remote(server.url)
    assert len(server.asked) == 1


def test_a_server_that_is_too_busy_is_asked_again():
    server = Server(status=503)
    threading.Timer(0.02, setattr, (server, "status", 200)).start()
    assert remote.Remote(server.url).read() == CONTENT and len(server.asked) > 1


def test_another_file_meanwhile_is_noticed():
    server = Server(breaks=1)
    file = remote.Remote(server.url)
    file.read(5000)
    server.content = CONTENT[:-1]
    with pytest.raises(UserError, match="is another file than when it was opened"):
        while file.read(5000):
            pass
