"""A training that is only tried: everything is built, a step is taken, nothing is written."""

import resource
import sys
import time
from dataclasses import dataclass

import torch

from resnetkit.training.bench import Bench, prepare
from resnetkit.training.loop import apply_gradient, take_gradient
from resnetkit.training.recipe import Recipe
from resnetkit.training.world import open_world

__all__ = ["Rehearsal", "rehearse"]


@dataclass(frozen=True)
class Rehearsal:
    """What a training would cost.

    Attributes:
        parameters: learned values.
        total_steps: of the whole training.
        seconds_per_step: of the second step; the first also builds what all others use again.
        seconds: of the whole training, with the evaluations along it.
        peak_memory_bytes: of the GPU, or of the process on a CPU.
    """

    parameters: int
    total_steps: int
    seconds_per_step: float
    seconds: float
    peak_memory_bytes: int


def rehearse(recipe: Recipe, *, device: str = "auto", threads: int = 0) -> Rehearsal:
    """Builds everything a recipe asks for, takes a first and a timed step, and estimates.

    Raises:
        ResnetkitError: whatever building the training raises.
    """
    with open_world(device) as world:
        bench = prepare(recipe, world)
        torch.set_num_threads(threads or bench.sensible_threads)
        seconds = [timed_step(bench, step) for step in range(2)]
        began = time.perf_counter()
        bench.score(recipe.evaluation.split)
        evaluation = time.perf_counter() - began
        epochs = bench.total_steps / bench.batches.steps_per_epoch
        return Rehearsal(
            parameters=sum(p.numel() for p in bench.model.parameters()),
            total_steps=bench.total_steps,
            seconds_per_step=seconds[1],
            seconds=seconds[1] * bench.total_steps
            + evaluation * epochs / recipe.evaluation.every_epochs,
            peak_memory_bytes=peak_memory(world.device),
        )


def timed_step(bench: Bench, step: int) -> float:
    """Takes a step and returns its seconds."""
    (batch,) = bench.batches.between(step, step + 1)
    began = time.perf_counter()
    _, norm = take_gradient(bench, batch)
    apply_gradient(bench, bench.lr_at(step, below=False), norm)
    norm.item()  # waits for the device
    return time.perf_counter() - began


def peak_memory(device: torch.device) -> int:
    """Returns the most memory that was used at any time, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
