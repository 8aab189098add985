"""Access to the Hugging Face Hub: verified files, and failures as errors of this package.

`huggingface_hub` transfers files and manages the cache that timm and transformers share. What it
does not check is checked here: the form of the digest and the commit that a server states, the size
of a file before its download, redirects from https to http, and the digest after the download.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resnetkit.download import MOST_BYTES, Digest, Observer, check_online
from resnetkit.errors import ResnetkitError, TransferError
from resnetkit.storage import storage_errors
from resnetkit.untrusted import printable
from resnetkit.weights.published import hub_address, hub_cache

__all__ = ["HubClient", "check_size", "digest_named", "hub_client"]

COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NEEDS_LOGIN = (401, 403, 404)  # answers of the Hub about private or protected repositories
ADVICE = "Set HF_HOME to a folder that can be written."


def progress_class(observe: Observer) -> type:
    """Returns a class to use as a progress bar in huggingface_hub, which only calls an observer."""

    class FileProgress:
        def __init__(self, *_: object, total: int | None = None, initial: int = 0, **__: object):
            self.total, self.done = total or 0, initial

        def __enter__(self) -> "FileProgress":
            return self

        def __exit__(self, *_: object) -> None:
            """Does nothing: there is no bar to be closed."""

        def update(self, count: int = 1) -> None:
            """Reports more bytes."""
            self.done += count
            observe(self.done, self.total)

    return FileProgress


@dataclass(frozen=True)
class HubClient:
    """A repository of the Hub.

    Attributes:
        repository: OWNER/NAME.
        library: the module huggingface_hub, which is imported only when it is needed.
        api: its `HfApi`.
        token: False to send none, None for the user's own.
    """

    repository: str
    library: Any
    api: Any
    token: Any = None

    def download(
        self,
        name: str,
        *,
        revision: str = "main",
        digest: Digest | None = None,
        observe: Observer | None = None,
    ) -> Path:
        """Downloads a file to the cache, unless it is there already, and returns its path.

        Args:
            name: name of the file in the repository.
            revision: branch or commit.
            digest: expected digest; by default the one that the server states for the file.
            observe: see `Observer`.

        Raises:
                TransferError: if the server does not describe the file, or the digest differs.
        """
        stated = self.stated_digest(name, revision)
        digest = digest or stated
        for is_repeated in (False, True):  # the file in the cache may be corrupt
            path = Path(
                self.library.hf_hub_download(
                    self.repository,
                    name,
                    revision=revision,
                    cache_dir=hub_cache(),
                    endpoint=hub_address(),
                    token=self.token,
                    force_download=is_repeated,
                    tqdm_class=observe and progress_class(observe),
                )
            )
            if digest.matches(path):
                return path
        actual = digest.of(path)
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise TransferError(
            f"{self.repository} sent another file as {name}: its {digest} is {actual}, expected"
            f" {digest.beginning}. It was removed."
        )

    def stated_digest(self, name: str, revision: str) -> Digest:
        """Returns the digest that the server states for a file, before the file is downloaded.

        Raises:
            TransferError: if it states no digest or commit, or the file must not be downloaded.
        """
        url = self.library.hf_hub_url(
            self.repository, name, revision=revision, endpoint=hub_address()
        )
        facts = self.library.get_hf_file_metadata(url, token=self.token, endpoint=hub_address())
        digest, commit = facts.etag or "", facts.commit_hash or ""
        # Both become names of files in the cache.
        if not DIGEST.fullmatch(digest) or not COMMIT.fullmatch(commit):
            raise TransferError(
                f"{url} does not answer as the Hugging Face Hub does: expected a commit and a"
                " digest in the headers. Is HF_ENDPOINT right?"
            )
        check_size(self.repository, name, facts.size)
        if urlsplit(url).scheme == "https" and urlsplit(facts.location).scheme != "https":
            raise TransferError(
                f"{url} redirects from https to http, where the file could be changed: this is not"
                " followed."
            )
        return digest_named(digest)


def digest_named(name: str) -> Digest:
    """Returns a digest as the Hub states it: SHA-256 of large files, Git's SHA-1 of small ones."""
    return Digest("git" if len(name) == 40 else "sha256", name)


def check_size(repository: str, name: str, size: int | None) -> None:
    """Checks the announced size of a file, in bytes.

    Raises:
        TransferError: if no file of weights is that large.
    """
    if (size or 0) > MOST_BYTES:
        raise TransferError(
            f"{repository} lists {size:,} bytes of {name}: expected at most {MOST_BYTES:,}."
        )


@contextmanager
def hub_client(repository: str, *, token: bool | None = None) -> Iterator[HubClient]:
    """Yields a client for a repository; what huggingface_hub raises becomes one of our errors.

    Raises:
        TransferError: if downloads are forbidden, or the Hub or the connection fails.
        StorageError: if the cache cannot be written.
    """
    check_online()
    import huggingface_hub as library  # here, since only these commands need it

    api = library.HfApi(endpoint=hub_address(), library_name="resnetkit", token=token)
    try:
        yield HubClient(repository, library, api, token)
    except ResnetkitError:
        raise
    except Exception as error:  # its HTTP client and its uploader have no common base class
        if isinstance(error, OSError) and error.errno is not None and response_of(error) is None:
            with storage_errors(hub_cache(), ADVICE):
                raise
        raise TransferError(f"{repository} at {hub_address()}: {reason(error)}.") from error


def response_of(error: Exception) -> Any:
    """Returns the HTTP response that an error of huggingface_hub comes with; None without one."""
    return getattr(error, "response", None)


def reason(error: Exception) -> str:
    """Returns the answer of the Hub or the network in one line, with advice."""
    response = response_of(error)
    message = getattr(error, "server_message", None) or " ".join(str(error).split())
    message = printable((message or type(error).__name__)[:300]).rstrip(". ")
    if response is None:
        return message
    login = ". For a private repository, and to push, log in with 'hf auth login' or set HF_TOKEN"
    advice = login if response.status_code in NEEDS_LOGIN else ""
    return f"the Hub answers {response.status_code}: {message}{advice}"
