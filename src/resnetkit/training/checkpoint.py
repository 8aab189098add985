"""Atomic, verified checkpoints: safetensors and JSON, with the SHA-256 of each file."""

import hashlib
import json
import shutil
from collections.abc import Collection
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.storage import remove_leftovers, replaced_folder, write_synced
from resnetkit.untrusted import parse_json, read_bounded

__all__ = [
    "Tensors",
    "checkpoint_steps",
    "load_checkpoint",
    "remove_old_checkpoints",
    "save_checkpoint",
    "tensors_to_bytes",
]

LARGEST_FILE = 2**34  # bytes; the largest network of the zoo has 0.4 GB of weights
LARGEST_MANIFEST = 2**20

Tensors = dict[str, dict[str, Tensor]]
"""Named tensors of each file, such as {"model": {...}, "optimizer": {...}}."""


def save_checkpoint(folder: Path, step: int, tensors: Tensors, state: dict[str, object]) -> Path:
    """Writes the folder `step-<step>`, atomically.

    Args:
        folder: of the checkpoints.
        step: steps done.
        tensors: one safetensors file for each group.
        state: the content of state.json.

    Raises:
        OSError: when writing fails; earlier checkpoints are untouched.
    """
    contents = {f"{name}.safetensors": tensors_to_bytes(group) for name, group in tensors.items()}
    contents["state.json"] = json.dumps(state, indent=1).encode()
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents["manifest.json"] = json.dumps(manifest, indent=1).encode()
    path = folder / f"step-{step}"
    with replaced_folder(path) as temporary:
        for name, content in contents.items():
            write_synced(temporary / name, content)
    return path


def tensors_to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Returns the content of a safetensors file."""
    return safetensors.torch.save({name: t.detach().contiguous() for name, t in tensors.items()})


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, oldest first."""
    names = [path.name.removeprefix("step-") for path in folder.glob("step-*")]
    return sorted(int(name) for name in names if name.isdecimal())


def remove_old_checkpoints(folder: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Removes old checkpoints, and temporary files of killed processes.

    Args:
        folder: of the checkpoints.
        keep: how many of the newest are kept.
        spare: further steps that are kept.
    """
    for step in checkpoint_steps(folder)[:-keep]:
        if step not in spare:
            shutil.rmtree(folder / f"step-{step}")
    remove_leftovers(folder)


def load_checkpoint(folder: Path, step: int) -> tuple[Tensors, object]:
    """Reads a checkpoint, with the digest of every file verified.

    Returns:
        The tensors of each file, on the CPU, and the content of state.json.

    Raises:
        WeightsError: when a file is missing or corrupt.
    """
    path = folder / f"step-{step}"
    contents = {}
    for name, digest in read_manifest(path).items():
        try:
            contents[name] = read_bounded(path / name, LARGEST_FILE)
        except OSError as error:
            raise corrupt(path, f"{name} cannot be read ({error.strerror})") from error
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise corrupt(path, f"{name} does not have the digest in manifest.json")
    if "state.json" not in contents:
        raise corrupt(path, "state.json is not in its manifest")
    state: object = None
    tensors: Tensors = {}
    for name, content in contents.items():
        try:
            if name == "state.json":
                state = parse_json(content)
            else:
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(content)
        except (ValueError, safetensors.SafetensorError) as error:
            raise corrupt(path, f"{name} is not valid ({error})") from error
    return tensors, state


def read_manifest(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a checkpoint, by name."""
    try:
        manifest = parse_json(read_bounded(path / "manifest.json", LARGEST_MANIFEST))
        if not isinstance(manifest, dict) or not all(map(is_plain_name, manifest)):
            raise ValueError("it is not an object of file names and digests")
    except (OSError, ValueError) as error:
        raise corrupt(path, f"manifest.json cannot be read ({error})") from error
    return manifest


def is_plain_name(name: str) -> bool:
    """Returns whether a name is a file directly in the folder."""
    return name == Path(name).name and name not in ("", ".", "..")


def corrupt(path: Path, reason: str) -> WeightsError:
    """Returns the error for a corrupt checkpoint."""
    return WeightsError(
        f"the checkpoint {path} is corrupt: {reason}. Nothing was changed. Move that folder away to"
        " resume from an earlier checkpoint, or from the start if there is none; the result is the"
        " same."
    )
