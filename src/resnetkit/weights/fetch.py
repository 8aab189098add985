"""Downloads of published weights, verified, into the caches of their libraries."""

import os
import re
from pathlib import Path

from resnetkit.download import Digest, Observer, download
from resnetkit.errors import UsageError, did_you_mean
from resnetkit.storage import storage_errors
from resnetkit.weights.hub_client import digest_named, hub_client
from resnetkit.weights.published import (
    PublishedWeights,
    find_published,
    hub_cache,
    published,
    similar,
)

__all__ = ["fetch_weights"]

ADVICE = "Set TORCH_HOME to a folder that can be written."
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
    fetch_file(url, entry.cache / file, entry.cache, Digest("sha256", entry.sha256), observe)


def fetch_from_hub(entry: PublishedWeights, observe: Observer) -> None:
    """Downloads the files of a repository, all of one commit, to the cache of huggingface_hub."""
    hub_cache()  # which may not be known: then nothing is asked
    revision = "main"
    with hub_client(entry.source, token=False) as client:  # they are public
        for file in entry.files:
            path = client.download(file, revision=revision, observe=observe)
            revision = path.parent.name  # the commit, whatever is published meanwhile


def fetch_file(url: str, path: Path, locks: Path, digest: Digest, observe: Observer) -> None:
    """Downloads a file that no other process is downloading, unless it is there already."""
    with storage_errors(path, ADVICE):
        path.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
    lock = locks / f"{path.name}.lock"
    download([url], path, digest=digest, observe=observe, lock=lock, advice=ADVICE)
