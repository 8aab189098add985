"""Trains what a study still misses, many at a time, and computes its findings."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import joblib

from resnetkit.errors import DataError, Interrupted, TrainingDiverged, UsageError
from resnetkit.models.summary import trace
from resnetkit.models.zoo import find_architecture
from resnetkit.studies.measurements import is_measured, measure
from resnetkit.studies.study import Outcome, Study, Trial
from resnetkit.studies.table import STUDIES, find_study
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run_folder import Run, read_run
from resnetkit.untrusted import parse_json, read_bounded

__all__ = [
    "ALL",
    "read_outcome",
    "read_outcomes_again",
    "run_studies",
    "run_study",
    "tasks_of",
    "trial_folder",
    "trials_of",
]

ProgressObserver = Callable[[float], None]
"""Is given the share of all steps that is done, from 0 to 1."""

LARGEST_FINDINGS = 2**26  # bytes
SECONDS_BETWEEN_LOOKS = 0.5
ALL = "all"  # what to call every study together


def trial_folder(root: Path, recipe: Recipe) -> Path:
    """Returns where a recipe is trained: equal recipes of all studies share one folder."""
    return root / "runs" / f"{recipe.name}-{recipe.digest[:8]}"


def outcome_folder(root: Path, study: Study, scale: str) -> Path:
    """Returns where the report of a study lies."""
    return root / f"{study.name}-{scale}"


@dataclass(frozen=True)
class Task:
    """One training, with all that some studies need of it.

    Attributes:
        recipe: what is trained.
        folder: of the run.
        measurements: taken of the finished network.
        divergence_counts: whether a training that diverges is a result.
    """

    recipe: Recipe
    folder: Path
    measurements: tuple[str, ...]
    divergence_counts: bool

    @property
    def is_done(self) -> bool:
        """Returns whether the run folder holds all of it."""
        if not (self.folder / "recipe.yaml").is_file():
            return False
        run = read_run(self.folder)
        ended = run.final is not None or (self.divergence_counts and run.diverged)
        return ended and all(is_measured(run, name) for name in self.measurements)

    @property
    def cost(self) -> int:
        """Returns a number that grows with the time it takes: its network's multiply-adds."""
        return trace(find_architecture(self.recipe.model.name)).multiply_adds


def tasks_of(
    studies: Sequence[Study], scale: str, root: Path, changes: dict[str, Any] | None
) -> list[Task]:
    """Returns the trainings of some studies; what several of them need is trained once."""
    tasks: dict[Path, Task] = {}
    for study in studies:
        for trial in trials_of(study, scale, changes):
            folder = trial_folder(root, trial.recipe)
            known = tasks.get(folder)
            measurements = (*(known.measurements if known else ()), *study.measurements)
            counts = study.divergence_counts and (known is None or known.divergence_counts)
            unique = tuple(dict.fromkeys(measurements))
            tasks[folder] = Task(trial.recipe, folder, unique, counts)
    return list(tasks.values())


def run_study(study: Study, scale: str, root: Path, **options: Any) -> Outcome:
    """Trains every recipe of a study that is not finished yet, and judges its claims.

    Arguments and errors are those of `run_studies`.
    """
    return run_studies([study], scale, root, **options)[0]


def run_studies(
    studies: Sequence[Study],
    scale: str,
    root: Path,
    *,
    changes: dict[str, Any] | None = None,
    jobs: int = 0,
    backend: str = "loky",
    device: str = "auto",
    observe: ProgressObserver = lambda fraction: None,
) -> list[Outcome]:
    """Trains every recipe of some studies that is not finished yet, and judges their claims.

    Args:
        studies: what is asked.
        scale: a key of the `scales` of each.
        root: folder of all studies; runs go to `root/runs`, reports to `root/<study>-<scale>`.
        changes: values of every recipe to replace, by dotted key.
        jobs: trainings at a time, one thread each; 0 takes one a core.
        backend: of joblib: loky, threading, sequential, or one registered with it.
        device: see `train`.
        observe: is told now and then how much is done.

    Raises:
        UsageError: for an unknown scale or backend.
        Interrupted: after SIGINT or SIGTERM; the same call goes on from there.
        ResnetkitError: whatever a training raises.
    """
    tasks = tasks_of(studies, scale, root, changes)
    missing = [task for task in tasks if not task.is_done]
    missing.sort(key=lambda task: task.cost, reverse=True)  # so that none is left at the end
    at_a_time = jobs or joblib.cpu_count()
    threads = 1 if at_a_time > 1 else 0  # the same however many trainings are still missing
    try:
        workers = max(1, min(at_a_time, len(missing)))
        pool = joblib.Parallel(n_jobs=workers, backend=backend, return_as="generator_unordered")
    except ValueError as error:
        raise UsageError(
            f"unknown joblib backend '{backend}': expected loky, threading, sequential or one that"
            " is registered with joblib and can return what is done first."
        ) from error
    name = studies[0].name if len(studies) == 1 else ALL
    with interruptible(name), watched(tasks, observe):
        calls = (joblib.delayed(conduct)(task, device=device, threads=threads) for task in missing)
        for _ in pool(calls):
            pass
    observe(1.0)
    return [read_outcome(study, scale, root, changes=changes) for study in studies]


def conduct(task: Task, *, device: str, threads: int) -> None:
    """Trains a recipe and measures the network, as far as that is not done yet.

    Raises:
        ResnetkitError: whatever training raises; divergence only where it is not a result.
    """
    try:
        run = train(task.recipe, task.folder, device=device, threads=threads)
    except TrainingDiverged:
        if not task.divergence_counts:
            raise
        run = read_run(task.folder)
    for name in task.measurements:
        measure(run, name)


def trials_of(study: Study, scale: str, changes: dict[str, Any] | None) -> list[Trial]:
    """Returns every training of a study.

    Raises:
        UsageError: when the study has no such scale, or varies itself what should be changed.
        RecipeError: when a change makes an impossible recipe.
    """
    if scale not in study.scales:
        raise UsageError(
            f"the study '{study.name}' has no scale '{scale}': expected {', '.join(study.scales)}."
        )
    return study.trials(scale, changes)


def read_outcome(
    study: Study, scale: str, root: Path, *, changes: dict[str, Any] | None = None
) -> Outcome:
    """Computes the findings of a study from the finished runs below a folder.

    Raises:
        UsageError: when a run is missing or not finished.
    """
    for task in tasks_of([study], scale, root, changes):
        if not task.is_done:
            raise UsageError(
                f"the study '{study.name}' is not complete: {task.folder} is not finished."
                f" 'resnet study {study.name} --scale {scale} --out {root}' goes on with it."
            )
    runs: dict[str, list[Run]] = {}
    for trial in trials_of(study, scale, changes):
        runs.setdefault(trial.group, []).append(read_run(trial_folder(root, trial.recipe)))
    try:
        findings, charts = tuple(study.findings(runs)), tuple(study.charts(runs) if runs else ())
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"what the study '{study.name}' measured is damaged ({type(error).__name__}: {error})."
            f" Remove the folders 'probes' below {root / 'runs'}: the study measures again."
        ) from error
    folder = outcome_folder(root, study, scale)
    return Outcome(study, scale, changes or {}, folder, runs, findings, charts)


def read_outcomes_again(folder: Path) -> list[Outcome]:
    """Computes the findings of a study, or of all, once more, from the folder of its report.

    Raises:
        UsageError: when the folder is not one, or its runs are not all there.
    """
    try:
        facts = parse_json(read_bounded(folder / "findings.json", LARGEST_FINDINGS))
        study, scale, changes = str(facts["study"]), str(facts["scale"]), dict(facts["changes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder}/findings.json cannot be read ({error}): 'resnet study' writes it again."
        ) from error
    studies = list(STUDIES.values()) if study == ALL else [find_study(study)]
    return [read_outcome(each, scale, folder.parent, changes=changes) for each in studies]


@contextmanager
def interruptible(name: str) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into Interrupted; running trainings keep their last checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(
            f"the study '{name}' was interrupted; finished trainings and checkpoints are"
            " kept. The same command goes on from there.",
            number,
        )

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def watched(tasks: Sequence[Task], observe: ProgressObserver) -> Iterator[None]:
    """Looks into the run folders now and then and tells the observer how much is done."""
    costs = [(Run(task.folder, task.recipe), task.cost) for task in tasks]
    done = threading.Event()

    def look() -> None:
        whole = sum(cost for _, cost in costs)
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            observe(sum(cost * run.fraction_done for run, cost in costs) / whole)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
