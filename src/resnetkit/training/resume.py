"""From a training state to a checkpoint and back."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace

import torch
from pydantic import TypeAdapter
from torch import Tensor

from resnetkit.errors import WeightsError
from resnetkit.training.checkpoint import (
    Tensors,
    checkpoint_steps,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from resnetkit.training.journal import MetricsEnd
from resnetkit.training.muon import Muon
from resnetkit.training.run_folder import Run
from resnetkit.training.schedules import ScheduleState
from resnetkit.training.setup import TrainingSetup
from resnetkit.training.state import TrainingState

__all__ = ["restore", "save"]


@dataclass(frozen=True)
class StoredState:
    """`state.json` of a checkpoint: a training state without its tensors, and its origin.

    Attributes:
        recipe_sha256: digest of the recipe.
        data_sha256: digest of the data; of custom images, of their names, sizes, classes and
            splits.
        step: see `TrainingState`, as for `reached`, `best_epoch` and `best_error`.
        below: see `ScheduleState`, as for `drops`, `waiting_since` and `lowest_error`.
        metrics_bytes: length of metrics.jsonl.
        metrics_sha256: digest of these bytes, so that changed lines are noticed.
        epoch_sums: of each rank, the metric sums since the epoch began.
        interval_sums: of each rank, the metric sums since the last interval event.
    """

    recipe_sha256: str
    data_sha256: str
    step: int
    below: bool
    reached: bool
    best_epoch: int
    best_error: float
    drops: int
    waiting_since: int
    lowest_error: float
    metrics_bytes: int
    metrics_sha256: str
    epoch_sums: list[list[float]]
    interval_sums: list[list[float]]


def save(setup: TrainingSetup, run: Run, state: TrainingState, end: MetricsEnd) -> None:
    """Saves everything a resumed run needs; the main rank writes, all ranks call."""
    stored = StoredState(
        recipe_sha256=setup.recipe.digest,
        data_sha256=setup.dataset.sha256,
        step=state.step,
        reached=state.reached,
        best_epoch=state.best_epoch,
        best_error=state.best_error,
        metrics_bytes=end.size,
        metrics_sha256=end.sha256,
        epoch_sums=setup.world.gather(state.epoch.sums).tolist(),
        interval_sums=setup.world.gather(state.interval.sums).tolist(),
        **asdict(state.schedule),
    )
    if setup.world.is_main:
        with run.writing():
            save_checkpoint(run.checkpoints, state.step, tensors_of(state), asdict(stored))
            prune_checkpoints(setup, run)
    setup.world.barrier()  # a rank that left now would take the others with it


def prune_checkpoints(setup: TrainingSetup, run: Run) -> None:
    """Removes the checkpoints that the recipe does not keep."""
    keep = setup.recipe.checkpoint.keep
    remove_old_checkpoints(run.checkpoints, keep, spare=setup.snapshot_steps)


def tensors_of(state: TrainingState) -> Tensors:
    """Returns the tensors of a state, by file and name."""
    momentum = {
        name: values["momentum_buffer"]
        for name, values in state.optimizer_states.items()
        if values.get("momentum_buffer") is not None
    }
    tensors: Tensors = {"model": state.model.state_dict(), "momentum": momentum}
    if state.averaged is not None:
        tensors["averaged"] = state.averaged.state_dict()
    if state.best:
        tensors["best"] = dict(state.best)
    return tensors


def restore(
    setup: TrainingSetup, run: Run, start: TrainingState
) -> tuple[TrainingState, MetricsEnd]:
    """Returns the state of the newest checkpoint of a run; without one, the start.

    Args:
        setup: of the training.
        run: of which the newest checkpoint is read.
        start: the state before the first step; its tensors take the values of the checkpoint.

    Returns:
        The state, and how much of metrics.jsonl belongs to it.

    Raises:
        WeightsError: when the checkpoint is corrupt or belongs to another training.
    """
    steps = checkpoint_steps(run.checkpoints)
    if not steps:
        return start, MetricsEnd()
    tensors, values = load_checkpoint(run.checkpoints, steps[-1])
    path = run.checkpoints / f"step-{steps[-1]}"
    try:
        stored = stored_state(values)
        check_origin(setup, stored)
        check_plausible(setup, stored, steps[-1])
        state = load_state(setup, start, stored, tensors)
    except (TypeError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the checkpoint {path} was not made for this training: {first_line(error)} Nothing was"
            " changed. Move it away to start again, or train in another folder."
        ) from error
    if setup.world.is_main:  # a kill between saving and removing leaves one too many
        with run.writing():
            prune_checkpoints(setup, run)
    return state, MetricsEnd(stored.metrics_bytes, stored.metrics_sha256)


def stored_state(values: object) -> StoredState:
    """Returns the content of state.json, with every value of its type.

    Raises:
        ValueError: when a value is missing, unknown or of another type.
    """
    expected = {field.name for field in fields(StoredState)}
    if not isinstance(values, dict) or set(values) != expected:
        odd = sorted(set(values) ^ expected) if isinstance(values, dict) else "not an object"
        raise ValueError(f"state.json has missing or unknown entries: {odd}.")
    return TypeAdapter(StoredState).validate_json(json.dumps(values), strict=True)


def check_plausible(setup: TrainingSetup, stored: StoredState, step: int) -> None:
    """Raises ValueError unless the state is one that this training can be in.

    Args:
        setup: of the training.
        stored: what the checkpoint says.
        step: that its folder is named after.
    """
    epochs = math.ceil(setup.total_steps / setup.batches.steps_per_epoch)
    sums = [value for row in stored.epoch_sums + stored.interval_sums for value in row]
    possible = {
        "step": stored.step == step and 0 <= step <= setup.total_steps,
        "metrics_bytes": stored.metrics_bytes >= 0,
        "best_epoch": 0 <= stored.best_epoch <= epochs,
        "best_error": 0 <= stored.best_error <= 100,
        "drops": 0 <= stored.drops <= epochs,
        "waiting_since": 0 <= stored.waiting_since <= epochs,
        "lowest_error": 0 <= stored.lowest_error <= 100,
        "epoch_sums": all(math.isfinite(value) and value >= 0 for value in sums),
    }
    for name, holds in possible.items():
        if not holds:
            raise ValueError(f"its {name} is {getattr(stored, name)}, which is impossible.")


def check_origin(setup: TrainingSetup, stored: StoredState) -> None:
    """Raises ValueError unless the checkpoint is of this recipe and of as many ranks."""
    if stored.recipe_sha256 != setup.recipe.digest:
        raise ValueError("it belongs to another recipe.")
    if stored.data_sha256 not in ("", setup.dataset.sha256):
        raise ValueError("the images, their classes or splits differ from those it began with.")
    ranks = len(stored.epoch_sums)
    if ranks != setup.world.size:
        raise ValueError(f"it was saved by {ranks} ranks, this training has {setup.world.size}.")


def load_state(
    setup: TrainingSetup, start: TrainingState, stored: StoredState, tensors: Tensors
) -> TrainingState:
    """Returns the state of a checkpoint, with every one of its tensors in place.

    Raises:
        KeyError: when a group or a name is missing or unknown.
        ValueError: when a value is not finite, or the shape of a momentum differs.
        RuntimeError: when another shape differs.
    """
    best = tensors.pop("best", {}) if setup.recipe.finetune.patience else {}
    if set(best) != (set(start.result.state_dict()) if stored.best_epoch else set()):
        raise KeyError("it does not hold the network of the best epoch.")
    expected = {"model", "momentum"} | ({"averaged"} if start.averaged is not None else set())
    if set(tensors) != expected:
        raise KeyError(f"it holds {sorted(tensors)}, expected {sorted(expected)}.")
    check_finite(tensors)
    start.model.load_state_dict(tensors["model"], strict=True)
    if start.averaged is not None:
        start.averaged.load_state_dict(tensors["averaged"], strict=True)
    load_momentum(
        start, tensors["momentum"], expected=with_momentum(start) if stored.step else set()
    )
    rank = setup.world.rank
    start.epoch.load(stored.epoch_sums[rank])
    start.interval.load(stored.interval_sums[rank])
    return replace(
        start,
        best=best,
        step=stored.step,
        reached=stored.reached,
        best_epoch=stored.best_epoch,
        best_error=stored.best_error,
        schedule=ScheduleState(
            **{field.name: getattr(stored, field.name) for field in fields(ScheduleState)}
        ),
    )


def check_finite(tensors: Tensors) -> None:
    """Raises ValueError when a tensor holds infinity or NaN."""
    for group, named in tensors.items():
        for name, tensor in named.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"'{name}' of {group} holds values that are not finite.")


def with_momentum(state: TrainingState) -> set[str]:
    """Returns the names of the parameters that have a momentum after the first step."""
    names = {parameter: name for name, parameter in state.parameters.items()}
    return {
        names[parameter]
        for optimizer in state.optimizers
        for group in optimizer.param_groups
        if group["momentum"] > 0 or isinstance(optimizer, Muon)
        for parameter in group["params"]
    }


def load_momentum(state: TrainingState, momentum: dict[str, Tensor], *, expected: set[str]) -> None:
    """Gives the optimizers the momentum of each parameter.

    Raises:
        KeyError: unless it covers exactly the expected parameters.
        ValueError: when a shape differs.
    """
    if odd := sorted(set(momentum) ^ expected):
        raise KeyError(f"its momentum does not fit the parameters: {', '.join(odd[:3])}.")
    parameters, optimizer_states = state.parameters, state.optimizer_states
    for name, value in momentum.items():
        if value.shape != parameters[name].shape:
            raise ValueError(f"the momentum of '{name}' has the shape {tuple(value.shape)}.")
        buffer = torch.empty_like(parameters[name])  # in the parameter's memory format
        optimizer_states[name]["momentum_buffer"] = buffer.copy_(value)


def first_line(error: Exception) -> str:
    """Returns the message of an error on one line."""
    return " ".join(str(error.args[0] if error.args else error).split())
