"""The training loop: train(recipe, folder) -> Run."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from resnetkit.data.batches import Batch
from resnetkit.data.images.listing import describe_classes, with_digests
from resnetkit.data.images.table import write_images
from resnetkit.data.splits import Split
from resnetkit.errors import Interrupted, TrainingDiverged, WeightsError
from resnetkit.evaluation.metric_sums import Score
from resnetkit.runtime.environment import hardware, versions
from resnetkit.runtime.process_group import World, open_world
from resnetkit.storage import write_file
from resnetkit.training.checks import explained_bad_images
from resnetkit.training.events import (
    EpochEvent,
    Event,
    IntervalEvent,
    Session,
    SessionData,
    Timing,
)
from resnetkit.training.finish import finish
from resnetkit.training.journal import Journal, MetricsEnd
from resnetkit.training.recipe import Recipe
from resnetkit.training.resume import restore, save
from resnetkit.training.run_folder import Run, find_images, locked_run, run_elsewhere
from resnetkit.training.setup import TrainingSetup, prepare
from resnetkit.training.signals import StopRequest, caught_signals
from resnetkit.training.state import TrainingState
from resnetkit.training.step import NotFinite, Step, train_step
from resnetkit.weights.load import load_network

__all__ = ["Observer", "train"]

Observer = Callable[[Event], None]


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: str = "auto",
    threads: int = 0,
    stop: StopRequest | None = None,
    observe: Observer = lambda event: None,
) -> Run:
    """Trains a recipe in a run folder, to the end.

    The folder is created if needed. An interrupted run of the same recipe is resumed and ends
    with the same weights and metrics, to the bit, as if it had never been interrupted. A finished
    run is returned as it is.

    Args:
        recipe: what to train.
        folder: of the run.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads; 0 chooses by the cost of a step. The number can change the last bits
            of results.
        stop: makes the training stop after a step or an evaluation, with everything saved, once it
            is set; signals set it too.
        observe: called with every event as it is written; intervals have their timing.

    Raises:
        RecipeError: when the recipe does not fit its data, or the folder holds another recipe's
            run.
        DataError: when the data is missing, corrupt or not what was expected.
        WeightsError: when the checkpoint to resume from is corrupt.
        StorageError: when the folder cannot be written; the last checkpoint is kept.
        TrainingDiverged: when the loss or gradient is not finite, before that step is taken.
        Interrupted: after a signal that ends processes, when everything is saved.
    """
    folder = Path(folder)
    with open_world(device) as world, caught_signals(stop) as stop:
        recipe = recipe_of_run(folder, recipe, world)
        setup, state = prepare(recipe, world, listed=Run(folder, recipe).images_path)
        if world.any(bool(stop))[0]:  # while everything was prepared, compilers included
            raise Interrupted(
                "stopped before the first step; nothing was changed. The same command resumes.",
                stop.signal_number or signal.SIGTERM,
            )
        torch.set_num_threads(threads or setup.sensible_threads)
        with opened_run(folder, recipe, world) as run:
            if run.final is None:
                write_image_list(setup, run)
                with closing(Journal(run, observe, writes=world.is_main)) as journal:
                    state, metrics_end = restore(setup, run, state)
                    journal.open_session(session(setup, state), metrics_end)
                    with explained_bad_images(setup.dataset):
                        state = fit(setup, run, state, journal, stop)
                        pause = partial(stop_if_asked, setup, run, state, stop)
                        finish(setup, run, state, journal, pause)
                world.barrier()  # no rank leaves before the run is finished
            elif world.is_main:
                check_model(run)
    return run


def recipe_of_run(folder: Path, recipe: Recipe, world: World) -> Recipe:
    """Returns the recipe of the run in a folder if its images were moved, else the one given."""
    run = run_elsewhere(folder, recipe)
    if world.any(run is not None)[0]:  # every rank has looked before the list is changed
        world.main_first(lambda: find_images(run, Path(recipe.data.name)) if run else None)
    return recipe if run is None else run.recipe


def check_model(run: Run) -> None:
    """Checks the model folder of a finished run.

    Raises:
        WeightsError: when it is corrupt; the last checkpoint still holds the network.
    """
    try:
        load_network(run.folder)
    except WeightsError as error:
        raise WeightsError(
            f"{error} The last checkpoint of the run still holds the network: move {run.model}"
            " away, and the same command writes it again."
        ) from error


@contextmanager
def opened_run(folder: Path, recipe: Recipe, world: World) -> Iterator[Run]:
    """Opens the run folder: the main rank creates and locks it, the others wait."""
    with locked_run(folder, recipe) if world.is_main else nullcontext(Run(folder, recipe)) as run:
        world.barrier()  # no rank reads before the folder exists
        yield run


def write_image_list(setup: TrainingSetup, run: Run) -> None:
    """Writes images.csv: the custom images and their splits."""
    images = setup.dataset.custom
    if images is None:
        return

    def write() -> None:
        if not run.images_path.exists():
            with run.writing():
                write_file(run.images_path, write_images(with_digests(images)))

    setup.world.main_first(write)


def session(setup: TrainingSetup, state: TrainingState) -> Session:
    """Returns the environment of this start of the training."""
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
            classes=describe_classes(setup.dataset.class_names),
        ),
    )


def due(step: int, every: int, total: int) -> bool:
    """Returns whether something done every `every` steps, and at the end, is due after `step`."""
    return step % every == 0 or step == total


def fit(
    setup: TrainingSetup, run: Run, state: TrainingState, journal: Journal, stop: StopRequest
) -> TrainingState:
    """Takes the remaining steps, evaluates and saves when due, and returns the last state.

    Raises:
        TrainingDiverged: before a step whose loss or gradient is not finite.
        Interrupted: after a step or an evaluation during which a signal came, when everything is
            saved.
    """
    total, epoch = setup.total_steps, setup.batches.steps_per_epoch
    every = setup.recipe.checkpoint.every.steps(epoch)
    if state.step == 0 and setup.snapshot_steps:
        save(setup, run, state, MetricsEnd())
    watch = Stopwatch()
    batches = setup.batches.between(state.step, 0 if state.reached else total)
    for batch, images_and_labels in setup.loader.stream(batches, setup.crop_size):
        with watch.training():
            try:
                state, step = train_step(setup, state, *images_and_labels())
            except NotFinite as refused:
                raise divergence(setup, run, batch, refused.step) from None
        if due(state.step, setup.recipe.log_every, total):
            timing = watch.read(state.step, setup.batches.size)
            state = close_interval(setup, state, journal, step, timing)
        if batch.ends_epoch or state.step == total:
            state = close_epoch(setup, state, journal, batch.epoch + 1)
        stopped = setup.world.any(bool(stop))[0]
        is_snapshot = state.step in setup.snapshot_steps
        if stopped or state.reached or is_snapshot or due(state.step, every, total):
            save(setup, run, state, journal.sync())
        if stopped:
            raise interruption(setup, run, state, stop)
        if state.reached:
            break
    return state


def interruption(
    setup: TrainingSetup, run: Run, state: TrainingState, stop: StopRequest
) -> Interrupted:
    """Returns the error that ends a training whose state is saved."""
    return Interrupted(
        f"stopped after step {state.step} of {setup.total_steps}; everything is saved in"
        f" {run.folder}. The same command resumes from there.",
        stop.signal_number or signal.SIGTERM,  # another rank was asked to stop
    )


def stop_if_asked(setup: TrainingSetup, run: Run, state: TrainingState, stop: StopRequest) -> None:
    """Raises Interrupted if a rank was asked to stop; the state is saved."""
    if setup.world.any(bool(stop))[0]:
        raise interruption(setup, run, state, stop)


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
    setup: TrainingSetup, state: TrainingState, journal: Journal, step: Step, timing: Timing
) -> TrainingState:
    """Writes the averages since the last interval; returns the state after it."""
    score = state.interval.score(setup.world)
    state.interval.clear()
    event = IntervalEvent(
        step=state.step,
        lr=step.lr,
        loss=score.loss,
        error=score.error,
        gradient_norm=step.gradient_norm.item(),
        timing=timing,
    )
    journal.write(event)
    return replace(state, schedule=setup.learning_rate.observe(event, state.schedule))


def close_epoch(
    setup: TrainingSetup, state: TrainingState, journal: Journal, epoch: int
) -> TrainingState:
    """Writes the averages over an epoch and, when due, the error on the split that is evaluated."""
    trained = state.epoch.score(setup.world)
    state.epoch.clear()
    event = EpochEvent(
        epoch=epoch, step=state.step, train_loss=trained.loss, train_error=trained.error
    )
    recipe = setup.recipe
    if epoch % recipe.evaluation.every_epochs == 0 or state.step == setup.total_steps:
        score = setup.score(state.result, recipe.evaluation.split).single
        event = with_score(event, recipe.evaluation.split, score)
        state = replace(state, reached=0 < recipe.target_error >= score.error)
        if recipe.finetune.patience:
            patience = recipe.finetune.patience
            state = state.with_validation_error(epoch, score.error, patience=patience)
    journal.write(event)
    return replace(state, schedule=setup.learning_rate.observe(event, state.schedule))


def with_score(event: EpochEvent, split: Split, score: Score) -> EpochEvent:
    """Returns the event of an epoch with the score on the split that was evaluated."""
    if split == "test":
        return replace(event, test_loss=score.loss, test_error=score.error)
    return replace(event, validation_loss=score.loss, validation_error=score.error)


def divergence(setup: TrainingSetup, run: Run, batch: Batch, step: Step) -> TrainingDiverged:
    """Writes failure.json, and returns the error, which says what to try."""
    details = {
        "step": batch.step,
        "epoch": batch.epoch,
        "lr": step.lr,
        "loss": str(step.loss.item()),
        "gradient_norm": str(step.gradient_norm.item()),
        "sample_ids": batch.sample_ids.tolist(),
    }
    path = run.failure_path
    if setup.world.is_main:
        with run.writing():
            write_file(path, json.dumps(details, indent=1))
    return TrainingDiverged(
        f"training diverged: at step {batch.step} the loss is {details['loss']} and the gradient's"
        f" norm {details['gradient_norm']}; that step was not taken. {path} names the samples."
        f" {run.how_to_resume().split('.')[0]}. Try a lower optimizer.lr (it was {step.lr:g}), a"
        " longer warm-up, gradient_clip=1 or precision=float32."
    )
