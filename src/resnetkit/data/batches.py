"""Batches: the order of an epoch, and the samples that each rank processes at each step."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetkit.data.draws import Draws, Stream

__all__ = ["Batch", "TrainingBatches", "epoch_order", "evaluation_batches"]


def epoch_order(draws: Draws) -> Tensor:
    """Returns the sample ids in the order of an epoch, which depends only on seed and epoch."""
    return draws.sample_ids[torch.argsort(draws.bits(Stream.ORDER), stable=True)]


@dataclass(frozen=True)
class Batch:
    """The samples of one step.

    Attributes:
        step: from 0.
        epoch: from 0.
        sample_ids: int64 (batch_size,), of all ranks.
        local_ids: int64 (batch_size / ranks,), of this rank.
        ends_epoch: whether this is the last batch of its epoch.
    """

    step: int
    epoch: int
    sample_ids: Tensor
    local_ids: Tensor
    ends_epoch: bool


@dataclass(frozen=True)
class TrainingBatches:
    """All batches of a run.

    Every batch is full: the last samples of an epoch are dropped if they do not fill a batch. Each
    epoch has its own order, so different samples are dropped in each. A data set smaller than a
    batch is one batch.

    Attributes:
        sample_ids: int64 (N,).
        batch_size: number of samples per step, over all ranks.
        seed: of the run.
        rank: of this process.
        ranks: number of processes that share each batch.
    """

    sample_ids: Tensor
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1

    @property
    def size(self) -> int:
        """Returns the number of samples per step, over all ranks: a multiple of their number."""
        divisible = min(self.batch_size, len(self.sample_ids)) // self.ranks * self.ranks
        return max(1, divisible)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.sample_ids) // self.size

    def between(self, start: int, stop: int) -> Iterator[Batch]:
        """Yields the batches of the steps from `start` to `stop`, exclusive."""
        epoch, position = divmod(start, self.steps_per_epoch)
        while start < stop:
            order = epoch_order(Draws(self.sample_ids, self.seed, epoch))
            for index in range(position, min(self.steps_per_epoch, position + stop - start)):
                sample_ids = order[index * self.size : (index + 1) * self.size]
                yield Batch(
                    step=start,
                    epoch=epoch,
                    sample_ids=sample_ids,
                    local_ids=sample_ids[self.rank :: self.ranks],
                    ends_epoch=index == self.steps_per_epoch - 1,
                )
                start += 1
            epoch, position = epoch + 1, 0


def evaluation_batches(
    sample_ids: Tensor, batch_size: int, *, rank: int = 0, ranks: int = 1
) -> Iterator[Tensor]:
    """Yields the samples of this rank in batches; each sample belongs to exactly one rank."""
    local_ids = sample_ids[rank::ranks]
    if len(local_ids):
        yield from local_ids.split(batch_size)
