"""How far a training is: what a checkpoint holds, saved and restored through one dataclass."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from pydantic import TypeAdapter

from resnetkit.errors import WeightsError
from resnetkit.training.bench import Bench
from resnetkit.training.checkpoint import (
    Tensors,
    checkpoint_steps,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from resnetkit.training.muon import Muon
from resnetkit.training.run import Run

__all__ = ["Progress", "restore", "save"]


@dataclass
class Progress:
    """Where the loop stands; `state.json` of a checkpoint holds these fields under these names.

    Attributes:
        recipe_sha256: digest of the recipe.
        data_sha256: digest of the data; of own images, of their names, sizes, classes and parts.
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
        epoch_sums: of each rank, what its tally has counted since the epoch began.
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


def save(bench: Bench, run: Run, progress: Progress) -> None:
    """Saves everything a resumed run needs; the main rank writes, all ranks call."""
    progress.epoch_sums = bench.world.gather(bench.epoch.sums).tolist()
    progress.interval_sums = bench.world.gather(bench.interval.sums).tolist()
    if bench.world.is_main:
        with run.writing():
            save_checkpoint(run.checkpoints, progress.step, tensors_of(bench), asdict(progress))
            tidy(bench, run)
    bench.world.wait()  # a rank that left now would take the others with it


def tidy(bench: Bench, run: Run) -> None:
    """Removes the checkpoints that the recipe does not ask to keep."""
    keep = bench.recipe.checkpoint.keep
    remove_old_checkpoints(run.checkpoints, keep, spare=bench.snapshot_steps)


def tensors_of(bench: Bench) -> Tensors:
    """Returns the tensors of a checkpoint, by file and name."""
    momentum = {
        name: state["momentum_buffer"]
        for name, state in bench.memories.items()
        if state.get("momentum_buffer") is not None
    }
    tensors: Tensors = {"model": bench.model.state_dict(), "momentum": momentum}
    if bench.averaged is not None:
        tensors["averaged"] = bench.averaged.state_dict()
    if bench.best:
        tensors["best"] = bench.best
    return tensors


def restore(bench: Bench, run: Run) -> Progress:
    """Loads the newest checkpoint of a run and returns where it stands; else the beginning.

    Raises:
        WeightsError: when the checkpoint is damaged or was made for something else.
    """
    steps = checkpoint_steps(run.checkpoints)
    if not steps:
        return Progress(bench.recipe.digest, bench.dataset.sha256)
    tensors, state = load_checkpoint(run.checkpoints, steps[-1])
    path = run.checkpoints / f"step-{steps[-1]}"
    try:
        progress = read_state(state)
        check_origin(bench, progress)
        check_plausible(bench, progress, steps[-1])
        load_tensors(bench, tensors, progress)
        load_sums(bench, progress)
    except (TypeError, KeyError, IndexError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"the checkpoint {path} was not made for this training: {first_line(error)} Nothing was"
            " changed. Move it away to start again, or train in another folder."
        ) from error
    if bench.world.is_main:  # a kill between saving and removing leaves one too many
        with run.writing():
            tidy(bench, run)
    return progress


def read_state(state: dict[str, Any]) -> Progress:
    """Returns the state of a checkpoint, with every value of its type.

    Raises:
        ValueError: when a value is missing, unknown or of another type.
    """
    expected = {field.name for field in fields(Progress)}
    if not isinstance(state, dict) or set(state) != expected:
        odd = sorted(set(state) ^ expected) if isinstance(state, dict) else "no table of values"
        raise ValueError(f"its state does not hold what it should: {odd}.")
    return TypeAdapter(Progress).validate_json(json.dumps(state), strict=True)


def check_plausible(bench: Bench, progress: Progress, step: int) -> None:
    """Raises ValueError unless the state is one that this training can be in.

    Args:
        bench: of the training.
        progress: what the checkpoint says.
        step: that its folder is named after.
    """
    epochs = math.ceil(bench.total_steps / bench.batches.steps_per_epoch)
    sums = [value for row in progress.epoch_sums + progress.interval_sums for value in row]
    possible = {
        "step": progress.step == step and 0 <= step <= bench.total_steps,
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


def check_origin(bench: Bench, progress: Progress) -> None:
    """Raises ValueError unless the checkpoint is of this recipe and of as many ranks."""
    if progress.recipe_sha256 != bench.recipe.digest:
        raise ValueError("it belongs to another recipe.")
    if progress.data_sha256 not in ("", bench.dataset.sha256):
        raise ValueError("the images, their classes or parts are others than when it began.")
    ranks = len(progress.epoch_sums)
    if ranks != bench.world.size:
        raise ValueError(f"it was saved by {ranks} ranks, this training has {bench.world.size}.")


def with_momentum(bench: Bench) -> set[str]:
    """Returns the names of the parameters whose steps are remembered, after the first one."""
    names = {parameter: name for name, parameter in bench.parameters.items()}
    return {
        names[parameter]
        for optimizer in bench.optimizers
        for group in optimizer.param_groups
        if group["momentum"] > 0 or isinstance(optimizer, Muon)
        for parameter in group["params"]
    }


def load_tensors(bench: Bench, tensors: Tensors, progress: Progress) -> None:
    """Puts the tensors of a checkpoint in place, every one of them.

    Raises:
        KeyError: when a group or a name is missing or unknown.
        ValueError: when a value is no finite number, or the shape of a momentum differs.
        RuntimeError: when a shape differs.
    """
    expected = {"model", "momentum"} | ({"averaged"} if bench.averaged is not None else set())
    if bench.recipe.finetune.patience:
        best = tensors.pop("best", {})
        if set(best) != (set(bench.result.state_dict()) if progress.best_epoch else set()):
            raise KeyError("it does not hold the network of the best epoch.")
        bench.best.update(best)
    if set(tensors) != expected:
        raise KeyError(f"it holds {sorted(tensors)}, expected {sorted(expected)}.")
    for group, named in tensors.items():
        for name, tensor in named.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"'{name}' of {group} holds values that are no finite numbers.")
    bench.model.load_state_dict(tensors["model"], strict=True)
    if bench.averaged is not None:
        bench.averaged.load_state_dict(tensors["averaged"], strict=True)
    remembered = with_momentum(bench) if progress.step else set()
    if odd := sorted(set(tensors["momentum"]) ^ remembered):
        raise KeyError(f"its momentum does not fit the parameters: {', '.join(odd[:3])}.")
    for name, value in tensors["momentum"].items():
        if value.shape != bench.parameters[name].shape:
            raise ValueError(f"the momentum of '{name}' has the shape {tuple(value.shape)}.")
        buffer = torch.empty_like(bench.parameters[name])  # in the parameter's memory format
        bench.memories[name]["momentum_buffer"] = buffer.copy_(value)


def load_sums(bench: Bench, progress: Progress) -> None:
    """Gives this rank's tallies what they had counted."""
    rank = bench.world.rank
    for tally, sums in (
        (bench.epoch, progress.epoch_sums),
        (bench.interval, progress.interval_sums),
    ):
        tally.sums.copy_(torch.tensor(sums[rank], dtype=torch.float64))


def first_line(error: Exception) -> str:
    """Returns an error's own words, on one line."""
    return " ".join(str(error.args[0] if error.args else error).split())
