"""The run folder: a training that explains itself and can be resumed.

recipe.yaml        the resolved recipe
images.csv         of custom images: paths, labels and splits
environment.json   for each session: versions, hardware, precision and its reason
metrics.jsonl      one event per line; the same bytes for the same recipe, interrupted or not
timing.jsonl       the time of each interval, which differs from run to run
checkpoints/       the states that an interrupted run resumes from
failure.json       the step and samples at which training diverged, if it did
probes/            measurements of studies
model/             weights, configuration and model card of the finished network
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import filelock

from resnetkit.data.images.listing import ImageList, relocated
from resnetkit.data.images.table import read_list, write_images
from resnetkit.errors import DataError, RecipeError, RunInUse, StorageError, UsageError
from resnetkit.storage import (
    NO_LOCKS,
    TEMPORARY_PREFIX,
    remove_leftovers,
    storage_errors,
    write_file,
)
from resnetkit.training.checkpoint import checkpoint_steps
from resnetkit.training.events import (
    EpochEvent,
    FinalEvent,
    IntervalEvent,
    Session,
    Timing,
    event_from_json,
    session_from_json,
    timing_from_json,
)
from resnetkit.training.recipe import Recipe, checked_recipe, read_values
from resnetkit.untrusted import open_regular, parse_json, read_bounded

__all__ = [
    "LARGEST_RECORD",
    "MODEL_FILES",
    "Run",
    "find_images",
    "find_runs",
    "flat",
    "locked_run",
    "read_run",
    "run_elsewhere",
]

T = TypeVar("T")
logger = logging.getLogger(__name__)

LARGEST_RECORD = 2**30  # bytes; the metrics of the longest recipe have less than a hundredth
MODEL_FILES = ("config.json", "model.safetensors", "preprocessing.safetensors")


@dataclass(frozen=True)
class Run:
    """A run folder, for reading.

    Attributes:
        folder: its path.
        recipe: of the training.
    """

    folder: Path
    recipe: Recipe

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def timing_path(self) -> Path:
        return self.folder / "timing.jsonl"

    @property
    def images_path(self) -> Path:
        return self.folder / "images.csv"

    @property
    def images(self) -> ImageList:
        """Returns the custom images of the run and their splits, as images.csv lists them.

        The files themselves may have been moved.

        Raises:
            DataError: when the list cannot be read.
        """
        return read_list(self.images_path, Path(self.recipe.data.name))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def events(self) -> list[IntervalEvent | EpochEvent | FinalEvent]:
        """Returns the events of metrics.jsonl, in order.

        Raises:
            DataError: if a line is corrupt.
        """
        return read_records(self.metrics_path, event_from_json)

    @property
    def intervals(self) -> list[IntervalEvent]:
        return [event for event in self.events if isinstance(event, IntervalEvent)]

    @property
    def epochs(self) -> list[EpochEvent]:
        return [event for event in self.events if isinstance(event, EpochEvent)]

    @property
    def timings(self) -> list[Timing]:
        """Returns the timings of all intervals, over all sessions.

        Raises:
            DataError: if a line of timing.jsonl is corrupt.
        """
        return read_records(self.timing_path, timing_from_json)

    @property
    def last_step(self) -> int:
        """Returns the step of the last interval, by the end of timing.jsonl; 0 before the first.

        Raises:
            DataError: if timing.jsonl cannot be read.
        """
        if not self.timing_path.exists():
            return 0
        try:
            with open_regular(self.timing_path) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 1024))
                steps = re.findall(rb'"step": (\d{1,18})[^\n]*\n', file.read(1024))
        except OSError as error:
            raise corrupt(self.timing_path, reason(error)) from error
        return int(steps[-1]) if steps else 0

    def writing(self) -> AbstractContextManager[None]:
        """Returns the context in which an error of writing says what is saved and how to resume."""
        return storage_errors(self.folder, self.how_to_resume)

    def how_to_resume(self) -> str:
        """Returns what is saved when writing fails, and how to resume."""
        steps = checkpoint_steps(self.checkpoints)
        saved = (
            f"The checkpoint of step {steps[-1]} is kept." if steps else "Nothing was saved yet."
        )
        return (
            f"{saved} Make room, or move the folder to another disk and name it with --out; the"
            " same command then resumes."
        )

    @property
    def fraction_done(self) -> float:
        """Returns the fraction of all steps done, from 0 to 1; 0 where it cannot be read."""
        try:
            if self.final is not None:
                return 1.0
            total = self.sessions[-1].total_steps
            return min(1.0, self.last_step / total)
        except (DataError, IndexError, ZeroDivisionError):
            return 0.0

    @property
    def final(self) -> FinalEvent | None:
        """Returns the results of a finished run, and None unless its model folder is complete.

        Raises:
            DataError: if a line of metrics.jsonl is corrupt.
        """
        if not all((self.model / name).is_file() for name in MODEL_FILES):
            return None  # exported before the last event is written
        finals = [event for event in self.events if isinstance(event, FinalEvent)]
        return finals[-1] if finals else None

    @property
    def diverged(self) -> bool:
        """Returns whether training ended because the loss or the gradient was not finite."""
        return self.final is None and self.failure_path.exists()

    @property
    def failure_path(self) -> Path:
        return self.folder / "failure.json"

    def probe_path(self, name: str) -> Path:
        """Returns the path of a measurement of the finished network."""
        return self.folder / "probes" / f"{name}.json"

    @property
    def environment_path(self) -> Path:
        return self.folder / "environment.json"

    @property
    def sessions(self) -> list[Session]:
        """Returns the environment of each start of the training, in order.

        Raises:
            DataError: if environment.json is corrupt.
        """
        path = self.environment_path
        if not path.exists():
            return []
        try:
            sessions = parse_json(read_bounded(path, LARGEST_RECORD))
            if not isinstance(sessions, list):
                raise ValueError("it is not a list of sessions")
            return [session_from_json(session) for session in sessions]
        except (OSError, ValueError) as error:
            raise corrupt(path, reason(error)) from error

    @property
    def seconds(self) -> float:
        """Returns the seconds spent training, over all sessions."""
        return float(sum(timing.seconds for timing in self.timings))


def read_records(path: Path, from_json: Callable[[object], T]) -> list[T]:
    """Returns the records of a JSON lines file, without a last line that is still being written.

    Args:
        path: of the file; one that does not exist has no lines.
        from_json: returns the record that a JSON value holds, or raises ValueError.

    Raises:
        DataError: naming file and line, if a line is corrupt.
    """
    if not path.exists():
        return []
    try:
        complete, _, _ = read_bounded(path, LARGEST_RECORD).rpartition(b"\n")
        return list(parsed_records(complete, from_json))
    except (OSError, ValueError) as error:
        raise corrupt(path, reason(error)) from error


@lru_cache(maxsize=64)  # files; a report asks for the records of each run dozens of times
def parsed_records(content: bytes, from_json: Callable[[object], T]) -> tuple[T, ...]:
    """Returns the records of JSON lines; they are shared, and not to be changed.

    Raises:
        ValueError: naming the first line that is corrupt.
    """
    records = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            records.append(from_json(parse_json(line, finite=False)))  # NaN means null
        except ValueError as error:
            raise ValueError(f"line {number} cannot be read ({error})") from error
    return tuple(records)


def reason(error: Exception) -> str:
    """Returns the reason why a file cannot be read."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def corrupt(path: Path, problem: str) -> DataError:
    """Returns the error for a corrupt file of a run."""
    return DataError(f"{path} is corrupt: {problem}. Restore the file, or train the recipe again.")


def read_run(folder: str | Path) -> Run:
    """Opens a run folder for reading.

    Raises:
        UsageError: when the folder holds no run.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file():
        raise UsageError(
            f"{folder} is not a run folder: it has no recipe.yaml. 'resnet runs' lists the runs"
            " here."
        )
    return run_in(folder)


def run_in(folder: Path) -> Run:
    """Returns the run of a folder that has a recipe.yaml.

    Raises:
        RecipeError: when it cannot be read.
    """
    return Run(folder, checked_recipe(read_values(folder / "recipe.yaml")))


def find_runs(root: Path) -> list[Run]:
    """Returns the runs below a folder, in the order of their paths.

    A run whose recipe cannot be read is left out, with a warning in the log.
    """
    runs = []
    for path in sorted(root.rglob("recipe.yaml")):
        try:
            runs.append(run_in(path.parent))
        except RecipeError as error:
            logger.warning("%s is left out: %s", path.parent, error)
    return runs


@contextmanager
def locked_run(folder: Path, recipe: Recipe) -> Iterator[Run]:
    """Creates or reopens a run folder, for one process at a time.

    Raises:
        StorageError: when the folder cannot be written, or its file system has no locks.
        RunInUse: when another process is training in it.
        RecipeError: when the folder belongs to another recipe.
        UsageError: when the folder is in use for something else.
    """
    advice = "Choose another folder with --out."
    with storage_errors(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in folder.iterdir()]
    foreign = [name for name in names if not name.startswith((LOCK, TEMPORARY_PREFIX))]
    if foreign and "recipe.yaml" not in names:
        raise UsageError(
            f"{folder} is not empty and holds no run; nothing in it was touched. {advice}"
        )
    lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)  # not a file that outlives us
    with storage_errors(folder, advice):
        acquire_lock(lock, folder)
    try:
        with storage_errors(folder, advice):  # of killed processes; this one alone writes now
            for path in (folder, folder / "checkpoints", folder / "probes"):
                remove_leftovers(path)
        if (folder / "recipe.yaml").exists():
            refuse_other_recipe(read_run(folder), recipe)
        else:
            with storage_errors(folder, advice):
                write_file(folder / "recipe.yaml", recipe.to_yaml())
        yield Run(folder, recipe)
    finally:
        lock.release()


LOCK = ".lock"


def acquire_lock(lock: filelock.BaseFileLock, folder: Path) -> None:
    """Acquires the lock of a run folder at once.

    Raises:
        RunInUse: when another process holds it.
        StorageError: when the file system has no locks.
    """
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunInUse(
            f"another process is training in {folder}. Wait for it, or choose another folder with"
            " --out."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise StorageError(
            f"{folder} is on a file system without locks ({error.strerror}), which keep two"
            " processes from training in one folder. Mount it with locks (NFS: without nolock,"
            " Lustre: with flock), or choose another folder with --out."
        ) from None


def refuse_other_recipe(run: Run, recipe: Recipe) -> None:
    """Raises RecipeError, naming the first difference, unless the run has this recipe."""
    if run.recipe.digest == recipe.digest:
        return
    stored, given = flat(run.recipe.model_dump(mode="json")), flat(recipe.model_dump(mode="json"))
    key = next(key for key in {**stored, **given} if stored.get(key) != given.get(key))
    raise RecipeError(
        f"{run.folder} holds a run of another recipe: there {key} is {stored.get(key)}, here"
        f" {given.get(key)}. Nothing in it was touched. Choose another folder with --out."
    )


def run_elsewhere(folder: Path, recipe: Recipe) -> Run | None:
    """Returns the run in a folder if its custom images have been moved, else None.

    They were moved if its recipe differs from the given one in their path alone, or if they are no
    longer where images.csv says.
    """
    if not ((folder / "recipe.yaml").is_file() and (folder / "images.csv").is_file()):
        return None
    run = read_run(folder)
    data = run.recipe.data.model_copy(update={"name": recipe.data.name})
    if run.recipe.model_copy(update={"data": data}).digest != recipe.digest:
        return None
    is_same = run.recipe.data.name == recipe.data.name
    return None if is_same and run.images.files[0].path.is_file() else run


def find_images(run: Run, root: Path) -> None:
    """Updates the paths in images.csv to where the images are now.

    Raises:
        DataError: when the images there are not those of the run.
        StorageError: when images.csv cannot be written, or another process trains in the folder.
    """
    with locked_run(run.folder, run.recipe):
        images = run.images
        try:
            moved = relocated(images, root)
        except DataError as error:
            raise DataError(
                f"{error} To resume the run in {run.folder}, name the folder of its images with"
                " --data; to start a new run, name another folder with --out. Nothing was changed."
            ) from error
        if moved.files != images.files:
            with run.writing():
                write_file(run.images_path, write_images(moved))


def flat(values: Mapping[str, object]) -> dict[str, object]:
    """Returns a nested mapping as one level of dotted keys."""
    result: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            result |= {f"{key}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            result[key] = value
    return result
