"""Chooses the network, image size, epochs and cache of a training that ends in a given time.

All of it is arithmetic on seconds that were measured, so that the same seconds give the same plan.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from resnetkit.training.preprocessing import NORMALIZED_ON

__all__ = [
    "Candidate",
    "EpochRange",
    "Plan",
    "ReadCost",
    "StepCost",
    "Workload",
    "plan_training",
    "scaled_costs",
]

FORWARD = 1 / 3  # of a training step: the backward pass costs about twice the forward pass
WORTH_CACHING = 0.95  # of the time without a cache


@dataclass(frozen=True)
class Candidate:
    """A network, and the side of its square input in pixels."""

    network: str
    image_size: int


@dataclass(frozen=True)
class StepCost:
    """Seconds of the training steps of a candidate.

    Attributes:
        per_image: forward and backward pass of one image.
        update: of the optimizer, in each step.
        save: of a checkpoint.
    """

    per_image: float
    update: float
    save: float


@dataclass(frozen=True)
class ReadCost:
    """Seconds for one image, when images are read on all processors at the same time.

    Attributes:
        check: to decode all of it, as before the first step.
        crop: to decode a crop from its file.
        cached_crop: to read a crop from the cache of decoded images.
    """

    check: float
    crop: float
    cached_crop: float


@dataclass(frozen=True)
class Workload:
    """The images that a training processes, and how.

    Attributes:
        train: number of training images.
        validation: number of validation images, which are measured after every epoch.
        test: number of test images.
        checked: number of images that are decoded before the first step.
        batch_size: images in a step, of all ranks together.
        ranks: processes that train together.
        overlaps: whether images are read while the network computes: on a GPU.
        can_cache: whether decoded images may be cached, and fit on the disk.
        must_cache: whether they are cached in any case.
    """

    train: int
    validation: int
    test: int
    checked: int
    batch_size: int
    ranks: int = 1
    overlaps: bool = False
    can_cache: bool = True
    must_cache: bool = False

    @property
    def images(self) -> int:
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class EpochRange:
    """Limits on the number of epochs.

    Attributes:
        fewest: the least number of epochs.
        enough: number of epochs that must fit for a larger network or image size to be chosen.
        most: the largest number of epochs; more are of little use.
    """

    fewest: int
    enough: int
    most: int


@dataclass(frozen=True)
class Plan:
    """The chosen network, image size, number of epochs and cache.

    Attributes:
        candidate: network and image size.
        epochs: number of epochs.
        is_cached: whether decoded images are cached on disk.
        epoch_seconds: predicted for one epoch, with its evaluation and checkpoint.
        seconds: predicted for the whole training.
        fits: whether it ends in time.
        passed_over: the next larger candidate and the epochs that it would have had; None if the
            largest was chosen.
    """

    candidate: Candidate
    epochs: int
    is_cached: bool
    epoch_seconds: float
    seconds: float
    fits: bool
    passed_over: tuple[Candidate, int] | None = None


def plan_training(
    work: Workload,
    read: ReadCost,
    steps: Mapping[Candidate, StepCost],
    epochs: EpochRange,
    *,
    seconds: float,
) -> Plan:
    """Chooses the first candidate that leaves enough epochs, or else the last one.

    Args:
        work: the images to process.
        read: seconds for reading an image.
        steps: seconds for the steps of each candidate, the most desirable first.
        epochs: how many there may be.
        seconds: in which the training should end.
    """
    passed_over = None
    for candidate, step in steps.items():
        plan = replace(
            planned(work, read, candidate, step, epochs, seconds=seconds), passed_over=passed_over
        )
        if plan.fits and plan.epochs >= epochs.enough:
            break
        passed_over = candidate, plan.epochs
    return plan


def planned(
    work: Workload,
    read: ReadCost,
    candidate: Candidate,
    step: StepCost,
    epochs: EpochRange,
    *,
    seconds: float,
) -> Plan:
    """Returns the plan for one candidate, with as many epochs as fit."""
    choices = []
    for is_cached in (work.must_cache, True) if work.can_cache else (work.must_cache,):
        around, epoch = seconds_of(work, read, step, is_cached=is_cached)
        count = min(max(math.floor((seconds - around) / epoch), epochs.fewest), epochs.most)
        choices.append(Plan(candidate, count, is_cached, epoch, around + count * epoch, fits=False))
    plan, cached = choices[0], choices[-1]
    longest = max(plan.epochs, cached.epochs)
    if at_length(cached, longest) < WORTH_CACHING * at_length(plan, longest):
        plan = cached
    return replace(plan, fits=plan.seconds <= seconds)


def at_length(plan: Plan, epochs: int) -> float:
    """Returns the seconds that a plan would take with another number of epochs."""
    return plan.seconds + (epochs - plan.epochs) * plan.epoch_seconds


def seconds_of(
    work: Workload, read: ReadCost, step: StepCost, *, is_cached: bool
) -> tuple[float, float]:
    """Returns the seconds before and after all epochs, and those of one epoch."""
    reading = read.cached_crop if is_cached else read.crop
    computing = step.per_image
    trained = max(computing, reading) if work.overlaps else computing + reading
    evaluated = (FORWARD * computing + read.crop) / work.ranks
    updates = math.ceil(work.train / work.batch_size)
    epoch = (
        work.train * trained / work.ranks
        + updates * step.update
        + work.validation * evaluated
        + step.save
    )
    before = work.checked * read.check + min(work.train, NORMALIZED_ON) * read.crop
    if is_cached:
        before += work.images * read.crop
    return before + work.images * evaluated + step.save, epoch


def scaled_costs(
    measured: Mapping[Candidate, StepCost],
    candidates: Sequence[Candidate],
    multiply_adds: Callable[[Candidate], int],
) -> dict[Candidate, StepCost]:
    """Returns the seconds of all candidates; those that were not measured are scaled.

    The time of a network at another image size is proportional to its multiply-adds.

    Args:
        measured: at least one candidate of every network.
        candidates: in the order of the result.
        multiply_adds: of a candidate, for one image.
    """
    costs = {}
    for candidate in candidates:
        nearest = min(
            (other for other in measured if other.network == candidate.network),
            key=lambda other: abs(other.image_size - candidate.image_size),
        )
        ratio = multiply_adds(candidate) / multiply_adds(nearest)
        cost = measured[nearest]
        costs[candidate] = replace(cost, per_image=cost.per_image * ratio)
    return costs
