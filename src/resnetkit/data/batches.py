"""The order of an epoch, each rank's share of it, and where a resumed run goes on."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetkit.data.draws import Draws, Stream

__all__ = ["Batch", "TrainingBatches", "epoch_order", "evaluation_batches"]


def epoch_order(draws: Draws) -> Tensor:
    """Returns the samples in the order of an epoch, which depends on seed and epoch alone."""
    return draws.sample_ids[torch.argsort(draws.bits(Stream.ORDER), stable=True)]


@dataclass(frozen=True)
class Batch:
    """One step's samples.

    Attributes:
        step: from 0.
        epoch: from 0.
        sample_ids: int64 (batch_size,), of all ranks together.
        local_ids: int64 (batch_size / ranks,), those of this rank.
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

    Every batch is full: the samples at the end of an epoch's order that do not fill one sit this
    epoch out, and since each epoch has its own order, they are others each time. A data set
    smaller than a batch is one batch.

    Attributes:
        sample_ids: int64 (N,).
        batch_size: of all ranks together.
        seed: of the run.
        rank: of this process.
        ranks: how many processes share each batch.
    """

    sample_ids: Tensor
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1

    @property
    def size(self) -> int:
        """Returns the samples of a step, of all ranks together: as many on each."""
        shared = min(self.batch_size, len(self.sample_ids)) // self.ranks * self.ranks
        return max(1, shared)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.sample_ids) // self.size

    def between(self, start: int, stop: int) -> Iterator[Batch]:
        """Yields the batches of the steps from `start` up to, but without, `stop`."""
        epoch, position = divmod(start, self.steps_per_epoch)
        while start < stop:
            order = epoch_order(Draws(self.sample_ids, self.seed, epoch))
            for place in range(position, min(self.steps_per_epoch, position + stop - start)):
                sample_ids = order[place * self.size : (place + 1) * self.size]
                yield Batch(
                    step=start,
                    epoch=epoch,
                    sample_ids=sample_ids,
                    local_ids=sample_ids[self.rank :: self.ranks],
                    ends_epoch=place == self.steps_per_epoch - 1,
                )
                start += 1
            epoch, position = epoch + 1, 0


def evaluation_batches(
    sample_ids: Tensor, batch_size: int, *, rank: int = 0, ranks: int = 1
) -> Iterator[Tensor]:
    """Yields this rank's samples in batches; over all ranks each sample comes exactly once."""
    local_ids = sample_ids[rank::ranks]
    if len(local_ids):
        yield from local_ids.split(batch_size)
