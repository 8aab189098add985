"""The device of this process, and deterministic results on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from resnetkit.errors import UsageError

__all__ = ["choose_device", "deterministic"]


def choose_device(device: str) -> torch.device:
    """Returns the device that the user has chosen.

    Args:
        device: auto, cpu, cuda or cuda:N; of several GPUs, `cuda` is the one of this rank.

    Raises:
        UsageError: when the device is unknown or does not exist.
    """
    try:
        chosen = torch.device(default_device() if device == "auto" else device)
    except RuntimeError:
        raise UsageError(
            f"unknown device '{device}': expected auto, cpu, cuda or cuda:N."
        ) from None
    if chosen.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device '{device}': expected auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda":
        chosen = torch.device(
            "cuda", int(os.environ.get("LOCAL_RANK", 0)) if chosen.index is None else chosen.index
        )
        if not torch.cuda.is_available() or chosen.index >= torch.cuda.device_count():
            raise UsageError(
                f"there is no device '{chosen}' here: {torch.cuda.device_count()} GPUs were found."
                " Use --device cpu, or auto."
            )
        torch.cuda.set_device(chosen)
    return chosen


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Selects deterministic GPU kernels; a CPU with the same number of threads needs none."""
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill
