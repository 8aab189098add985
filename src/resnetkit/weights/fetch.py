"""Published weights brought to this machine, verified, into the caches of their libraries."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from resnetkit.download import Digest, Observer, download, headers_of
from resnetkit.errors import TransferError, UsageError, did_you_mean
from resnetkit.storage import storage_errors, temporary_for, write_file
from resnetkit.weights.published import (
    COMMIT,
    PublishedWeights,
    find_published,
    hub_address,
    hub_cache,
    published,
    similar,
)

__all__ = ["digest_named", "fetch_weights"]

ADVICE = "Set TORCH_HOME (torchvision) or HF_HOME (timm) to a folder that can be written."
HEXADECIMAL = re.compile(r"[0-9a-f]+")


def fetch_weights(name: str, *, observe: Observer = lambda done, total: None) -> Path:
    """Brings published weights to this machine and returns what `load_network` reads.

    What is in the cache and is what it should be is not fetched again.

    Args:
        name: of `published()`.
        observe: is told how many bytes of how many of a file have come.

    Raises:
        UsageError: for an unknown name.
        TransferError: when they cannot be reached, or what comes is something else.
        StorageError: when the cache cannot be written.
    """
    entry = find_published(name)
    if entry is None:
        hint = similar(name) or did_you_mean(name, published())
        raise UsageError(
            f"there are no published weights '{name}': expected a name of 'resnet weights list'."
            + hint
        )
    place = entry.place
    if place is not None and is_whole(entry, place):
        return place
    if entry.library == "torchvision":
        fetch_from_torchvision(entry, observe)
    else:
        fetch_from_hub(entry, observe)
    return entry.located()


def is_whole(entry: PublishedWeights, place: Path) -> bool:
    """Returns whether files of a cache are what they should be, as far as the cache says it."""
    if place.is_file():
        return Digest("sha256", entry.sha256).matches(place)
    blobs = [(place / file).resolve() for file in entry.files]
    return all(
        digest_named(blob.name).matches(blob) for blob in blobs if HEXADECIMAL.fullmatch(blob.name)
    )


def fetch_from_torchvision(entry: PublishedWeights, observe: Observer) -> None:
    """Downloads the file of torchvision to where torch.hub looks for it."""
    (file,) = entry.files
    base = os.environ.get("RESNETKIT_WEIGHTS_URL")
    url = f"{base.rstrip('/')}/{file}" if base else entry.source
    fetch_file(url, entry.folder / file, entry.folder, Digest("sha256", entry.sha256), observe)


@dataclass(frozen=True)
class HubFile:
    """A file as the Hub describes it.

    Attributes:
        commit: that it is of.
        digest: what it must hash to.
    """

    commit: str
    digest: Digest


def fetch_from_hub(entry: PublishedWeights, observe: Observer) -> None:
    """Downloads a repository's files to where huggingface_hub looks for them.

    `blobs/` holds them by digest, `snapshots/<commit>/` links to them by name, and `refs/main` says
    which commit is the newest.
    """
    folder = entry.folder  # which may not be known: then nothing is asked
    revision = "main"
    for file in entry.files:
        url = f"{hub_address()}/{entry.source}/resolve/{revision}/{file}"
        found = described(url)
        revision = found.commit  # of all files the same, whatever is published meanwhile
        blob = folder / "blobs" / found.digest.beginning
        locks = hub_cache() / ".locks" / folder.name
        fetch_file(url, blob, locks, found.digest, observe)
        link(folder / "snapshots" / revision / file, blob)
    with storage_errors(folder, ADVICE):
        (folder / "refs").mkdir(exist_ok=True)
        write_file(folder / "refs" / "main", revision)


def described(url: str) -> HubFile:
    """Asks the Hub for commit and digest of a file.

    Raises:
        TransferError: when it does not say them.
    """
    headers = headers_of(url, "X-Linked-ETag")
    tag = headers.get("X-Linked-ETag") or headers.get("ETag") or ""
    digest, commit = tag.removeprefix("W/").strip('"'), headers.get("X-Repo-Commit") or ""
    # Both become names of files: nothing but digits may be in them.
    if not (HEXADECIMAL.fullmatch(digest) and len(digest) in (40, 64) and COMMIT.fullmatch(commit)):
        raise TransferError(
            f"{url} does not answer as the Hugging Face Hub does: expected a commit and a digest in"
            " its headers. Is HF_ENDPOINT right?"
        )
    return HubFile(commit, digest_named(digest))


def digest_named(name: str) -> Digest:
    """Returns the digest that the Hub gives a file: SHA-256 of large ones, Git's of small ones."""
    return Digest("git" if len(name) == 40 else "sha256", name)


def fetch_file(url: str, path: Path, locks: Path, digest: Digest, observe: Observer) -> None:
    """Downloads a file that no other process is downloading, unless it is there already."""
    with storage_errors(path, ADVICE):
        path.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
    lock = locks / f"{path.name}.lock"
    download([url], path, digest=digest, observe=observe, lock=lock, advice=ADVICE)


def link(path: Path, blob: Path) -> None:
    """Makes a name of a snapshot lead to its content."""
    with storage_errors(path, ADVICE):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.resolve() != blob.resolve():
            temporary = temporary_for(path)  # another process may make the same link now
            temporary.symlink_to(Path("../..") / "blobs" / blob.name)
            temporary.replace(path)
