"""train(recipe, folder) -> Run: step after step, and nothing lost on the way."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from resnetkit.data.batches import Batch
from resnetkit.data.images.listing import classes_in_words, with_digests
from resnetkit.data.images.table import write_images
from resnetkit.data.splits import Split
from resnetkit.errors import Interrupted, TrainingDiverged, WeightsError
from resnetkit.evaluation.metric_sums import Score, count
from resnetkit.runtime.environment import hardware, versions
from resnetkit.runtime.process_group import World, open_world
from resnetkit.storage import write_file
from resnetkit.training.events import (
    EpochEvent,
    Event,
    FinalEvent,
    IntervalEvent,
    Session,
    SessionData,
    Timing,
)
from resnetkit.training.export import export_model
from resnetkit.training.journal import Journal
from resnetkit.training.recipe import Recipe
from resnetkit.training.recipe_schema import PlateauSchedule, UntilErrorWarmup
from resnetkit.training.run_folder import Run, find_images, locked_run, run_elsewhere
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.signals import StopRequest, caught_signals
from resnetkit.training.state import TrainingState, restore, save
from resnetkit.weights.load import load_network

__all__ = [
    "Observer",
    "apply_gradient",
    "take_gradient",
    "train",
]

Observer = Callable[[Event], None]


def train(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    threads: int = 0,
    observe: Observer = lambda event: None,
) -> Run:
    """Trains a recipe in a run folder, from where the folder stands to the end.

    A folder that does not exist is made. One of an interrupted run of the same recipe is gone on
    with, and ends with the same weights and metrics, to the bit, as if it had never been
    interrupted. One of a finished run is returned as it is.

    Args:
        recipe: what to train.
        folder: of the run.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads; 0 takes as many as a step is worth. Their number can change last bits.
        observe: called with every event as it is written; intervals have their timing.

    Raises:
        RecipeError: when the recipe does not fit its data, or the folder holds another recipe's
        run.
        DataError: when the data is not what it should be.
        WeightsError: when the checkpoint to go on from is damaged.
        StorageError: when the folder cannot be written; the last checkpoint is kept.
        TrainingDiverged: when the loss or gradient is not finite, before that step is taken.
        Interrupted: after SIGINT or SIGTERM, when everything is saved.
    """
    with open_world(device) as world, caught_signals() as stop:
        recipe = recipe_of_run(folder, recipe, world)
        setup = prepare(recipe, world, listed=Run(folder, recipe).images_path)
        if world.any(bool(stop))[0]:  # while it was prepared, and perhaps for a compiler as well
            raise Interrupted(
                "stopped before the first step; nothing was changed. The same command resumes.",
                stop.signal_number or signal.SIGTERM,
            )
        torch.set_num_threads(threads or setup.sensible_threads)
        with opened_run(folder, recipe, world) as run:
            if run.final is None:
                write_list(setup, run)
                with closing(Journal(run, observe, writes=world.is_main)) as journal:
                    state = restore(setup, run)
                    journal.open_session(
                        session(setup, state), state.metrics_bytes, state.metrics_sha256
                    )
                    fit(setup, run, state, journal, stop)
                    finish(setup, run, state, journal)
                world.barrier()  # nobody leaves before the run is finished
            elif world.is_main:
                check_model(run)
    return run


def recipe_of_run(folder: Path, recipe: Recipe, world: World) -> Recipe:
    """Returns the recipe of the run in a folder when only its images were moved; else the same."""
    run = run_elsewhere(folder, recipe)
    if run is None:
        return recipe
    if world.is_main:
        find_images(run, Path(recipe.data.name))
    world.barrier()  # nobody reads the list before it is changed
    return run.recipe


def check_model(run: Run) -> None:
    """Checks that the network of a finished run is what was written.

    Raises:
        WeightsError: when it is not; the last checkpoint still holds it.
    """
    try:
        load_network(run.folder)
    except WeightsError as error:
        raise WeightsError(
            f"{error} The run in {run.folder} was finished, and its last checkpoint still holds the"
            f" network: move {run.model} away, and the same command writes it again."
        ) from error


@contextmanager
def opened_run(folder: Path, recipe: Recipe, world: World) -> Iterator[Run]:
    """Opens the run folder: the main rank makes and locks it, the others wait for that."""
    with locked_run(folder, recipe) if world.is_main else nullcontext(Run(folder, recipe)) as run:
        world.barrier()  # nobody reads before the folder is there
        yield run


def write_list(setup: TrainingSetup, run: Run) -> None:
    """Writes down which custom images are learned from, chosen on and tested on."""
    if setup.dataset.custom is not None and setup.world.is_main and not run.images_path.exists():
        with run.writing():
            write_file(run.images_path, write_images(with_digests(setup.dataset.custom)))


def session(setup: TrainingSetup, state: TrainingState) -> Session:
    """Returns what this start of the training runs on."""
    return Session(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        from_step=state.step,
        total_steps=setup.total_steps,
        versions=versions(),
        hardware=hardware(setup.world),
        precision={"name": setup.precision.name, "reason": setup.precision.reason},
        kernels=asdict(setup.kernels),
        data=SessionData(
            name=setup.dataset.name,
            sha256=setup.dataset.sha256,
            classes=classes_in_words(setup.dataset.class_names),
        ),
    )


def due(step: int, every: int, total: int) -> bool:
    """Returns whether something done every so many steps, and at the end, is due after `step`."""
    return step % every == 0 or step == total


def fit(
    setup: TrainingSetup, run: Run, state: TrainingState, journal: Journal, stop: StopRequest
) -> None:
    """Takes the remaining steps, with all that is due on the way.

    Raises:
        TrainingDiverged: before a step whose loss or gradient is not finite.
        Interrupted: after a step during which a signal came, when everything is saved.
    """
    recipe, total = setup.recipe, setup.total_steps
    every = recipe.checkpoint.every.steps(setup.batches.steps_per_epoch)
    if state.step == 0 and setup.snapshot_steps:
        save(setup, run, state)
    watch = Stopwatch()
    batches = setup.batches.between(state.step, 0 if state.reached else total)
    for batch, images_and_labels in setup.loader.stream(batches, setup.crop_size):
        with watch.training():
            lr = setup.lr_at(batch.step, below=state.below, drops=state.drops)
            loss, norm = take_gradient(setup, *images_and_labels())
            stopped, diverged = setup.world.any(bool(stop), not bool(torch.isfinite(loss + norm)))
            if diverged:
                raise divergence(setup, run, batch, lr, loss, norm)
            apply_gradient(setup, lr, norm)
        state.step += 1
        if due(state.step, recipe.log_every, total):
            close_interval(setup, state, journal, lr, norm, watch)
        if batch.ends_epoch or state.step == total:
            close_epoch(setup, state, journal, batch.epoch + 1)
        is_snapshot = state.step in setup.snapshot_steps
        if stopped or state.reached or is_snapshot or due(state.step, every, total):
            state.metrics_bytes, state.metrics_sha256 = journal.sync()
            save(setup, run, state)
        if stopped:
            raise Interrupted(
                f"stopped after step {state.step} of {total}; everything is saved in"
                f" {run.folder}. The same command goes on from there.",
                stop.signal_number or signal.SIGTERM,  # another rank was asked to stop
            )
        if state.reached:
            break


def take_gradient(setup: TrainingSetup, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Runs a batch forward and backward; returns the loss and the norm of the whole gradient."""
    setup.model.zero_grad(set_to_none=True)
    at_a_time = setup.recipe.micro_batch or len(labels)
    parts = list(zip(images.split(at_a_time), labels.split(at_a_time), strict=True))
    losses, whole = [], mean_weight(setup, labels)
    for place, (some_images, some_labels) in enumerate(parts, 1):
        share = weight_of(setup, some_labels) / whole
        with setup.world.no_sync(setup.parallel, last=place == len(parts)):
            losses.append(take_part(setup, some_images, some_labels, share))
    gradients = [p.grad for p in setup.model.parameters() if p.grad is not None]
    return torch.stack(losses).sum(), get_total_norm(gradients)


def take_part(setup: TrainingSetup, images: Tensor, labels: Tensor, share: float) -> Tensor:
    """Adds a part of a batch to the gradient; returns its share of the batch's loss."""
    with setup.precision.autocast():
        logits = setup.parallel(images)
    logits = logits.float()
    smoothing = setup.recipe.label_smoothing
    mean = functional.cross_entropy(logits, labels, setup.class_weights, label_smoothing=smoothing)
    loss = mean * share
    loss.backward()
    likeliest = labels.argmax(1) if labels.dim() == 2 else labels  # of mixed images
    counts = count(logits.detach(), likeliest)
    setup.epoch.add(counts)
    setup.interval.add(counts)
    return loss.detach()


def mean_weight(setup: TrainingSetup, labels: Tensor) -> float:
    """Returns what the images of a rank weigh, on average: ranks average their gradients."""
    own = weight_of(setup, labels)
    if setup.class_weights is None or setup.world.size == 1:
        return own
    weight = torch.tensor(own, dtype=torch.float64, device=labels.device)
    return setup.world.sum(weight).item() / setup.world.size


def weight_of(setup: TrainingSetup, labels: Tensor) -> float:
    """Returns what images weigh in the mean of the loss: their number, or by their classes."""
    if setup.class_weights is None:
        return float(len(labels))
    return setup.class_weights[labels].sum().item()


def apply_gradient(setup: TrainingSetup, lr: float, norm: Tensor) -> None:
    """Takes the optimizers' steps with this learning rate."""
    if setup.recipe.gradient_clip:
        clip_grads_with_norm_(setup.model.parameters(), setup.recipe.gradient_clip, norm)
    for optimizer in setup.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        with setup.precision.autocast():  # for the matrix products of Muon
            optimizer.step()
    if setup.averaged is not None:
        setup.averaged.update_parameters(setup.model)


class Stopwatch:
    """Measures the time of an interval, and how much of it went into steps."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.steps = 0
        self.step_seconds = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Counts one step."""
        began = time.perf_counter()
        yield
        self.step_seconds += time.perf_counter() - began
        self.steps += 1

    def read(self, step: int, images_per_step: int) -> Timing:
        """Returns the timing since the last reading and restarts."""
        now = time.perf_counter()
        timing = Timing(
            step=step,
            seconds=round(now - self.began, 4),
            images_per_second=round(self.steps * images_per_step / self.step_seconds, 1),
        )
        self.began, self.steps, self.step_seconds = now, 0, 0.0
        return timing


def close_interval(
    setup: TrainingSetup,
    state: TrainingState,
    journal: Journal,
    lr: float,
    norm: Tensor,
    watch: Stopwatch,
) -> None:
    """Writes what was counted since the last interval, and ends the warm-up when it says so."""
    score = setup.interval.score(setup.world)
    setup.interval.clear()
    warmup = setup.recipe.warmup
    if isinstance(warmup, UntilErrorWarmup) and score.error < warmup.below:
        state.below = True
    event = IntervalEvent(
        step=state.step,
        lr=lr,
        loss=score.loss,
        error=score.error,
        gradient_norm=norm.item(),
        timing=watch.read(state.step, setup.batches.size),
    )
    journal.write(event)


def close_epoch(setup: TrainingSetup, state: TrainingState, journal: Journal, epoch: int) -> None:
    """Writes the training error of an epoch and, when due, the error on the watched part."""
    trained = setup.epoch.score(setup.world)
    setup.epoch.clear()
    event = EpochEvent(
        epoch=epoch, step=state.step, train_loss=trained.loss, train_error=trained.error
    )
    evaluation = setup.recipe.evaluation
    if epoch % evaluation.every_epochs == 0 or state.step == setup.total_steps:
        score, _ = setup.score(evaluation.split)
        event = with_score(event, evaluation.split, score)
        state.reached = score.error <= setup.recipe.target_error and setup.recipe.target_error > 0
        if setup.recipe.finetune.patience:
            keep_best(setup, state, epoch, score.error)
        if isinstance(setup.recipe.schedule, PlateauSchedule):
            look_for_plateau(setup.recipe.schedule, state, epoch, score.error)
    journal.write(event)


def with_score(event: EpochEvent, split: Split, score: Score) -> EpochEvent:
    """Returns the event of an epoch with the score on the split that was evaluated."""
    if split == "test":
        return replace(event, test_loss=score.loss, test_error=score.error)
    return replace(event, validation_loss=score.loss, validation_error=score.error)


def look_for_plateau(
    schedule: PlateauSchedule, state: TrainingState, epoch: int, error: float
) -> None:
    """Lowers the learning rate when the watched error has not fallen for long enough."""
    if error < state.lowest_error - schedule.least:
        state.lowest_error, state.waiting_since = error, epoch
    elif epoch - state.waiting_since >= schedule.patience and state.drops < schedule.drops:
        state.drops, state.waiting_since = state.drops + 1, epoch


def keep_best(setup: TrainingSetup, state: TrainingState, epoch: int, error: float) -> None:
    """Keeps the result of the best epoch, and ends training when patience is at its end."""
    if state.best_epoch == 0 or error < state.best_error:
        state.best_epoch, state.best_error = epoch, error
        setup.best.update({k: t.detach().clone() for k, t in setup.result.state_dict().items()})
    state.reached |= epoch - state.best_epoch >= setup.recipe.finetune.patience


def divergence(
    setup: TrainingSetup, run: Run, batch: Batch, lr: float, loss: Tensor, norm: Tensor
) -> TrainingDiverged:
    """Writes down which samples and step, and returns the error that says what to try."""
    details = {
        "step": batch.step,
        "epoch": batch.epoch,
        "lr": lr,
        "loss": str(loss.item()),
        "gradient_norm": str(norm.item()),
        "sample_ids": batch.sample_ids.tolist(),
    }
    path = run.failure_path
    if setup.world.is_main:
        with run.writing():
            write_file(path, json.dumps(details, indent=1))
    return TrainingDiverged(
        f"training diverged: at step {batch.step} the loss is {details['loss']} and the gradient's"
        f" norm {details['gradient_norm']}; that step was not taken. {path} names the samples."
        f" {run.how_to_go_on().split('.')[0]}. Try a lower optimizer.lr (it was {lr:g}), a longer"
        " warm-up, gradient_clip=1 or precision=float32."
    )


@torch.no_grad()
def average_statistics(setup: TrainingSetup, images: int) -> None:
    """Replaces the moving averages of batch normalization by true ones over training images.

    Source: README of KaimingHe/deep-residual-networks; frozen layers keep theirs.

    Args:
        setup: whose result is changed.
        images: how many training images are averaged over, of all ranks together.
    """
    norms = [m for m in setup.result.modules() if isinstance(m, nn.BatchNorm2d)]
    setup.result.train()
    averaged = {norm: norm.momentum for norm in norms if norm.training}
    for norm in averaged:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages over all batches alike
    steps = max(1, min(images // setup.batches.size, setup.batches.steps_per_epoch))
    for _, images_and_labels in setup.loader.stream(
        setup.batches.between(0, steps), lambda step: 0
    ):
        with setup.precision.autocast():
            setup.result(images_and_labels()[0])
    for norm, momentum in averaged.items():
        norm.momentum = momentum
        for name in ("running_mean", "running_var"):
            statistic = norm.get_buffer(name)
            statistic.copy_(setup.world.sum(statistic) / setup.world.size)


def finish(setup: TrainingSetup, run: Run, state: TrainingState, journal: Journal) -> None:
    """Measures the finished network on every part, exports it and writes the last event."""
    if setup.best:
        setup.result.load_state_dict(setup.best)
    if setup.recipe.precise_bn:
        average_statistics(setup, setup.recipe.precise_bn)
    held_out = setup.recipe.data.train_on == "train"
    splits: list[Split] = [s for s in get_args(Split) if held_out or s != "validation"]
    results = {split: setup.score(split) for split in splits}
    scores = {split: score for split, (score, _) in results.items()}
    if setup.world.is_main:
        with run.writing():
            export_model(setup, run.model, scores)
    event = FinalEvent(
        step=state.step,
        reached=state.reached,
        best_epoch=state.best_epoch or None,
        train=scores["train"],
        validation=scores.get("validation"),
        test=scores["test"],
        confusion=results["test"][1].tolist(),
    )
    journal.write(event)
    journal.sync()
