"""Downloads from a server on this machine that cuts, refuses, redirects and lies."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from resnetkit.data.download import download
from resnetkit.errors import DataError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT: whole, in pieces of a third, under a false name, or not at all."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        byte_range = self.headers.get("Range")
        self.asked.append((self.path, byte_range))
        if self.path == "/missing":
            self.send_error(404, "Not Found")
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
        elif self.path == "/other":
            self.answer(b"another file", 0, 12)
        else:
            start = int(byte_range[6:-1]) if byte_range and self.path != "/restarts" else 0
            third = len(CONTENT) // 3
            cuts = self.path == "/cut" or (self.path == "/restarts" and len(self.asked) == 1)
            self.answer(CONTENT, start, start + third + 1 if cuts else len(CONTENT))

    def answer(self, content: bytes, start: int, stop: int) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:stop])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Server.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(path: Path, *urls: str) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    download(urls, path, md5=MD5, observe=lambda done, total: told.append((done, total)))
    return told


@pytest.mark.parametrize("page", ["whole", "moved", "cut", "restarts"])
def test_the_whole_file_comes_whatever_happens_on_the_way(
    address: str, tmp_path: Path, page: str
) -> None:
    told = fetch(tmp_path / "file", f"{address}/{page}")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cut_connection_is_taken_up_where_it_ended(address: str, tmp_path: Path) -> None:
    fetch(tmp_path / "file", f"{address}/cut")
    third = len(CONTENT) // 3 + 1
    ranges = [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert [asked for _, asked in Server.asked] == ranges


@pytest.mark.parametrize(
    ("page", "reason"),
    [("missing", "the server answers 404 Not Found"), ("other", "holds another file: its MD5 is")],
)
def test_what_is_not_the_file_is_refused_and_not_kept(
    address: str, tmp_path: Path, page: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        fetch(tmp_path / "file", f"{address}/{page}")
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried(address: str, tmp_path: Path) -> None:
    fetch(tmp_path / "file", "http://127.0.0.1:9/nobody", f"{address}/missing", f"{address}/whole")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_address_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/nobody cannot be reached \(.*ref"):
        fetch(tmp_path / "file", "http://127.0.0.1:9/nobody")
