"""Downloads that show how far they are, go on after a cut, and are never half-used."""

import hashlib
import http.client
import io
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Literal, TypeVar
from urllib.parse import urlsplit

from resnetkit.errors import TransferError
from resnetkit.storage import exclusive, storage_errors, temporary_for
from resnetkit.untrusted import BEGINNING_BYTES, open_regular, printable, recognized_mistake

__all__ = [
    "MOST_BYTES",
    "Digest",
    "Observer",
    "check_online",
    "download",
]

Observer = Callable[[int, int], None]
"""Is told how many bytes have come, and of how many; 0 of an unknown number."""

Result = TypeVar("Result")

OFFLINE = ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE")
CHUNK_BYTES = 1 << 18
SECONDS_TO_ANSWER = 20
LEAST_BYTES = 20_000  # that come in SECONDS_TO_ANSWER, or the connection counts as dead
MOST_BYTES = 4 << 30  # nothing that we download is nearly as large
PAUSES = (0.5, 1.0, 2.0)  # seconds between tries
PASSING = {408, 429, 500, 502, 503, 504}  # answers that may be others a moment later
FAILURES = (OSError, http.client.HTTPException, ValueError)  # ValueError: an impossible address
ADVICE = "Make room there, or choose another folder."
WAITING = "another process is fetching this file: waiting for it"


@dataclass(frozen=True)
class Digest:
    """What a file must hash to.

    Attributes:
        kind: sha256, md5, or git: SHA-1 of the file as Git counts it.
        beginning: of the hexadecimal number; all of it where its publisher says all.
    """

    kind: Literal["sha256", "md5", "git"]
    beginning: str

    def matches(self, path: Path) -> bool:
        """Returns whether a file is there and is the one."""
        return path.is_file() and self.of(path).startswith(self.beginning)

    def of(self, path: Path) -> str:
        """Returns what a file hashes to."""
        with open_regular(path) as file:
            digest = self.begun(os.fstat(file.fileno()).st_size)
            return hashlib.file_digest(file, lambda: digest).hexdigest()

    def of_bytes(self, content: bytes) -> str:
        """Returns what the content of a file hashes to."""
        digest = self.begun(len(content))
        digest.update(content)
        return digest.hexdigest()

    def begun(self, size: int) -> "hashlib._Hash":
        """Returns a hash that waits for a content of so many bytes."""
        algorithm = "sha1" if self.kind == "git" else self.kind
        beginning = b"blob %d\0" % size if self.kind == "git" else b""
        return hashlib.new(algorithm, beginning, usedforsecurity=False)

    def __str__(self) -> str:
        return {"sha256": "SHA-256", "md5": "MD5", "git": "SHA-1 by Git"}[self.kind]


def check_online() -> None:
    """Checks that downloads were not forbidden.

    Raises:
        TransferError: when they were.
    """
    for name in OFFLINE:
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise TransferError(
                f"{name} is set, so nothing is fetched from elsewhere: unset it to go on."
            )


def download(
    urls: Sequence[str],
    path: Path,
    *,
    digest: Digest,
    observe: Observer,
    lock: Path | None = None,
    advice: str = ADVICE,
) -> None:
    """Downloads a file from the first address that has it; it is there verified or not at all.

    A connection that is cut is taken up again where it ended, a few times. After that, what has
    come stays for the next call. Of several processes one downloads, and the others wait for it.

    Args:
        urls: addresses of the same file.
        path: where to put it; what has come so far lies beside it under the name `<name>.part`.
        digest: of the whole file; nothing is downloaded when it is there already.
        observe: see `Observer`.
        lock: file that is locked meanwhile; by default `<name>.lock` beside it.
        advice: how to go on when the folder cannot be written.

    Raises:
        TransferError: when no address can be reached, or what comes is not the file.
        StorageError: when the disk is full.
    """
    check_online()
    lock = lock or path.with_name(f"{path.name}.lock")
    with exclusive(lock, waiting=WAITING, advice=advice) as locked:
        if digest.matches(path):
            return
        part = path.with_name(f"{path.name}.part") if locked else temporary_for(path)
        try:
            download_part(urls, part, digest=digest, observe=observe)
            with storage_errors(path, ADVICE):
                part.replace(path)
        finally:
            if not locked:
                part.unlink(missing_ok=True)


def download_part(urls: Sequence[str], part: Path, *, digest: Digest, observe: Observer) -> None:
    """Downloads a file from the first address that has it, to what becomes the file then."""
    reasons = []
    for url in urls:
        try:
            download_from(url, part, digest=digest, observe=observe)
        except TransferError as error:
            reasons.append(str(error).rstrip("."))
        else:
            return
    raise TransferError("; ".join(reasons) + ".")


def download_from(url: str, part: Path, *, digest: Digest, observe: Observer) -> None:
    """Downloads a file from one address, taking up a cut connection where it ended."""
    if part.is_symlink() or not (part.is_file() or part.is_dir()):
        with storage_errors(part, ADVICE):
            part.unlink(missing_ok=True)  # a link or a pipe in its place would be written to
    leftover = part.exists()
    if not (leftover and digest.matches(part)):
        persistently(url, lambda: receive(url, part, observe))
    if digest.matches(part):
        return
    message = other_file(url, part, digest)
    part.unlink()
    if not leftover:
        raise TransferError(message)
    download_from(url, part, digest=digest, observe=observe)  # it may have been of another file


def other_file(url: str, part: Path, digest: Digest) -> str:
    """Returns why what has come is not the file that was asked for."""
    with open_regular(part) as file:
        mistake = recognized_mistake(file.read(BEGINNING_BYTES))
    if mistake:
        return f"{shown(url)} sends something else: {mistake}."
    actual = digest.of(part)
    is_whole = len(digest.beginning) == len(actual)
    expected = digest.beginning if is_whole else f"one that begins with {digest.beginning}"
    return f"{shown(url)} holds another file: its {digest} is {actual}, expected {expected}."


def persistently(url: str, action: Callable[[], Result]) -> Result:
    """Does something at an address, again after a pause when that may help, a few times.

    Raises:
        TransferError: when it fails for good.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except FAILURES as error:
            refused = False
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                refused = error.code not in PASSING
            if pause is None or refused:
                raise TransferError(f"{shown(url)} cannot be reached ({reason(error)}).") from error
            time.sleep(pause)
    raise AssertionError("the last pause is None")


def receive(url: str, part: Path, observe: Observer) -> None:
    """Appends to a partial file what is missing of it; an address that cannot resume starts anew.

    Raises:
        OSError: when the connection fails, stands still or ends early.
        TransferError: when it does not come to an end.
        StorageError: when the disk is full.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = opened(url, start=have)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise ConnectionError("what had come before does not fit the file there") from error
        raise
    with answer:
        resumes = answer.status == http.client.PARTIAL_CONTENT
        have = have if resumes else 0
        total = have + (answer.length or 0)
        with storage_errors(part, ADVICE):
            file = part.open("ab" if resumes else "wb", buffering=0)
        with file:
            have = write_all(answer, file, part, have, total, observe)
    if have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def write_all(
    answer: Any, file: io.FileIO, part: Path, have: int, total: int, observe: Observer
) -> int:
    """Writes what comes to a file and returns how many bytes of the whole are there then."""
    since, before = time.monotonic(), have
    while chunk := answer.read1(CHUNK_BYTES):
        have += len(chunk)
        if have > MOST_BYTES:
            part.unlink()
            raise TransferError(
                f"{shown(answer.url)} sends more than {MOST_BYTES:,} bytes, which no such file has."
            )
        with storage_errors(part, ADVICE):
            file.write(chunk)
        observe(have, total)
        now = time.monotonic()
        if now - since > SECONDS_TO_ANSWER:
            if have - before < LEAST_BYTES:
                raise TimeoutError(f"{have - before:,} bytes came in {now - since:.0f} seconds")
            since, before = now, have
    with storage_errors(part, ADVICE):
        os.fsync(file.fileno())
    return have


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, but never from https to http."""

    max_redirections = 8

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_address(newurl)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise TransferError(
                f"{shown(req.full_url)} leads from https to {shown(newurl)}, where anybody could"
                " change the file on its way: that is not followed."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opened(url: str, *, start: int = 0) -> Any:
    """Returns the response to a request without a user name, a password or a token.

    Args:
        url: the address.
        start: first byte to send.
    """
    check_address(url)
    headers = {"User-Agent": "resnetkit", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.build_opener(Redirects()).open(request, timeout=SECONDS_TO_ANSWER)


def check_address(url: str) -> None:
    """Checks that an address is one of the web, without a password in it.

    Raises:
        TransferError: when it is another.
    """
    try:
        parts = urlsplit(url)
        possible = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        possible = False
    if not possible:
        raise TransferError(
            f"the address '{shown(url)}' is not such as https://HOST/PATH, without user name and"
            " password."
        )


def shown(url: str) -> str:
    """Returns an address without what in it may be secret: user name, password and query."""
    before, slashes, after = url.partition("://")
    host, slash, path = after.partition("/")
    return before + slashes + host.rpartition("@")[2] + slash + path.partition("?")[0]


def reason(error: Exception) -> str:
    """Returns why a connection failed, in few words."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code < 400:
            return "it leads in a circle, or nowhere"
        return f"the server answers {error.code} {printable(str(error.reason))}"
    if isinstance(error, urllib.error.URLError):
        return printable(str(error.reason))
    return printable(str(error)) or type(error).__name__
