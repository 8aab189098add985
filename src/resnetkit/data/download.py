"""Downloads that show how far they are, go on after a cut, and are never half-used."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from resnetkit.errors import DataError
from resnetkit.storage import storage_errors

__all__ = ["Observer", "download"]

Observer = Callable[[int, int], None]
"""Is told how many bytes have come, and of how many; 0 of an unknown number."""

CHUNK_BYTES = 1 << 18
SECONDS_TO_ANSWER = 20
TRIES = 3


def download(urls: Sequence[str], path: Path, *, md5: str, observe: Observer) -> None:
    """Downloads a file from the first address that has it; it is there verified or not at all.

    A connection that is cut is taken up again where it ended, a few times.

    Args:
        urls: addresses of the same file.
        path: where to put it; what has come so far lies beside it under the name `<name>.part`.
        md5: of the whole file.
        observe: see `Observer`.

    Raises:
        DataError: when no address can be reached, or what comes is not the file.
        StorageError: when the disk is full.
    """
    reasons = []
    for url in urls:
        try:
            download_from(url, path, md5=md5, observe=observe)
        except OSError as error:
            reasons.append(f"{url} cannot be reached ({reason(error)})")
        except DataError as error:
            reasons.append(str(error).rstrip("."))
        else:
            return
    raise DataError("; ".join(reasons) + ".")


def download_from(url: str, path: Path, *, md5: str, observe: Observer) -> None:
    """Downloads a file from one address, taking up a cut connection where it ended."""
    part = path.with_name(path.name + ".part")
    for attempt in range(1, TRIES + 1):
        try:
            receive(url, part, observe)
            break
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError)
            if attempt == TRIES or refused:
                part.unlink(missing_ok=True)
                raise OSError(reason(error)) from error
    found = hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(f"{url} holds another file: its MD5 is {found}, expected {md5}")
    part.replace(path)


def receive(url: str, part: Path, observe: Observer) -> None:
    """Appends to a partial file what is missing of it; an address that cannot resume starts anew.

    Raises:
        OSError: when the connection fails or ends early.
        StorageError: when the disk is full.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
        resumes = answer.status == http.client.PARTIAL_CONTENT
        have = have if resumes else 0
        total = have + int(answer.headers.get("Content-Length", 0))
        with part.open("ab" if resumes else "wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                with storage_errors(part, "Make room, or set TMPDIR to another folder."):
                    file.write(chunk)
                have += len(chunk)
                observe(have, total)
    if have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def reason(error: Exception) -> str:
    """Returns why a connection failed, in few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
