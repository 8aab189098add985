"""The processes that train together, as started by `torchrun`; without it, a single one."""

import os
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.futures import Future
from torch.nn import functional

from resnetkit.errors import ResnetkitError, UsageError
from resnetkit.runtime.background import in_background
from resnetkit.runtime.device import (
    choose_device,
    deterministic,
    full_float32,
    number_of_process,
)
from resnetkit.runtime.memory import keep_freed_memory

__all__ = ["World", "open_world"]

PATIENCE = timedelta(minutes=10)  # with the other processes, before they count as lost
SIGN_OF_LIFE = 60.0  # seconds between those of a rank for which the others wait


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
        """Returns the values of every rank, stacked: (size, *shape)."""
        if self.size == 1:
            return values[None]
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(gathered, values.contiguous())
        return torch.stack(gathered)

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
        """Waits until every rank has reached this call."""
        self.any(False)

    def main_first(self, work: Callable[[], object]) -> None:
        """Calls a function on the main rank; the others wait for it, however long it takes.

        What it raises is raised on the main rank, and the others lose the connection when that
        rank ends. If one of them is lost, or Ctrl-C is pressed, the main rank does not wait for the
        end of the work.
        """
        if self.size == 1:
            work()
        elif self.is_main:
            result = in_background(work)
            while not futures.wait([result], timeout=SIGN_OF_LIFE).done:
                self.any(False)
            result.result()
            self.any(True)
        else:
            while not self.any(False)[0]:
                pass

    def wrap(self, model: nn.Module) -> nn.Module:
        """Returns a module whose backward pass averages the gradients over all ranks."""
        if self.size == 1:
            return model
        parallel = nn.parallel.DistributedDataParallel(model)
        if self.size > 2:  # the sum of two numbers does not depend on their order
            parallel.register_comm_hook(self, average_in_order)
        return parallel

    def no_sync(self, parallel: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Returns the context of a micro-batch: ranks average gradients only after the last."""
        if isinstance(parallel, nn.parallel.DistributedDataParallel) and not last:
            context: AbstractContextManager[None] = parallel.no_sync()
            return context
        return nullcontext()

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Gives every rank the running statistics of rank 0."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)


def average_in_order(
    world: World,
    bucket: distributed.GradBucket,  # type: ignore[name-defined]
) -> Future[Tensor]:
    """Averages gradients over all ranks; each number is added in the order of the ranks.

    In torch's all-reduce the order depends on the position of a number, which is another one in the
    first backward pass of a process than in later ones: a resumed training would differ.

    As there, each rank adds up one part and sends it to the others. The order costs the overlap of
    the first of these exchanges with the rest of the backward pass, which waits for it: a second
    exchange that a callback of the first starts could start in another order on another rank.
    """
    gradients = bucket.buffer()
    parts = functional.pad(gradients, (0, -len(gradients) % world.size))
    summands = torch.empty_like(parts)  # this rank's part, of every rank
    distributed.all_to_all_single(summands, parts)
    mean = reduce(torch.add, summands.chunk(world.size)) / world.size
    sending = distributed.all_gather(list(parts.chunk(world.size)), mean, async_op=True)
    return sending.get_future().then(lambda _: parts[: len(gradients)])


@contextmanager
def open_world(device: str = "auto") -> Iterator[World]:
    """Joins the processes that `torchrun` started, if any; restores torch's settings afterwards.

    Args:
        device: auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.

    Raises:
        UsageError: when the device does not exist, or the environment is not that of torchrun.
        ResnetkitError: when another process is lost.
    """
    rank, size = number_of_process("RANK", 0), number_of_process("WORLD_SIZE", 1)
    chosen = choose_device(device)
    joined = size > 1 and not distributed.is_initialized()
    threads_before = torch.get_num_threads()
    torch.set_flush_denormal(True)  # processors are slow at numbers below 1e-38
    keep_freed_memory()
    try:
        if joined:
            join(rank, size, "nccl" if chosen.type == "cuda" else "gloo")
        with deterministic(chosen), full_float32(chosen):
            yield World(rank, size, chosen)
    except RuntimeError as error:
        if size == 1 or not is_lost_connection(error):
            raise
        raise ResnetkitError(
            f"process {rank} of {size} has lost the others: one of them has ended, or could not be"
            " reached. The last checkpoint is kept, and the same command resumes from it; with"
            " 'torchrun --max-restarts 3' that happens by itself."
        ) from error
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(False)
        if joined and distributed.is_initialized():
            distributed.destroy_process_group()


def join(rank: int, size: int, backend: str) -> None:
    """Joins the other processes.

    `torchrun` may keep its store when it restarts processes. What the ended ones have left there
    must not be taken for an answer, so every start has keys of its own.

    Raises:
        UsageError: when the environment does not say where they are.
    """
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=PATIENCE))
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is {size}, but the other processes cannot be found ({error}). Start them"
            " with torchrun, or unset WORLD_SIZE."
        ) from error
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(f"resnetkit/{restart}", store)  # type: ignore[attr-defined]
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
    )


def is_lost_connection(error: RuntimeError) -> bool:
    """Returns whether an error is that of a collective operation whose other side is gone."""
    text = str(error)
    return isinstance(error, distributed.DistError) or "gloo" in text or "by peer" in text
