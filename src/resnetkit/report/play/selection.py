"""The runs behind the page: which it needs, which exist, and what the missing ones cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnetkit.errors import RecipeError
from resnetkit.storage import storage_errors
from resnetkit.studies.questions.degradation import DEGRADATION
from resnetkit.studies.questions.depth import DEPTH
from resnetkit.studies.questions.gradients import GRADIENTS
from resnetkit.studies.questions.gradients import group as gradients_group
from resnetkit.studies.questions.shortcuts import SHORTCUTS
from resnetkit.studies.runner import Task, trial_folder, trials_of
from resnetkit.studies.study import Changes, Trial
from resnetkit.training.run_folder import Run, find_runs, read_run

__all__ = ["LIVE", "OTHER_STUDIES", "SCALE", "Selection", "select_runs"]

SCALE = "quick"
OTHER_STUDIES = (SHORTCUTS, DEPTH, GRADIENTS)
LIVE = ("plain20", "plain56", "resnet20", "resnet56")
"""The networks that answer in the page: the trainings of seed 0."""
WITHOUT_NORM = {
    gradients_group("plain56", "none", weights): f"plain56-{weights}"
    for weights in ("he", "normal")
}
"""Groups of the study of gradients that the page shows, and its own names for them."""
WHOLE_SECONDS = 105.0
"""All needed trainings and measurements on 2 cores (AMD EPYC, torch 2.14, November 2026, n = 1)."""


@dataclass(frozen=True)
class Selection:
    """The runs that the page is made of.

    Attributes:
        root: folder of all studies.
        groups: the trainings of each network with the measurements that the page shows. Those of
            the study of degradation are needed; of other studies only finished ones are listed.
        unfinished: runs of other studies that are left out.
        unused: runs of recipes that the page does not show.
    """

    root: Path
    groups: dict[str, tuple[Task, ...]]
    unfinished: tuple[Path, ...]
    unused: tuple[Path, ...]

    @property
    def tasks(self) -> list[Task]:
        """Returns the tasks of all groups."""
        return [task for tasks in self.groups.values() for task in tasks]

    @property
    def missing(self) -> list[Task]:
        """Returns the tasks that are not done."""
        return [task for task in self.tasks if not task.is_done]

    @property
    def trainings_missing(self) -> int:
        return sum(Run(task.folder, task.recipe).final is None for task in self.missing)

    @property
    def seconds_missing(self) -> float:
        """Returns an estimate of the time for what is missing, on the machine of WHOLE_SECONDS."""
        whole = sum(task.cost for task in self.tasks)
        missing = sum(task.cost * (1 - task.fraction_done) for task in self.missing)
        return WHOLE_SECONDS * missing / whole


def select_runs(root: Path, changes: Changes | None = None) -> Selection:
    """Finds the runs of the page below the folder of all studies.

    Args:
        root: a folder that may not exist yet.
        changes: values of every recipe to replace.

    Raises:
        RecipeError: when the folder of a needed run holds another recipe.
        DataError: when a run is corrupt.
    """
    groups: dict[str, list[Task]] = {}
    unfinished = []
    with storage_errors(root, "Choose another folder with --runs."):
        for trial in trials_of(DEGRADATION, SCALE, changes):
            task = task_of(root, trial)
            refuse_other_recipe(task)
            groups.setdefault(trial.group, []).append(task)
        for trial in other_trials(set(groups), changes):
            task = task_of(root, trial)
            if is_finished(task):
                groups.setdefault(WITHOUT_NORM.get(trial.group, trial.group), []).append(task)
            elif task.folder.is_dir():
                unfinished.append(task.folder)
        used = {task.folder for tasks in groups.values() for task in tasks}
        runs = [run.folder for run in find_runs(root)]
    unused = tuple(folder for folder in runs if folder not in used | {*unfinished})
    sorted_groups = {group: tuple(tasks) for group, tasks in groups.items()}
    return Selection(root, sorted_groups, tuple(unfinished), unused)


def other_trials(needed: set[str], changes: Changes | None) -> Iterator[Trial]:
    """Yields the trainings of other studies that the page can show."""
    for study in OTHER_STUDIES:
        for trial in trials_of(study, SCALE, changes):
            is_shown = trial.group in WITHOUT_NORM or study is not GRADIENTS
            if is_shown and trial.group not in needed:
                yield trial


def task_of(root: Path, trial: Trial) -> Task:
    """Returns a training with the measurements that the page shows of it."""
    measurements = []
    if trial.group in WITHOUT_NORM:
        measurements.append("gradients")
    elif trial.group not in ("resnet44", "resnet110"):
        measurements.append("layers")
    if trial.group in LIVE and trial.recipe.seed == 0:
        measurements.append("lesions")
        if trial.group == "resnet56":
            measurements.append("paths")
    folder = trial_folder(root, trial.recipe)
    return Task(trial.recipe, folder, tuple(measurements), trial.group in WITHOUT_NORM)


def is_finished(task: Task) -> bool:
    """Returns whether the training of a task has ended."""
    if not (task.folder / "recipe.yaml").is_file():
        return False
    run = read_run(task.folder)
    return run.recipe.digest == task.recipe.digest and (
        run.final is not None or (task.divergence_counts and run.diverged)
    )


def refuse_other_recipe(task: Task) -> None:
    """Raises RecipeError when the folder of a run holds another recipe."""
    if not (task.folder / "recipe.yaml").is_file():
        return
    digest = read_run(task.folder).recipe.digest
    if digest != task.recipe.digest:
        raise RecipeError(
            f"{task.folder} holds a run of another recipe (digest {digest[:8]}) than the study of"
            f" degradation ({task.recipe.digest[:8]}). Nothing in it was touched. Move it away, or"
            " choose another folder with --runs."
        )
