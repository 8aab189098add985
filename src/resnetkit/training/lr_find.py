"""A learning-rate range test: the rate grows at each step until the loss increases."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from resnetkit.errors import TrainingDiverged, UsageError
from resnetkit.runtime.process_group import World, open_world
from resnetkit.training.checks import explained_bad_images
from resnetkit.training.recipe import Recipe
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.state import TrainingState
from resnetkit.training.step import apply_gradient, take_gradient

__all__ = ["RateSearch", "find_lr"]

LOWEST, HIGHEST = 1e-5, 10.0
SMOOTHING = 0.9  # weight of the running mean of the loss in each step
TOO_HIGH = 4.0  # times the lowest smoothed loss, at which the test ends
FEWEST_STEPS = 20


@dataclass(frozen=True)
class RateSearch:
    """The rates that were tried, and the losses.

    Attributes:
        rates: learning rate of each step, growing by the same factor.
        losses: smoothed loss after each step, in nats.
        suggested: a tenth of the rate of the lowest loss: high enough to learn fast, far enough
            from where training breaks down.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def check_alone(world: World) -> None:
    """Raises UsageError where several processes would search for a rate."""
    if world.size > 1:
        raise UsageError("lr-find runs in one process: start it without torchrun.")


def find_lr(
    recipe: Recipe,
    *,
    steps: int = 100,
    device: str = "auto",
    threads: int = 0,
    observe: Callable[[float], None] = lambda fraction: None,
) -> RateSearch:
    """Trains the network of a recipe with a growing learning rate, and discards it.

    Source: Smith 2017, "Cyclical learning rates", sec. 3.3; smoothing and end as in fastai.

    Args:
        recipe: of the training; its own learning rate, schedule and length are ignored.
        steps: from the lowest to the highest rate.
        device: see `train`.
        threads: see `train`.
        observe: called now and then with the fraction done, from 0 to 1.

    Raises:
        UsageError: for too few steps.
        TrainingDiverged: when the first loss is not finite.
        ResnetkitError: any error of setting up the training.
    """
    if steps < FEWEST_STEPS:
        raise UsageError(f"{steps} steps are too few: expected {FEWEST_STEPS} or more.")
    with open_world(device) as world:
        check_alone(world)
        setup, state = prepare(recipe, world, cache=False)
        torch.set_num_threads(threads or setup.sensible_threads)
        with explained_bad_images(setup.dataset):
            rates, losses = take_steps(setup, state, steps, observe)
    if not losses:
        raise TrainingDiverged(
            f"the loss is not finite at a learning rate of {LOWEST:g}: the images or the weights"
            " that training starts from are corrupt."
        )
    lowest = min(range(len(losses)), key=losses.__getitem__)
    return RateSearch(tuple(rates), tuple(losses), rates[lowest] / 10)


def take_steps(
    setup: TrainingSetup, state: TrainingState, steps: int, observe: Callable[[float], None]
) -> tuple[list[float], list[float]]:
    """Takes steps with growing rates until the loss diverges; returns rates and smoothed losses."""
    growth = (HIGHEST / LOWEST) ** (1 / (steps - 1))
    rates: list[float] = []
    losses: list[float] = []
    running = 0.0
    for batch, images_and_labels in setup.loader.stream(
        setup.batches.between(0, steps), setup.crop_size
    ):
        loss, norm = take_gradient(setup, state, *images_and_labels())
        if not math.isfinite(loss.item() + norm.item()):
            break
        running = SMOOTHING * running + (1 - SMOOTHING) * loss.item()
        smoothed = running / (1 - SMOOTHING ** (batch.step + 1))
        if losses and smoothed > TOO_HIGH * min(losses):
            break
        rates.append(LOWEST * growth**batch.step)
        losses.append(smoothed)
        apply_gradient(setup, state, rates[-1], norm)
        observe((batch.step + 1) / steps)
    return rates, losses
