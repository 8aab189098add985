"""Runs the missing trainings of studies, several at a time, and computes the findings."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from resnetkit.errors import DataError, Interrupted, RunInUse, TrainingDiverged, UsageError
from resnetkit.models.summary import count
from resnetkit.models.zoo import find_architecture
from resnetkit.studies.cluster import Workers
from resnetkit.studies.heartbeat import beating, watched
from resnetkit.studies.measurements import is_measured, measure
from resnetkit.studies.study import Changes, Outcome, Study, Trial
from resnetkit.studies.table import STUDIES, find_study
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run, read_run
from resnetkit.training.signals import StopRequest, ending_signals
from resnetkit.untrusted import parse_json, read_bounded

__all__ = [
    "ALL",
    "Task",
    "Workers",
    "read_outcome",
    "read_outcomes_again",
    "run_studies",
    "run_study",
    "run_tasks",
    "tasks_of",
    "trial_folder",
    "trials_of",
]

ProgressObserver = Callable[[float], None]
"""Receives the fraction of all steps that is done, from 0 to 1."""

LARGEST_FINDINGS = 2**26  # bytes
POLL_SECONDS = 0.5
RELEASED_SECONDS = 120  # for a network file system to release the lock of a dead process
ALL = "all"  # the name of all studies together


def trial_folder(root: Path, recipe: Recipe) -> Path:
    """Returns the run folder of a recipe, which all studies with an equal recipe share."""
    return root / "runs" / f"{recipe.name}-{recipe.digest[:8]}"


def outcome_folder(root: Path, study: Study, scale: str) -> Path:
    """Returns the folder of the report of a study."""
    return root / f"{study.name}-{scale}"


@dataclass(frozen=True)
class Task:
    """One training, with the measurements that studies need.

    Attributes:
        recipe: what is trained.
        folder: of the run.
        measurements: to take of the finished network.
        divergence_counts: whether a training that diverges is a result.
    """

    recipe: Recipe
    folder: Path
    measurements: tuple[str, ...]
    divergence_counts: bool

    @property
    def is_done(self) -> bool:
        """Returns whether the run is finished and every measurement is taken."""
        if not (self.folder / "recipe.yaml").is_file():
            return False
        run = read_run(self.folder)
        ended = run.final is not None or (self.divergence_counts and run.diverged)
        return ended and all(is_measured(run, name) for name in self.measurements)

    @property
    def fraction_done(self) -> float:
        """Returns how much of the training and the measurements is done, from 0 to 1."""
        run = Run(self.folder, self.recipe)
        taken = [float(is_measured(run, name)) for name in self.measurements]
        return statistics.fmean([run.fraction_done, *taken])

    @property
    def cost(self) -> int:
        """Returns the multiply-adds of the network, a measure of the training time."""
        return count(find_architecture(self.recipe.model.name)).multiply_adds


def tasks_of(
    studies: Sequence[Study], scale: str, root: Path, changes: Changes | None
) -> list[Task]:
    """Returns the trainings of studies, without duplicates."""
    tasks: dict[Path, Task] = {}
    for study in studies:
        for trial in trials_of(study, scale, changes):
            folder = trial_folder(root, trial.recipe)
            existing = tasks.get(folder)
            measurements = (*(existing.measurements if existing else ()), *study.measurements)
            counts = study.divergence_counts and (existing is None or existing.divergence_counts)
            unique = tuple(dict.fromkeys(measurements))
            tasks[folder] = Task(trial.recipe, folder, unique, counts)
    return list(tasks.values())


ONE_PER_CORE = Workers()


def run_study(
    study: Study,
    scale: str,
    root: str | Path,
    *,
    changes: Changes | None = None,
    workers: Workers = ONE_PER_CORE,
    observe: ProgressObserver = lambda fraction: None,
) -> Outcome:
    """Runs every training of a study that is not finished yet, and judges its claims.

    Arguments and errors are those of `run_studies`.
    """
    studies = [study]
    return run_studies(studies, scale, root, changes=changes, workers=workers, observe=observe)[0]


def run_studies(
    studies: Sequence[Study],
    scale: str,
    root: str | Path,
    *,
    changes: Changes | None = None,
    workers: Workers = ONE_PER_CORE,
    observe: ProgressObserver = lambda fraction: None,
) -> list[Outcome]:
    """Runs every training of studies that is not finished yet, and judges their claims.

    Args:
        studies: the questions.
        scale: a key of the `scales` of every study.
        root: folder of all studies; runs go to `root/runs`, reports to `root/<study>-<scale>`.
        changes: values of every recipe to replace, by dotted key.
        workers: how many trainings at a time, and where.
        observe: called every half a second with the fraction that is done.

    Raises:
        UsageError: for an unknown scale or backend.
        Interrupted: after SIGINT or SIGTERM; the same call resumes the study.
        ResnetkitError: whatever a training raises.
    """
    root = Path(root)
    if workers.is_cluster:
        root = root.absolute()  # its machines have other current folders
    name = studies[0].name if len(studies) == 1 else ALL
    tasks = tasks_of(studies, scale, root, changes)
    run_tasks(tasks, name, root, workers=workers, observe=observe)
    return [read_outcome(study, scale, root, changes=changes) for study in studies]


def run_tasks(
    tasks: Sequence[Task],
    name: str,
    root: Path,
    *,
    workers: Workers = ONE_PER_CORE,
    observe: ProgressObserver = lambda fraction: None,
) -> None:
    """Runs the trainings that are not finished yet, and takes the missing measurements.

    Args:
        tasks: what is needed.
        name: of the study, for messages.
        root: folder of all studies.
        workers: how many trainings at a time, and where.
        observe: called every half a second with the fraction that is done.

    Raises:
        Interrupted: after SIGINT or SIGTERM; the same call resumes.
        ResnetkitError: whatever a training raises.
    """
    missing = [task for task in tasks if not task.is_done]
    missing.sort(key=lambda task: task.cost, reverse=True)  # a long one must not be the last
    with beating(root) as heartbeat, interruptible(name), polled(tasks, observe):
        run = partial(run_task, device=workers.device, threads=workers.threads, heartbeat=heartbeat)
        workers.run(run, missing, root)
    observe(1.0)


def run_task(task: Task, *, device: str, threads: int, heartbeat: Path) -> None:
    """Runs a training and takes its measurements, unless that is done.

    Args:
        task: the training.
        device: see `train`.
        threads: see `train`.
        heartbeat: of the process that runs the study; the training stops when it ends.

    Raises:
        ResnetkitError: whatever training raises; divergence only where it is not a result.
    """
    try:
        with watched(heartbeat) as stop:
            run = trained(task, device=device, threads=threads, stop=stop)
    except TrainingDiverged:
        if not task.divergence_counts:
            raise
        run = read_run(task.folder)
    for name in task.measurements:
        measure(run, name)


def trained(task: Task, *, device: str, threads: int, stop: StopRequest) -> Run:
    """Runs a training, and waits for the process of a lost worker that still holds its folder.

    Raises:
        ResnetkitError: whatever training raises.
    """
    deadline = time.monotonic() + RELEASED_SECONDS
    while True:
        try:
            return train(task.recipe, task.folder, device=device, threads=threads, stop=stop)
        except RunInUse:
            if time.monotonic() > deadline or stop:
                raise
            time.sleep(POLL_SECONDS)


def trials_of(study: Study, scale: str, changes: Changes | None) -> list[Trial]:
    """Returns every training of a study.

    Raises:
        UsageError: when the study has no such scale, or when a change is one of the values that the
            study varies.
        RecipeError: when a change makes an impossible recipe.
    """
    if scale not in study.scales:
        raise UsageError(
            f"the study '{study.name}' has no scale '{scale}': expected {', '.join(study.scales)}."
        )
    return study.trials(scale, changes)


def read_outcome(
    study: Study, scale: str, root: Path, *, changes: Changes | None = None
) -> Outcome:
    """Computes the findings of a study from the finished runs below a folder.

    Raises:
        UsageError: when a run is missing or not finished.
    """
    for task in tasks_of([study], scale, root, changes):
        if not task.is_done:
            raise UsageError(
                f"the study '{study.name}' is not complete: {task.folder} is not finished."
                f" 'resnet study {study.name} --scale {scale} --out {root}' resumes it."
            )
    runs: dict[str, list[Run]] = {}
    for trial in trials_of(study, scale, changes):
        runs.setdefault(trial.group, []).append(read_run(trial_folder(root, trial.recipe)))
    try:
        findings, charts = tuple(study.findings(runs)), tuple(study.charts(runs) if runs else ())
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"the measurements of the study '{study.name}' are corrupt"
            f" ({type(error).__name__}: {error}). Remove the folders 'probes' below"
            f" {root / 'runs'}: the study measures again."
        ) from error
    folder = outcome_folder(root, study, scale)
    return Outcome(study, scale, changes or {}, folder, runs, findings, charts)


def read_outcomes_again(folder: Path) -> list[Outcome]:
    """Computes the findings of a study, or of all studies, again from the folder of its report.

    Raises:
        UsageError: when the folder is not that of a report, or when runs are missing.
    """
    try:
        facts = parse_json(read_bounded(folder / "findings.json", LARGEST_FINDINGS))
        name, scale, changes = str(facts["study"]), str(facts["scale"]), dict(facts["changes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder}/findings.json cannot be read ({error}): 'resnet study' writes it again."
        ) from error
    studies = list(STUDIES.values()) if name == ALL else [find_study(name)]
    if folder.name in ("", ".."):  # the parent of '.' would be '.'
        folder = Path(os.path.abspath(folder))
    return [read_outcome(study, scale, folder.parent, changes=changes) for study in studies]


@contextmanager
def interruptible(name: str) -> Iterator[None]:
    """Turns signals that end a process into Interrupted; trainings keep their last checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(
            f"the study '{name}' was interrupted; finished trainings and checkpoints are"
            " kept. The same command resumes it.",
            number,
        )

    before = {number: signal.signal(number, interrupt) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def polled(tasks: Sequence[Task], observe: ProgressObserver) -> Iterator[None]:
    """Calls the observer with the fraction that is done, read from the run folders."""
    costs = [(task, task.cost) for task in tasks]
    done = threading.Event()

    def poll() -> None:
        total = sum(cost for _, cost in costs)
        while not done.wait(POLL_SECONDS):
            observe(sum(cost * task.fraction_done for task, cost in costs) / total)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
