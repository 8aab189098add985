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
    """Downloads published weights and returns the path that `load_network` reads.

    Files in the cache that match their digests are not downloaded again.

    Args:
        name: name in `published()`.
        observe: see `Observer`.

    Raises:
        UsageError: for an unknown name.
        TransferError: if they cannot be downloaded, or a digest differs.
        StorageError: if the cache cannot be written.
    """
    entry = find_published(name)
    if entry is None:
        hint = similar(name) or did_you_mean(name, published())
        raise UsageError(
            f"there are no published weights '{name}': expected a name of 'resnet weights list'."
            + hint
        )
    path = entry.path
    if path is not None and is_intact(entry, path):
        return path
    if entry.library == "torchvision":
        fetch_from_torchvision(entry, observe)
    else:
        fetch_from_hub(entry, observe)
    return entry.required_path()


def is_intact(entry: PublishedWeights, path: Path) -> bool:
    """Returns whether files of a cache match their digests, as far as the cache states them."""
    if path.is_file():
        return Digest("sha256", entry.sha256).matches(path)
    blobs = [(path / file).resolve() for file in entry.files]
    return all(
        digest_named(blob.name).matches(blob) for blob in blobs if HEXADECIMAL.fullmatch(blob.name)
    )


def fetch_from_torchvision(entry: PublishedWeights, observe: Observer) -> None:
    """Downloads the file of torchvision to the cache of torch.hub."""
    (file,) = entry.files
    base = os.environ.get("RESNETKIT_WEIGHTS_URL")
    url = f"{base.rstrip('/')}/{file}" if base else entry.source
    fetch_file(url, entry.cache / file, entry.cache, Digest("sha256", entry.sha256), observe)


def fetch_from_hub(entry: PublishedWeights, observe: Observer) -> None:
    """Downloads the files of a repository, all of one commit, to the cache of huggingface_hub."""
    hub_cache()  # raises before anything is requested
    revision = "main"
    with hub_client(entry.source, token=False) as client:  # they are public
        for file in entry.files:
            path = client.download(file, revision=revision, observe=observe)
            revision = path.parent.name  # the same commit for all files


def fetch_file(url: str, path: Path, locks: Path, digest: Digest, observe: Observer) -> None:
    """Downloads a file, unless it exists, under a lock that other processes wait for."""
    with storage_errors(path, ADVICE):
        path.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
    lock = locks / f"{path.name}.lock"
    download([url], path, digest=digest, observe=observe, lock=lock, advice=ADVICE)
