"""Learning-rate schedules and warm-up: the kinds of a recipe, and the rate of every step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from resnetkit.schema import Real, Section, Whole
from resnetkit.training.events import EpochEvent, IntervalEvent
from resnetkit.training.recipe_schema import Length

__all__ = [
    "LearningRate",
    "NoWarmup",
    "Schedule",
    "ScheduleState",
    "Warmup",
    "cosine",
    "linear",
    "linear_warmup",
    "one_cycle",
    "stepwise",
]


@dataclass(frozen=True)
class ScheduleState:
    """What the learning rate depends on besides the step: the errors measured so far.

    Attributes:
        below: whether the training error has been below the threshold of the warm-up.
        drops: how often the learning rate has been lowered because the error stopped falling.
        waiting_since: the epoch of the lowest error, or of the last drop.
        lowest_error: in percent, on the split that is evaluated during training.
    """

    below: bool = False
    drops: int = 0
    waiting_since: int = 0
    lowest_error: float = 100.0


START = ScheduleState()


class RateSection(Section):
    """A schedule or a warm-up that depends on the step alone.

    Attributes:
        kind: how the learning rate changes; the other keys depend on the kind.
    """

    def observe(self, event: IntervalEvent | EpochEvent, state: ScheduleState) -> ScheduleState:
        """Returns the state after an event of the training."""
        return state


class StepSchedule(RateSection):
    """The learning rate is multiplied by `factor` at each milestone.

    Attributes:
        milestones: lengths of training, such as `[32000 steps, 48000 steps]`.
        factor: what the learning rate is multiplied by.
    """

    kind: Literal["step"]
    milestones: tuple[Length, ...]
    factor: Real = Field(default=0.1, gt=0, lt=1)

    def factor_at(
        self, step: int, total: int, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        milestones = [milestone.steps(steps_per_epoch) for milestone in self.milestones]
        return stepwise(step, milestones=milestones, factor=self.factor)


class LinearSchedule(RateSection):
    """The learning rate falls linearly.

    Attributes:
        final: the last learning rate, relative to the peak.
    """

    kind: Literal["linear"]
    final: Real = Field(default=0.0, ge=0, le=1)

    def factor_at(
        self, step: int, total: int, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return linear(step, total, final=self.final)


class PlateauSchedule(RateSection):
    """The learning rate is multiplied by `factor` when the error stops falling.

    Source: He et al. 2015, sec. 3.4: divided by 10 when the error plateaus.

    Attributes:
        factor: what the learning rate is multiplied by.
        patience: epochs that pass without a lower error before the learning rate falls.
        least: how far an error must be below the lowest one to count as lower, in points of
            percent; the error is that of `evaluation.split`.
        drops: how often the learning rate falls at most.
    """

    kind: Literal["plateau"]
    factor: Real = Field(default=0.1, gt=0, lt=1)
    patience: Whole = Field(default=5, ge=1)
    least: Real = Field(default=0.1, ge=0, lt=100)
    drops: Whole = Field(default=3, ge=1, le=100)

    def factor_at(
        self, step: int, total: int, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return float(self.factor**state.drops)

    def observe(self, event: IntervalEvent | EpochEvent, state: ScheduleState) -> ScheduleState:
        if not isinstance(event, EpochEvent) or event.watched_error is None:
            return state
        if event.watched_error < state.lowest_error - self.least:
            return replace(state, lowest_error=event.watched_error, waiting_since=event.epoch)
        if event.epoch - state.waiting_since >= self.patience and state.drops < self.drops:
            return replace(state, drops=state.drops + 1, waiting_since=event.epoch)
        return state


class CosineSchedule(RateSection):
    """The learning rate follows half a cosine down (Loshchilov and Hutter 2017).

    Attributes:
        final: the last learning rate, relative to the peak.
    """

    kind: Literal["cosine"]
    final: Real = Field(default=0.0, ge=0, le=1)

    def factor_at(
        self, step: int, total: int, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return cosine(step, total, final=self.final)


class OneCycleSchedule(RateSection):
    """The learning rate rises linearly to its peak, then falls linearly (Smith 2018).

    Attributes:
        start: the first learning rate, relative to the peak.
        peak: fraction of the training after which the peak is reached.
        final: the last learning rate, relative to the peak.
    """

    kind: Literal["one-cycle"]
    start: Real = Field(default=0.04, ge=0, le=1)
    peak: Real = Field(default=0.3, gt=0, lt=1)
    final: Real = Field(default=0.0, ge=0, le=1)

    def factor_at(
        self, step: int, total: int, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return one_cycle(step, total, start=self.start, peak=self.peak, final=self.final)


Schedule = Annotated[
    StepSchedule | LinearSchedule | CosineSchedule | OneCycleSchedule | PlateauSchedule,
    Field(discriminator="kind"),
]


class NoWarmup(RateSection):
    """The schedule applies from the first step."""

    kind: Literal["none"] = "none"

    def lr_at(
        self, step: int, scheduled: float, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return scheduled


class LinearWarmup(RateSection):
    """The learning rate rises in equal increments, on top of the schedule (Goyal et al. 2017).

    Attributes:
        length: the length of the warm-up.
    """

    kind: Literal["linear"]
    length: Length

    def lr_at(
        self, step: int, scheduled: float, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return scheduled * linear_warmup(step, self.length.steps(steps_per_epoch))


class UntilErrorWarmup(RateSection):
    """The learning rate stays constant until the training error is low enough.

    Source: He et al. 2015, sec. 4.2, for the network of 110 layers. The error is the average over
    the batches since the last logged interval. The learning rate never returns to that of the
    warm-up.

    Attributes:
        lr: learning rate of the warm-up.
        below: training error that ends the warm-up, in percent.
    """

    kind: Literal["until-error"]
    lr: Real = Field(default=0.01, gt=0, le=100)
    below: Real = Field(default=80.0, gt=0, lt=100)

    def lr_at(
        self, step: int, scheduled: float, steps_per_epoch: int, state: ScheduleState = START
    ) -> float:
        return scheduled if state.below else self.lr

    def observe(self, event: IntervalEvent | EpochEvent, state: ScheduleState) -> ScheduleState:
        if isinstance(event, IntervalEvent) and event.error < self.below:
            return replace(state, below=True)
        return state


Warmup = Annotated[NoWarmup | LinearWarmup | UntilErrorWarmup, Field(discriminator="kind")]


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of a training: a schedule, with a warm-up on top of it.

    Attributes:
        peak: `optimizer.lr` of the recipe.
        schedule: factors of the peak.
        warmup: replaces or scales the scheduled rate at the beginning.
        total_steps: of the whole training.
        steps_per_epoch: of one epoch.
    """

    peak: float
    schedule: Schedule
    warmup: Warmup
    total_steps: int
    steps_per_epoch: int

    def lr(self, step: int, state: ScheduleState = START) -> float:
        """Returns the learning rate of a step, counted from 0."""
        factor = self.schedule.factor_at(step, self.total_steps, self.steps_per_epoch, state)
        return self.warmup.lr_at(step, self.peak * factor, self.steps_per_epoch, state)

    def observe(self, event: IntervalEvent | EpochEvent, state: ScheduleState) -> ScheduleState:
        """Returns the state after an event of the training."""
        return self.warmup.observe(event, self.schedule.observe(event, state))


def stepwise(step: int, *, milestones: Sequence[int], factor: float) -> float:
    """Returns factor ** (milestones reached); He et al. 2015 divide by 10 at 32k and 48k steps."""
    return float(factor ** sum(step >= milestone for milestone in milestones))


def linear(step: int, total: int, *, final: float) -> float:
    """Interpolates linearly from 1 at step 0 to `final` at step `total`."""
    return 1 + (final - 1) * step / total


def cosine(step: int, total: int, *, final: float) -> float:
    """Follows half a cosine from 1 to `final` at step `total` (Loshchilov and Hutter 2017)."""
    return final + (1 - final) * (1 + math.cos(math.pi * step / total)) / 2


def one_cycle(step: int, total: int, *, start: float, peak: float, final: float) -> float:
    """Rises linearly from `start` to 1, then falls linearly to `final` (Smith 2018).

    Args:
        step: from 0.
        total: steps of the run.
        start: factor at step 0.
        peak: fraction of the run after which the line reaches 1.
        final: factor at the end.
    """
    top = peak * total
    if step < top:
        return start + (1 - start) * step / top
    return 1 + (final - 1) * (step - top) / (total - top)


def linear_warmup(step: int, steps: int) -> float:
    """Returns a factor that rises to 1 in equal increments (Goyal et al. 2017, sec. 2.2)."""
    return min(1.0, (step + 1) / steps)
