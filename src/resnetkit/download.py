"""Verified downloads: with progress, resumed after interruptions, and never partial."""

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
"""Receives the number of bytes downloaded and the total number, 0 if it is unknown."""

Result = TypeVar("Result")

OFFLINE = ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE")
CHUNK_BYTES = 1 << 18
SECONDS_TO_ANSWER = 20
LEAST_BYTES = 20_000  # in SECONDS_TO_ANSWER, or the connection counts as dead
MOST_BYTES = 4 << 30  # no supported download is nearly as large
PAUSES = (0.5, 1.0, 2.0)  # seconds between tries
TRANSIENT = {408, 429, 500, 502, 503, 504}  # statuses that a retry may change
FAILURES = (OSError, http.client.HTTPException, ValueError)  # ValueError: an invalid URL
ADVICE = "Free some space, or choose another folder."
WAITING = "another process is fetching this file: waiting for it"


@dataclass(frozen=True)
class Digest:
    """The digest that a file must have.

    Attributes:
        kind: sha256, md5, or git for the SHA-1 of a Git blob.
        beginning: hexadecimal digest, or the prefix of it that its publisher states.
    """

    kind: Literal["sha256", "md5", "git"]
    beginning: str

    def matches(self, path: Path) -> bool:
        """Returns whether a file exists and has this digest."""
        return path.is_file() and self.of(path).startswith(self.beginning)

    def of(self, path: Path) -> str:
        """Returns the digest of a file."""
        with open_regular(path) as file:
            digest = self.new_hash(os.fstat(file.fileno()).st_size)
            return hashlib.file_digest(file, lambda: digest).hexdigest()

    def of_bytes(self, content: bytes) -> str:
        """Returns the digest of the content of a file."""
        digest = self.new_hash(len(content))
        digest.update(content)
        return digest.hexdigest()

    def new_hash(self, size: int) -> "hashlib._Hash":
        """Returns a hash object for content of a size in bytes."""
        algorithm = "sha1" if self.kind == "git" else self.kind
        beginning = b"blob %d\0" % size if self.kind == "git" else b""
        return hashlib.new(algorithm, beginning, usedforsecurity=False)

    def __str__(self) -> str:
        return {"sha256": "SHA-256", "md5": "MD5", "git": "SHA-1 by Git"}[self.kind]


def check_online() -> None:
    """Checks that downloads are allowed.

    Raises:
        TransferError: if an environment variable forbids them.
    """
    for name in OFFLINE:
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise TransferError(
                f"{name} is set, so nothing is downloaded or uploaded: unset it first."
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
    """Downloads a file from the first URL that has it; a file that is not verified is not kept.

    An interrupted connection is resumed a few times. After that, the partial file is kept for the
    next call. If several processes download the same file, one does, and the others wait.

    Args:
        urls: URLs of the same file.
        path: path of the file; the partial file is `<name>.part` next to it.
        digest: digest of the file; a file that has it already is not downloaded.
        observe: see `Observer`.
        lock: lock file; by default `<name>.lock` next to the file.
        advice: advice to the user if the folder cannot be written.

    Raises:
        TransferError: if no URL can be reached, or the file has another digest.
        StorageError: if the disk is full.
    """
    check_online()
    lock = lock or path.with_name(f"{path.name}.lock")
    with exclusive(lock, waiting=WAITING, advice=advice) as locked:
        if digest.matches(path):
            return
        part = path.with_name(f"{path.name}.part") if locked else temporary_for(path)
        try:
            download_partial(urls, part, digest=digest, observe=observe)
            with storage_errors(path, ADVICE):
                part.replace(path)
        finally:
            if not locked:
                part.unlink(missing_ok=True)


def download_partial(urls: Sequence[str], part: Path, *, digest: Digest, observe: Observer) -> None:
    """Downloads a file from the first URL that has it to a partial file."""
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
    """Downloads a file from one URL to a partial file, resuming interrupted connections."""
    if part.is_symlink() or not (part.is_file() or part.is_dir()):
        with storage_errors(part, ADVICE):
            part.unlink(missing_ok=True)  # a link or a pipe would be written to
    leftover = part.exists()
    if not (leftover and digest.matches(part)):
        with_retries(url, lambda: receive(url, part, observe))
    if digest.matches(part):
        return
    message = digest_mismatch(url, part, digest)
    part.unlink()
    if not leftover:
        raise TransferError(message)
    download_from(
        url, part, digest=digest, observe=observe
    )  # the leftover may have been of another file


def digest_mismatch(url: str, part: Path, digest: Digest) -> str:
    """Returns the message for a downloaded file with another digest."""
    with open_regular(part) as file:
        mistake = recognized_mistake(file.read(BEGINNING_BYTES))
    if mistake:
        return f"{redacted(url)} sends another file: {mistake}."
    actual = digest.of(part)
    is_whole = len(digest.beginning) == len(actual)
    expected = digest.beginning if is_whole else f"one that begins with {digest.beginning}"
    return f"{redacted(url)} holds another file: its {digest} is {actual}, expected {expected}."


def with_retries(url: str, action: Callable[[], Result]) -> Result:
    """Runs an action that uses a URL, and retries it after transient failures.

    Raises:
        TransferError: if the last try fails.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except FAILURES as error:
            refused = False
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                refused = error.code not in TRANSIENT
            if pause is None or refused:
                raise TransferError(
                    f"{redacted(url)} cannot be reached ({reason(error)})."
                ) from error
            time.sleep(pause)
    raise AssertionError("the last pause is None")


def receive(url: str, part: Path, observe: Observer) -> None:
    """Downloads what is missing from a partial file, or all of it if the server cannot resume.

    Raises:
        OSError: if the connection fails, stalls or ends early.
        TransferError: if the file is too large.
        StorageError: if the disk is full.
    """
    have = part.stat().st_size if part.exists() else 0
    try:
        response = opened(url, start=have)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise ConnectionError("the partial file does not fit the file on the server") from error
        raise
    with response:
        resumes = response.status == http.client.PARTIAL_CONTENT
        have = have if resumes else 0
        total = have + (response.length or 0)
        with storage_errors(part, ADVICE):
            file = part.open("ab" if resumes else "wb", buffering=0)
        with file:
            have = write_all(response, file, part, have, total, observe)
    if have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def write_all(
    response: Any, file: io.FileIO, part: Path, have: int, total: int, observe: Observer
) -> int:
    """Writes a response to a file and returns the number of bytes of the whole file."""
    since, before = time.monotonic(), have
    while chunk := response.read1(CHUNK_BYTES):
        have += len(chunk)
        if have > MOST_BYTES:
            part.unlink()
            raise TransferError(
                f"{redacted(response.url)} sends more than {MOST_BYTES:,} bytes, the limit of"
                " downloads."
            )
        with storage_errors(part, ADVICE):
            file.write(chunk)
        observe(have, total)
        now = time.monotonic()
        if now - since > SECONDS_TO_ANSWER:
            if have - before < LEAST_BYTES:
                raise TimeoutError(f"only {have - before:,} bytes in {now - since:.0f} seconds")
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
                f"{redacted(req.full_url)} redirects from https to {redacted(newurl)}, where the"
                " file could be changed: this is not followed."
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
    """Checks that a URL uses http or https and contains no password.

    Raises:
        TransferError: if it is not.
    """
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        allowed = False
    if not allowed:
        raise TransferError(
            f"the URL '{redacted(url)}' is not allowed: expected https://HOST/PATH, without user"
            " name and password."
        )


def redacted(url: str) -> str:
    """Returns a URL without possible secrets: user name, password and query."""
    before, slashes, after = url.partition("://")
    host, slash, path = after.partition("/")
    return before + slashes + host.rpartition("@")[2] + slash + path.partition("?")[0]


def reason(error: Exception) -> str:
    """Returns why a connection failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code < 400:
            return "it redirects in a circle, or nowhere"
        return f"the server answers {error.code} {printable(str(error.reason))}"
    if isinstance(error, urllib.error.URLError):
        return printable(str(error.reason))
    return printable(str(error)) or type(error).__name__
