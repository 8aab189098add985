"""Trains what a study still misses, many at a time, and computes its findings."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import joblib

from resnetkit.errors import Interrupted, TrainingDiverged, UsageError
from resnetkit.models.complexity import trace
from resnetkit.models.zoo import find_architecture
from resnetkit.studies.measurements import is_measured, measure
from resnetkit.studies.study import Outcome, Study, Trial
from resnetkit.studies.table import find_study
from resnetkit.training.loop import train
from resnetkit.training.recipe import Recipe
from resnetkit.training.run import Run, read_run

__all__ = ["read_outcome", "read_outcome_again", "run_study", "trial_folder", "trials_of"]

ShareObserver = Callable[[float], None]
"""Is given the share of all steps that is done, from 0 to 1."""

SECONDS_BETWEEN_LOOKS = 0.5


def trial_folder(root: Path, recipe: Recipe) -> Path:
    """Returns where a recipe is trained: equal recipes of all studies share one folder."""
    return root / "runs" / f"{recipe.name}-{recipe.digest[:8]}"


def outcome_folder(root: Path, study: Study, scale: str) -> Path:
    """Returns where the report of a study lies."""
    return root / f"{study.name}-{scale}"


def run_study(
    study: Study,
    scale: str,
    root: Path,
    *,
    changes: dict[str, Any] | None = None,
    jobs: int = 0,
    backend: str = "loky",
    device: str = "auto",
    observe: ShareObserver = lambda share: None,
) -> Outcome:
    """Trains every recipe of a study that is not finished yet, and judges its claims.

    Args:
        study: what is asked.
        scale: a key of `study.scales`.
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
    trials = trials_of(study, scale, changes)
    missing = [trial for trial in trials if not is_done(study, trial_folder(root, trial.recipe))]
    missing.sort(key=trial_cost, reverse=True)  # the longest first, so that none is left at the end
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
    with interruptible(study), watched(trials, root, observe):
        calls = (
            joblib.delayed(conduct)(
                study,
                trial.recipe,
                trial_folder(root, trial.recipe),
                device=device,
                threads=threads,
            )
            for trial in missing
        )
        for _ in pool(calls):
            pass
    observe(1.0)
    return read_outcome(study, scale, root, changes=changes)


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
    runs: dict[str, list[Run]] = {}
    for trial in trials_of(study, scale, changes):
        folder = trial_folder(root, trial.recipe)
        if not is_done(study, folder):
            raise UsageError(
                f"the study '{study.name}' is not complete: {folder} is not finished."
                f" 'resnet study {study.name} --scale {scale} --out {root}' goes on with it."
            )
        runs.setdefault(trial.group, []).append(read_run(folder))
    findings = tuple(study.findings(runs))
    return Outcome(study, scale, changes or {}, outcome_folder(root, study, scale), runs, findings)


def read_outcome_again(folder: Path) -> Outcome:
    """Computes the findings of a study once more, from the folder of its report.

    Raises:
        UsageError: when the folder is not one, or its runs are not all there.
    """
    try:
        facts = json.loads((folder / "findings.json").read_text())
        study, scale, changes = str(facts["study"]), str(facts["scale"]), dict(facts["changes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder}/findings.json cannot be read ({error}): 'resnet study' writes it again."
        ) from error
    return read_outcome(find_study(study), scale, folder.parent, changes=changes)


def is_done(study: Study, folder: Path) -> bool:
    """Returns whether a run folder holds all that a study needs of it."""
    if not (folder / "recipe.yaml").is_file():
        return False
    run = read_run(folder)
    ended = run.final is not None or (study.divergence_counts and run.diverged)
    return ended and all(is_measured(run, name) for name in study.measurements)


def conduct(study: Study, recipe: Recipe, folder: Path, *, device: str, threads: int) -> None:
    """Trains one recipe of a study and measures the network, as far as that is not done yet.

    Raises:
        ResnetkitError: whatever training raises; divergence only where it is not a result.
    """
    try:
        run = train(recipe, folder, device=device, threads=threads)
    except TrainingDiverged:
        if not study.divergence_counts:
            raise
        run = read_run(folder)
    for name in study.measurements:
        measure(run, name)


def trial_cost(trial: Trial) -> int:
    """Returns a number that grows with the time a training takes: its network's multiply-adds."""
    return trace(find_architecture(trial.recipe.model.name)).multiply_adds


@contextmanager
def interruptible(study: Study) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into Interrupted; running trainings keep their last checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(
            f"the study '{study.name}' was interrupted; finished trainings and checkpoints are"
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
def watched(trials: list[Trial], root: Path, observe: ShareObserver) -> Iterator[None]:
    """Looks into the run folders now and then and tells the observer how much is done."""
    costs = [(Run(trial_folder(root, t.recipe), t.recipe), trial_cost(t)) for t in trials]
    done = threading.Event()

    def look() -> None:
        whole = sum(cost for _, cost in costs)
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            observe(sum(cost * run.share_done for run, cost in costs) / whole)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
