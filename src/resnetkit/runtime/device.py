"""The device of this process, and deterministic results in full precision on it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any

import torch

from resnetkit.errors import UsageError

__all__ = ["choose_device", "deterministic", "full_float32", "number_of_process"]


def number_of_process(name: str, default: int) -> int:
    """Returns a number that `torchrun` tells each process in its environment.

    Raises:
        UsageError: when it is no number.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"{name} is '{text}': torchrun sets it to a number. Unset it.")
    return int(text)


def choose_device(device: str) -> torch.device:
    """Returns the device that the user has chosen.

    Args:
        device: auto, cpu, cuda or cuda:N; of several GPUs, `cuda` is the one of this rank.

    Raises:
        UsageError: when the device is unknown, does not exist, or is that of other ranks.
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
        chosen = gpu_of_rank() if chosen.index is None else named_gpu(chosen)
        torch.cuda.set_device(chosen)
    return chosen


def gpu_of_rank() -> torch.device:
    """Returns the GPU of this rank: each of the processes of a machine has its own.

    Raises:
        UsageError: when the machine has fewer GPUs.
    """
    rank, count = number_of_process("LOCAL_RANK", 0), torch.cuda.device_count()
    if rank and rank >= count > 0:
        raise UsageError(
            f"process {rank + 1} of this machine finds no GPU of its own: {count} GPU(s) were"
            f" found. Start at most {count} process(es) on this machine, or use --device cpu."
        )
    return existing_gpu(torch.device("cuda", rank))


def named_gpu(chosen: torch.device) -> torch.device:
    """Returns a GPU that was named; of several processes, only that of this rank.

    Raises:
        UsageError: when it is that of another rank, or does not exist.
    """
    rank, ranks = (number_of_process(name, 0) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if ranks > 1 and chosen.index != rank:
        raise UsageError(
            f"process {rank + 1} of {ranks} on this machine computes on 'cuda:{rank}', not on"
            f" '{chosen}'. With --device cuda each of them takes a GPU of its own."
        )
    return existing_gpu(chosen)


def existing_gpu(gpu: torch.device) -> torch.device:
    """Returns a GPU.

    Raises:
        UsageError: when it does not exist.
    """
    count = torch.cuda.device_count()
    if not torch.cuda.is_available() or gpu.index >= count:
        raise UsageError(
            f"there is no device '{gpu}' here: {count} GPUs were found. Use --device cpu, or auto."
        )
    return gpu


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


class FullFloat32(AbstractContextManager[None]):
    """torch's settings of float32 on GPUs while they are "ieee".

    All threads share them: the first user changes them, and the last restores what was there.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before: list[tuple[Any, str]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            backends: Any = torch.backends
            # The setting of all operations first: what inherits it is left alone, since torch does
            # not tell inherited values from others.
            for setting in (backends.cudnn, backends.cudnn.conv, backends.cuda.matmul):
                if setting.fp32_precision != "ieee":
                    self._before.append((setting, setting.fp32_precision))
                    setting.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            while self._before and not self._users:
                setting, precision = self._before.pop()
                setting.fp32_precision = precision


FULL_FLOAT32 = FullFloat32()


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Lets a GPU compute float32 in float32 rather than in TF32, torch's default in convolutions.

    TF32 keeps 10 of the 23 bits of a fraction. Meanwhile torch's older switches `allow_tf32` cannot
    be read.
    """
    return nullcontext() if device.type == "cpu" else FULL_FLOAT32
