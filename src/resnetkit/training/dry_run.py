"""A dry run: everything is built and a few steps are taken, but nothing is written."""

import time
from dataclasses import dataclass

import torch

from resnetkit.runtime import peak
from resnetkit.runtime.process_group import open_world
from resnetkit.training.checks import explained_bad_images
from resnetkit.training.recipe import Recipe
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.state import TrainingState
from resnetkit.training.step import apply_gradient, take_gradient

__all__ = ["DryRun", "dry_run"]


@dataclass(frozen=True)
class DryRun:
    """The estimated cost of a training.

    Attributes:
        parameters: trainable parameters.
        total_steps: of the whole training.
        seconds_per_step: mean over the training, from the second step of each size of images; the
            first includes work that is done once, such as compiling.
        seconds: of the whole training, evaluations included, without a cache of decoded photos.
        peak_memory_bytes: of the GPU, or of the process on a CPU.
    """

    parameters: int
    total_steps: int
    seconds_per_step: float
    seconds: float
    peak_memory_bytes: int


def dry_run(recipe: Recipe, *, device: str = "auto", threads: int = 0) -> DryRun:
    """Sets up the training of a recipe, times a step and estimates the cost of all of them.

    Raises:
        ResnetkitError: any error of setting up the training.
    """
    with open_world(device) as world:
        setup, state = prepare(recipe, world, cache=False)
        torch.set_num_threads(threads or setup.sensible_threads)
        with explained_bad_images(setup.dataset):
            seconds = seconds_per_step(setup, state)
            began = time.perf_counter()
            setup.score(state.result, recipe.evaluation.split)
            evaluation = time.perf_counter() - began
        epochs = setup.total_steps / setup.batches.steps_per_epoch
        return DryRun(
            parameters=sum(p.numel() for p in state.model.parameters()),
            total_steps=setup.total_steps,
            seconds_per_step=seconds,
            seconds=seconds * setup.total_steps
            + evaluation * epochs / recipe.evaluation.every_epochs,
            peak_memory_bytes=peak_memory(world.device),
        )


def seconds_per_step(setup: TrainingSetup, state: TrainingState) -> float:
    """Takes two steps with each size of images and returns the mean over the training."""
    late = setup.total_steps - setup.early_steps
    steps = {setup.recipe.data.early_size: setup.early_steps, 0: late}
    seconds = {
        size: count * [timed_step(setup, state, size) for _ in range(2)][1]
        for size, count in steps.items()
        if count
    }
    return sum(seconds.values()) / setup.total_steps


def timed_step(setup: TrainingSetup, state: TrainingState, size: int) -> float:
    """Takes a step, with crops of a size, and returns its duration in seconds."""
    (batch,) = setup.batches.between(0, 1)
    began = time.perf_counter()
    _, norm = take_gradient(setup, state, *setup.loader.training(batch, size=size))
    apply_gradient(setup, state, setup.learning_rate.lr(0), norm)
    norm.item()  # waits for the device
    return time.perf_counter() - began


def peak_memory(device: torch.device) -> int:
    """Returns the most memory that was used at any time, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak.peak_memory()
