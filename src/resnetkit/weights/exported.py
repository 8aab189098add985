"""Recognizes exported networks, which engines compute and no file of weights describes."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnetkit.errors import WeightsError
from resnetkit.untrusted import parse_json, read_bounded

__all__ = ["CONFIG_FILE", "EXPORTED", "config_digest", "is_exported", "read_config"]

EXPORTED = "resnetkit-exported"
"""The value of `format` in the config.json of an exported network."""

CONFIG_FILE = "config.json"
LARGEST_CONFIG = 2**24  # bytes; 20,000 classes with long names have 2 MB


def is_exported(path: Path) -> bool:
    """Returns whether a path is the folder of an exported network, intact or not."""
    if not os.path.isfile(path / CONFIG_FILE):
        return False
    try:
        config = parse_json(read_bounded(path / CONFIG_FILE, LARGEST_CONFIG))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == EXPORTED


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the config.json of an exported network, of which nothing is checked yet.

    Raises:
        WeightsError: when it cannot be read, or describes something else.
    """
    path = folder / CONFIG_FILE
    try:
        config = parse_json(read_bounded(path, LARGEST_CONFIG))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror or error}. Expected the folder of an exported"
            " network, as 'resnet export' writes it."
        ) from error
    except ValueError as error:
        raise WeightsError(
            f"{path} is corrupt ({str(error)[:300]}). Restore the folder, or export again."
        ) from error
    if not isinstance(config, dict) or config.get("format") != EXPORTED:
        raise WeightsError(
            f"{folder} holds no exported network: its {CONFIG_FILE} describes something else."
            " 'resnet export' writes such a folder."
        )
    return config


def config_digest(config: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a configuration without its digests, whatever its whitespace."""
    content = {key: value for key, value in config.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
