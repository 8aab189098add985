"""From run folders to the one JSON value of the page."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from resnetkit.data.datasets import open_dataset
from resnetkit.errors import DataError
from resnetkit.models.summary import count
from resnetkit.report.play.messages import Messages
from resnetkit.report.play.selection import LIVE, Selection
from resnetkit.report.play.weights import pack_digits, pack_network
from resnetkit.studies.measurements import Measured, measured
from resnetkit.studies.runner import Task
from resnetkit.studies.statistics import ERROR_MARGIN
from resnetkit.training.run_folder import Run, read_run
from resnetkit.weights.load import load_network

__all__ = ["LiveData", "PageData", "PlayRun", "live_data", "page_data", "play_runs", "script_json"]

ShortcutName = Literal["none", "A", "B", "C"]


@dataclass(frozen=True)
class PlayRun:
    """A run as the page reads it; errors are in percent.

    Attributes:
        group: trainings that differ in their seed alone, such as plain20 or resnet32-B.
        depth: in layers.
        shortcut: of its blocks.
        seed: of its training.
        folder: below the folder of all studies.
        digest: of its recipe.
        parameters: number of trained parameters.
        steps_per_epoch: of its training; null where it diverged in its first epoch.
        epochs: 1, 2, ...
        train_error: after each epoch, measured during training.
        test_error: after each epoch; null where it was not measured.
        final_train_error: of the finished network, on all training images.
        final_test_error: likewise, on the test images.
        diverged: whether the loss was not finite; the final errors are then null.
        probes: measurements of the run, by name.
    """

    group: str
    depth: int
    shortcut: ShortcutName
    seed: int
    folder: str
    digest: str
    parameters: int
    steps_per_epoch: float | None
    epochs: list[int]
    train_error: list[float | None]
    test_error: list[float | None]
    final_train_error: float | None
    final_test_error: float | None
    diverged: bool
    probes: dict[str, dict[str, list[float | None]]]


@dataclass(frozen=True)
class PageData:
    """The one value that the scripts of the page read.

    Attributes:
        language: of the page.
        messages: texts of the scripts in this language.
        root: folder of all studies, as it was given.
        margin: percentage points by which a difference counts, as in the studies.
        runs: all runs of the page.
    """

    language: str
    messages: Messages
    root: str
    margin: float
    runs: list[PlayRun]


@dataclass(frozen=True)
class LiveData:
    """What the live networks are made of.

    Attributes:
        networks: packed.
        digits: the packed test images.
    """

    networks: list[dict[str, Any]]
    digits: dict[str, Any]


def page_data(selection: Selection, texts: Messages, language: str) -> PageData:
    """Reads what the charts of the page show.

    Raises:
        DataError: when a file of a run is corrupt, or a run is not finished.
    """
    return PageData(
        language=language,
        messages=texts,
        root=str(selection.root),
        margin=ERROR_MARGIN,
        runs=play_runs(selection),
    )


def live_data(selection: Selection) -> LiveData:
    """Packs the networks that answer in the page, and the test images.

    Raises:
        WeightsError: when the weights of a network cannot be read.
    """
    live = [read_run(first_task(selection, group).folder) for group in LIVE]
    digits = open_dataset(live[0].recipe.data.name)
    images = digits.images[digits.splits["test"]]
    networks = [pack_network(load_network(run.folder), images).as_json() for run in live]
    return LiveData(networks, pack_digits(digits).as_json())


def first_task(selection: Selection, group: str) -> Task:
    """Returns the training of a group with the smallest seed."""
    return min(selection.groups[group], key=lambda task: task.recipe.seed)


def play_runs(selection: Selection) -> list[PlayRun]:
    """Reads all runs of a selection, in its order.

    Raises:
        DataError: when a file of a run is corrupt, or a run is not finished.
    """
    return [
        play_run(selection.root, group, task)
        for group, tasks in selection.groups.items()
        for task in tasks
    ]


def play_run(root: Path, group: str, task: Task) -> PlayRun:
    """Reads a run."""
    run = read_run(task.folder)
    final, epochs = run.final, run.epochs
    if final is None and not run.diverged:
        raise DataError(f"{run.folder} is not finished: 'resnet play' resumes its training.")
    architecture = run.recipe.architecture(num_classes=10, in_channels=1)
    return PlayRun(
        group=group,
        depth=int("".join(filter(str.isdigit, run.recipe.model.name))),
        shortcut=architecture.shortcut,
        seed=run.recipe.seed,
        folder=run.folder.relative_to(root).as_posix(),
        digest=run.recipe.digest,
        parameters=count(architecture).parameters,
        steps_per_epoch=epochs[0].step / epochs[0].epoch if epochs else None,
        epochs=[event.epoch for event in epochs],
        train_error=finite([event.train_error for event in epochs]),
        test_error=finite([event.test_error for event in epochs]),
        final_train_error=final.train.error if final and final.train else None,
        final_test_error=final.test.error if final else None,
        diverged=run.diverged,
        probes={name: read_probe(run, name) for name in task.measurements},
    )


def read_probe(run: Run, name: str) -> dict[str, list[float | None]]:
    """Returns a measurement of a run, with null for numbers that are not finite."""
    values: Measured = measured(run, name)
    return {key: finite(numbers) for key, numbers in values.items()}


def finite(values: list[Any]) -> list[float | None]:
    """Returns numbers as JSON can hold them: null stands for those that are not finite."""
    return [
        float(value) if value is not None and math.isfinite(value) else None for value in values
    ]


def fields_of(value: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass, which may hold others."""
    return asdict(value)


def script_json(data: object) -> Markup:
    """Returns JSON for a script element: no text in it can end the element."""
    text = json.dumps(data, default=fields_of, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
