"""Who trains with whom, where and how precisely; alone, it is the identity."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from resnetkit.errors import UsageError

__all__ = [
    "ChosenPrecision",
    "World",
    "choose_device",
    "choose_precision",
    "keep_freed_memory",
    "open_world",
]


@dataclass(frozen=True)
class World:
    """The processes that train together.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Returns whether this process writes files."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """Returns the same tensor of every rank, stacked: (size, *shape)."""
        if self.size == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over all ranks, added in the order of the ranks."""
        return self.gather(values).sum(0)

    def any(self, *flags: bool) -> list[bool]:
        """Returns for each flag whether it is set on any rank."""
        if self.size == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int32, device=self.device)
        return [bool(vote) for vote in self.gather(votes).amax(0)]

    def barrier(self) -> None:
        """Returns when every rank has come here."""
        self.any(False)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns a module whose backward pass averages the gradients over all ranks."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)

    def no_sync(self, parallel: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Returns the context of one part of a batch: ranks average gradients after the last."""
        if isinstance(parallel, nn.parallel.DistributedDataParallel) and not last:
            waiting: AbstractContextManager[None] = parallel.no_sync()
            return waiting
        return nullcontext()

    def share_buffers(self, model: nn.Module) -> None:
        """Gives every rank the running statistics of rank 0."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


@contextmanager
def open_world(device: str = "auto") -> Iterator[World]:
    """Joins the processes that `torchrun` started, or stands alone; leaves torch as it was.

    Args:
        device: auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.

    Raises:
        UsageError: when the device does not exist.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = choose_device(device)
    joined = size > 1 and not distributed.is_initialized()
    threads_before = torch.get_num_threads()
    torch.set_flush_denormal(True)  # processors are slow at numbers below 1e-38
    keep_freed_memory()
    if joined:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        with repeatable(chosen):
            yield World(rank, size, chosen)
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(False)
        if joined:
            distributed.destroy_process_group()


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library


def keep_freed_memory() -> None:
    """Makes the GNU C library keep the memory of activations for the next step.

    It would give large blocks back to the system, which hands them out again page by page, zeroed:
    an eighth of a training step of ResNet-20 (docs/log.md). Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(M_MMAP_THRESHOLD, 2**30):  # older ones refuse so much
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2**26)


def choose_device(device: str) -> torch.device:
    """Returns the device that a word names; of several GPUs, the one of this rank."""
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
def repeatable(device: torch.device) -> Iterator[None]:
    """Makes a GPU give the same bits each time, as a CPU with as many threads does anyway."""
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


@dataclass(frozen=True)
class ChosenPrecision:
    """What the forward pass computes in.

    Attributes:
        name: float32 or bfloat16.
        reason: why, in words.
        device_type: cpu or cuda.
    """

    name: Literal["float32", "bfloat16"]
    reason: str
    device_type: str

    def autocast(self) -> AbstractContextManager[object]:
        """Returns the context of a forward pass; in float32 it changes nothing."""
        return torch.autocast(
            self.device_type, dtype=torch.bfloat16, enabled=self.name == "bfloat16"
        )


def choose_precision(requested: str, device: torch.device) -> ChosenPrecision:
    """Returns the precision asked for; for `auto`, bfloat16 where there are instructions for it.

    float16 is not offered: on CPUs its matrix products are up to a thousand times slower (pytorch
    193951).
    """
    if requested == "float32":
        return ChosenPrecision("float32", "the recipe asks for it", device.type)
    if requested == "bfloat16":
        return ChosenPrecision("bfloat16", "the recipe asks for it", device.type)
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return ChosenPrecision("bfloat16", "this GPU has bfloat16 matrix units", device.type)
        return ChosenPrecision("float32", "this GPU has no bfloat16 matrix units", device.type)
    found = [name for name in ("amx_bf16", "avx512_bf16") if cpu_capabilities().get(name)]
    if found:
        return ChosenPrecision("bfloat16", f"this processor has {found[0]}", device.type)
    return ChosenPrecision("float32", "this processor has no bfloat16 instructions", device.type)


def cpu_capabilities() -> dict[str, object]:
    """Returns what torch knows of the processor's instructions, by name."""
    return dict(torch.cpu.get_capabilities())
