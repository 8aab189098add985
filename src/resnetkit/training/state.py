"""How far a training is: what a checkpoint holds, saved and restored through one dataclass."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from pydantic import TypeAdapter

from resnetkit.errors import WeightsError
from resnetkit.training.checkpoint import (
    Tensors,
    checkpoint_steps,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from resnetkit.training.muon import Muon
from resnetkit.training.run_folder import Run
from resnetkit.training.setup import TrainingSetup

__all__ = ["TrainingState", "restore", "save"]


@dataclass
class TrainingState:
    """Where the loop stands; `state.json` of a checkpoint holds these fields under these names.

    Attributes:
        recipe_sha256: digest of the recipe.
        data_sha256: digest of the data; of custom images, of their names, sizes, classes and parts.
        step: steps done.
        below: whether the training error has been below the threshold of the warm-up.
        reached: whether training ends here: the validation error has reached the target, or has
            not fallen for as long as the recipe has patience.
        best_epoch: the epoch of the lowest validation error; 0 before the first.
        best_error: that error, in percent.
        drops: how often the learning rate has been lowered because the error stopped falling.
        waiting_since: the epoch since which a plateau schedule waits for it to fall.
        lowest_error: what it must fall below, in percent.
        metrics_bytes: length of metrics.jsonl.
        metrics_sha256: of that much of it, so that lines that were changed are noticed.
        epoch_sums: of each rank, what its sums has counted since the epoch began.
        interval_sums: likewise since the last interval event.
    """

    recipe_sha256: str
    data_sha256: str = ""
    step: int = 0
    below: bool = False
    reached: bool = False
    best_epoch: int = 0
    best_error: float = 100.0
    drops: int = 0
    waiting_since: int = 0
    lowest_error: float = 100.0
    metrics_bytes: int = 0
    metrics_sha256: str = hashlib.sha256().hexdigest()
    epoch_sums: list[list[float]] = field(default_factory=list)
    interval_sums: list[list[float]] = field(default_factory=list)


def save(setup: TrainingSetup, run: Run, progress: TrainingState) -> None:
    """Saves everything a resumed run needs; the main rank writes, all ranks call."""
    progress.epoch_sums = setup.world.gather(setup.epoch.sums).tolist()
    progress.interval_sums = setup.world.gather(setup.interval.sums).tolist()
    if setup.world.is_main:
        with run.writing():
            save_checkpoint(run.checkpoints, progress.step, tensors_of(setup), asdict(progress))
            tidy(setup, run)
    setup.world.barrier()  # a rank that left now would take the others with it


def tidy(setup: TrainingSetup, run: Run) -> None:
    """Removes the checkpoints that the recipe does not ask to keep."""
    keep = setup.recipe.checkpoint.keep
    remove_old_checkpoints(run.checkpoints, keep, spare=setup.snapshot_steps)


def tensors_of(setup: TrainingSetup) -> Tensors:
    """Returns the tensors of a checkpoint, by file and name."""
    momentum = {
        name: state["momentum_buffer"]
        for name, state in setup.memories.items()
        if state.get("momentum_buffer") is not None
    }
    tensors: Tensors = {"model": setup.model.state_dict(), "momentum": momentum}
    if setup.averaged is not None:
        tensors["averaged"] = setup.averaged.state_dict()
    if setup.best:
        tensors["best"] = setup.best
    return tensors


def restore(setup: TrainingSetup, run: Run) -> TrainingState:
    """Loads the newest checkpoint of a run and returns where it stands; else the beginning.

    Raises:
        WeightsError: when the checkpoint is damaged or was made for something else.
    """
    steps = checkpoint_steps(run.checkpoints)
    if not steps:
        return TrainingState(setup.recipe.digest, setup.dataset.sha256)
    tensors, state = load_checkpoint(run.checkpoints, steps[-1])
    path = run.checkpoints / f"step-{steps[-1]}"
    try:
        progress = read_state(state)
        check_origin(setup, progress)
        check_plausible(setup, progress, steps[-1])
        load_tensors(setup, tensors, progress)
        load_sums(setup, progress)
    except (TypeError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the checkpoint {path} was not made for this training: {first_line(error)} Nothing was"
            " changed. Move it away to start again, or train in another folder."
        ) from error
    if setup.world.is_main:  # a kill between saving and removing leaves one too many
        with run.writing():
            tidy(setup, run)
    return progress


def read_state(state: dict[str, Any]) -> TrainingState:
    """Returns the state of a checkpoint, with every value of its type.

    Raises:
        ValueError: when a value is missing, unknown or of another type.
    """
    expected = {field.name for field in fields(TrainingState)}
    if not isinstance(state, dict) or set(state) != expected:
        odd = sorted(set(state) ^ expected) if isinstance(state, dict) else "no table of values"
        raise ValueError(f"its state does not hold what it should: {odd}.")
    return TypeAdapter(TrainingState).validate_json(json.dumps(state), strict=True)


def check_plausible(setup: TrainingSetup, progress: TrainingState, step: int) -> None:
    """Raises ValueError unless the state is one that this training can be in.

    Args:
        setup: of the training.
        progress: what the checkpoint says.
        step: that its folder is named after.
    """
    epochs = math.ceil(setup.total_steps / setup.batches.steps_per_epoch)
    sums = [value for row in progress.epoch_sums + progress.interval_sums for value in row]
    possible = {
        "step": progress.step == step and 0 <= step <= setup.total_steps,
        "metrics_bytes": progress.metrics_bytes >= 0,
        "best_epoch": 0 <= progress.best_epoch <= epochs,
        "best_error": 0 <= progress.best_error <= 100,
        "drops": 0 <= progress.drops <= epochs,
        "waiting_since": 0 <= progress.waiting_since <= epochs,
        "lowest_error": 0 <= progress.lowest_error <= 100,
        "epoch_sums": all(math.isfinite(value) and value >= 0 for value in sums),
    }
    for name, holds in possible.items():
        if not holds:
            raise ValueError(f"its {name} is {getattr(progress, name)}, which cannot be.")


def check_origin(setup: TrainingSetup, progress: TrainingState) -> None:
    """Raises ValueError unless the checkpoint is of this recipe and of as many ranks."""
    if progress.recipe_sha256 != setup.recipe.digest:
        raise ValueError("it belongs to another recipe.")
    if progress.data_sha256 not in ("", setup.dataset.sha256):
        raise ValueError("the images, their classes or parts are others than when it began.")
    ranks = len(progress.epoch_sums)
    if ranks != setup.world.size:
        raise ValueError(f"it was saved by {ranks} ranks, this training has {setup.world.size}.")


def with_momentum(setup: TrainingSetup) -> set[str]:
    """Returns the names of the parameters whose steps are remembered, after the first one."""
    names = {parameter: name for name, parameter in setup.parameters.items()}
    return {
        names[parameter]
        for optimizer in setup.optimizers
        for group in optimizer.param_groups
        if group["momentum"] > 0 or isinstance(optimizer, Muon)
        for parameter in group["params"]
    }


def load_tensors(setup: TrainingSetup, tensors: Tensors, progress: TrainingState) -> None:
    """Puts the tensors of a checkpoint in place, every one of them.

    Raises:
        KeyError: when a group or a name is missing or unknown.
        ValueError: when a value is no finite number, or the shape of a momentum differs.
        RuntimeError: when a shape differs.
    """
    expected = {"model", "momentum"} | ({"averaged"} if setup.averaged is not None else set())
    if setup.recipe.finetune.patience:
        best = tensors.pop("best", {})
        if set(best) != (set(setup.result.state_dict()) if progress.best_epoch else set()):
            raise KeyError("it does not hold the network of the best epoch.")
        setup.best.update(best)
    if set(tensors) != expected:
        raise KeyError(f"it holds {sorted(tensors)}, expected {sorted(expected)}.")
    for group, named in tensors.items():
        for name, tensor in named.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"'{name}' of {group} holds values that are no finite numbers.")
    setup.model.load_state_dict(tensors["model"], strict=True)
    if setup.averaged is not None:
        setup.averaged.load_state_dict(tensors["averaged"], strict=True)
    remembered = with_momentum(setup) if progress.step else set()
    if odd := sorted(set(tensors["momentum"]) ^ remembered):
        raise KeyError(f"its momentum does not fit the parameters: {', '.join(odd[:3])}.")
    for name, value in tensors["momentum"].items():
        if value.shape != setup.parameters[name].shape:
            raise ValueError(f"the momentum of '{name}' has the shape {tuple(value.shape)}.")
        buffer = torch.empty_like(setup.parameters[name])  # in the parameter's memory format
        setup.memories[name]["momentum_buffer"] = buffer.copy_(value)


def load_sums(setup: TrainingSetup, progress: TrainingState) -> None:
    """Gives this rank's tallies what they had counted."""
    rank = setup.world.rank
    for counted, sums in (
        (setup.epoch, progress.epoch_sums),
        (setup.interval, progress.interval_sums),
    ):
        counted.sums.copy_(torch.tensor(sums[rank], dtype=torch.float64))


def first_line(error: Exception) -> str:
    """Returns an error's own words, on one line."""
    return " ".join(str(error.args[0] if error.args else error).split())
