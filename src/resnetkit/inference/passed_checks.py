"""Remembers which exported networks have answered on this machine as on export.

An entry is a file in the cache. It holds all facts that the answers depend on and is named after
their digest. Only a file with exactly the content that would be written now counts, so that there
is nothing to parse or to believe in it: a corrupt or altered file is no entry. Without an entry all
golden images are computed, and nothing else changes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from resnetkit.errors import StorageError
from resnetkit.inference.exported import ExportedNetwork
from resnetkit.runtime.processor import processor_identity
from resnetkit.runtime.resources import usable_processors
from resnetkit.storage import cache_folder, write_file
from resnetkit.untrusted import read_bounded

__all__ = ["MOST_ENTRIES", "facts_of", "has_passed", "remember"]

FOLDER = "passed_checks"  # in the cache
MOST_ENTRIES = 100
PACKAGES = ("resnetkit", "openvino", "onnxruntime")

Facts = Mapping[str, object]


def facts_of(network: ExportedNetwork, precision: str) -> Facts:
    """Returns what the answers of an exported network depend on.

    Its files are named by their digests: an entry counts for verified files only.

    Args:
        network: its engine need not be compiled.
        precision: of its computation on this machine.
    """
    return {
        "files": digest(json.dumps(network.config.sha256, sort_keys=True).encode()),
        "engine": network.config.engine,
        "precision": precision,
        "threads": usable_processors(),
        "processor": processor_identity(),
        "versions": {package: version_of(package) for package in PACKAGES},
    }


def version_of(package: str) -> str:
    """Returns the version of a package; empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def has_passed(facts: Facts) -> bool:
    """Returns whether there is an entry with these facts."""
    content = content_of(facts)
    try:
        return read_bounded(path_of(content), len(content)) == content
    except (OSError, StorageError):  # there is none, or no cache at all
        return False


def remember(facts: Facts) -> None:
    """Writes an entry if the cache can be written, and removes the oldest above `MOST_ENTRIES`."""
    content = content_of(facts)
    with suppress(OSError, StorageError):
        path = path_of(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
        entries = sorted(path.parent.iterdir(), key=os.path.getmtime, reverse=True)
        for oldest in entries[MOST_ENTRIES:]:
            oldest.unlink(missing_ok=True)


def content_of(facts: Facts) -> bytes:
    """Returns the content of an entry."""
    return json.dumps(facts, sort_keys=True, indent=1).encode()


def path_of(content: bytes) -> Path:
    """Returns the file of an entry.

    Raises:
        StorageError: when this user has no cache folder.
    """
    return cache_folder() / FOLDER / f"{digest(content)}.json"


def digest(content: bytes) -> str:
    """Returns the SHA-256 of some bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
