"""The run folder: a training that explains itself and can be gone on with.

recipe.yaml        the resolved recipe
images.csv         of custom images: paths, labels and parts
environment.json   for each start: versions, hardware, precision and why
metrics.jsonl      one event a line; the same bytes for the same recipe, however interrupted
timing.jsonl       how fast it went, which is never the same twice
checkpoints/       what a resumed run starts from
failure.json       the step and samples at which training diverged, if it did
probes/            what studies have measured in the network
model/             weights, configuration and card of the finished network
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from resnetkit.data.images.listing import ImageList, relocated
from resnetkit.data.images.table import read_list, write_images
from resnetkit.errors import DataError, RecipeError, StorageError, UsageError, WeightsError
from resnetkit.storage import TEMPORARY_PREFIX, remove_leftovers, storage_errors, write_file
from resnetkit.training.checkpoint import checkpoint_steps
from resnetkit.training.recipe import Recipe, checked_recipe, read_values
from resnetkit.untrusted import open_regular, parse_json, read_bounded

__all__ = [
    "MODEL_FILES",
    "Event",
    "Journal",
    "Run",
    "find_images",
    "find_runs",
    "locked_run",
    "read_run",
    "run_elsewhere",
]

Event = dict[str, Any]
logger = logging.getLogger(__name__)

LARGEST_RECORD = 2**30  # bytes; the metrics of the longest recipe have less than a hundredth
MODEL_FILES = ("config.json", "model.safetensors", "preprocessing.safetensors")


@dataclass(frozen=True)
class Run:
    """A run folder, for reading.

    Attributes:
        folder: where it is.
        recipe: what is or was trained.
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
        """Returns the custom images of the run, with their parts, as it has listed them.

        They need not be there any longer.

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

    def events(self, kind: str) -> list[Event]:
        """Returns the events of one kind, in order: interval, epoch or final.

        interval: step, lr and gradient_norm of its last step, and loss and error, as trained,
            since the interval before.
        epoch: epoch (from 1), step, train_loss and train_error as trained, and where the recipe
            asks for it <split>_loss and <split>_error.
        final: step, whether training ended early (reached), best_epoch where patience chose it, and
            for each split loss, error, top5_error and count; the test part's
            confusion matrix.
        Losses are in nats, errors in percent.
        """
        return [event for event in read_lines(self.metrics_path) if event.get("event") == kind]

    @property
    def last_step(self) -> int:
        """Returns the step of the last interval; 0 before the first. It reads only a file's end."""
        if not self.timing_path.exists():
            return 0
        with open_regular(self.timing_path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1024))
            steps = re.findall(rb'"step": (\d{1,18})[^\n]*\n', file.read(1024))
        return int(steps[-1]) if steps else 0

    def writing(self) -> AbstractContextManager[None]:
        """Returns the context in which a refusal to write says what is safe and how to go on."""
        return storage_errors(self.folder, self.how_to_go_on)

    def how_to_go_on(self) -> str:
        """Returns what is safe when writing fails."""
        steps = checkpoint_steps(self.checkpoints)
        kept = f"The checkpoint of step {steps[-1]} is kept." if steps else "Nothing was saved yet."
        return (
            f"{kept} Make room or choose another folder with --out; the same command then goes on."
        )

    @property
    def fraction_done(self) -> float:
        """Returns the share of all steps that is done, from 0 to 1; 0 where it cannot be read."""
        try:
            if self.final is not None:
                return 1.0
            total = self.sessions[-1]["total_steps"]
            return min(1.0, self.last_step / total)
        except (DataError, IndexError, KeyError, TypeError, ZeroDivisionError):
            return 0.0

    @property
    def final(self) -> Event | None:
        """Returns the last event of a finished run whose network is there, else None."""
        if not all((self.model / name).is_file() for name in MODEL_FILES):
            return None  # exported before the last event is written
        finals = self.events("final")
        if not finals:
            return None
        if not {"step", "train", "test"} <= set(finals[-1]):
            raise damaged(self.metrics_path, "its last event lacks results")
        return finals[-1]

    @property
    def diverged(self) -> bool:
        """Returns whether training ended because loss or gradient was no number."""
        return self.final is None and self.failure_path.exists()

    @property
    def failure_path(self) -> Path:
        return self.folder / "failure.json"

    def probe_path(self, name: str) -> Path:
        """Returns where a measurement of the finished network is kept."""
        return self.folder / "probes" / f"{name}.json"

    @property
    def environment_path(self) -> Path:
        return self.folder / "environment.json"

    @property
    def sessions(self) -> list[Event]:
        """Returns the environment of each start, the first one first."""
        path = self.environment_path
        if not path.exists():
            return []
        try:
            sessions = parse_json(read_bounded(path, LARGEST_RECORD))
            if not isinstance(sessions, list) or not all(isinstance(s, dict) for s in sessions):
                raise ValueError("it is no list of sessions")
        except (OSError, ValueError) as error:
            raise damaged(path, reason(error)) from error
        return sessions

    @property
    def seconds(self) -> float:
        """Returns the seconds spent training, over all sessions."""
        return float(sum(line.get("seconds", 0) for line in read_lines(self.timing_path)))


def finite(value: Any) -> Any:
    """Returns an event whose numbers JSON can write: null stands for what is not finite."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measured(value: Any) -> Any:
    """Returns an event as it was before `finite`: null is read as a number that is none."""
    if isinstance(value, dict):
        return {key: measured(inner) for key, inner in value.items()}
    return math.nan if value is None else value


def read_lines(path: Path) -> list[Event]:
    """Returns the whole lines of a JSON lines file; a line that is being written is left out."""
    if not path.exists():
        return []
    try:
        whole, _, _ = read_bounded(path, LARGEST_RECORD).rpartition(b"\n")
    except OSError as error:
        raise damaged(path, reason(error)) from error
    return [parse_line(path, number, line) for number, line in enumerate(whole.splitlines(), 1)]


def parse_line(path: Path, number: int, line: bytes) -> Event:
    """Returns one line of a JSON lines file.

    Raises:
        DataError: when it is not a JSON object.
    """
    try:
        event = parse_json(line)
        if not isinstance(event, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise damaged(path, f"line {number} cannot be read ({error})") from error
    return {key: measured(value) for key, value in event.items()}


def reason(error: Exception) -> str:
    """Returns in words why a file cannot be read."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def damaged(path: Path, words: str) -> DataError:
    """Returns the error for a file of a run that is not what was written."""
    return DataError(f"{path} is damaged: {words}. Put the file back, or train the recipe again.")


class EventLog:
    """A JSON lines file that grows by whole lines and can be cut back to an earlier length."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its reader
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        self.path = path
        self.file = path.open("ab", buffering=0)  # nothing is left behind when the disk is full
        self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        """Returns the length in bytes."""
        return os.fstat(self.file.fileno()).st_size

    def write(self, event: Event) -> None:
        """Adds a line."""
        line = json.dumps(finite(event), allow_nan=False).encode() + b"\n"
        self.digest.update(line)
        while line:  # the last bytes before a disk is full are written without complaint
            line = line[self.file.write(line) :]

    @property
    def sha256(self) -> str:
        """Returns the digest of the content since `resume`, which is all of it."""
        return self.digest.hexdigest()

    def resume(self, size: int, sha256: str) -> None:
        """Removes what lies beyond a length, which a resumed run writes again.

        Args:
            size: of the content that is kept, bytes.
            sha256: of that content.

        Raises:
            WeightsError: when the file is shorter than that, or holds something else.
        """
        digest = prefix_digest(self.path, size)
        if self.size < size or digest.hexdigest() != sha256:
            problem = (
                f"is shorter than when the checkpoint was saved: {self.size} bytes, expected {size}"
                if self.size < size
                else "is not what it was when the checkpoint was saved: its lines were changed"
            )
            raise WeightsError(
                f"{self.path} {problem}. Nothing was changed. Put the file back, or start again in"
                " another folder."
            )
        self.file.truncate(size)
        self.digest = digest

    def cut_unfinished_line(self) -> None:
        """Removes what a killed process had not written to its end."""
        self.file.truncate(read_bounded(self.path, LARGEST_RECORD).rfind(b"\n") + 1)

    def sync(self) -> None:
        """Waits until everything is on the disk."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def prefix_digest(path: Path, size: int) -> "hashlib._Hash":
    """Returns the running SHA-256 of the first bytes of a file."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, 2**20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest


def read_run(folder: Path) -> Run:
    """Opens a run folder for reading.

    Raises:
        UsageError: when the folder holds no run.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UsageError(
            f"{folder} is not a run folder: it has no recipe.yaml. 'resnet runs' lists the runs"
            " here."
        )
    return Run(folder, checked_recipe(read_values(str(folder / "recipe.yaml"))))


def find_runs(root: Path) -> list[Run]:
    """Returns the runs below a folder, in the order of their paths.

    A recipe that this version cannot read is left out, with a warning in the log.
    """
    runs = []
    for path in sorted(root.rglob("recipe.yaml")):
        try:
            runs.append(read_run(path.parent))
        except RecipeError as error:
            logger.warning("%s is left out: %s", path.parent, error)
    return runs


@contextmanager
def locked_run(folder: Path, recipe: Recipe) -> Iterator[Run]:
    """Makes or reopens the folder of a recipe, for one process at a time.

    Raises:
        StorageError: when the folder cannot be written, or another process is training in it.
        RecipeError: when the folder belongs to another recipe.
        UsageError: when the folder is in use for something else.
    """
    advice = "Choose another folder with --out."
    with storage_errors(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        found = [path.name for path in folder.iterdir()]
    foreign = [name for name in found if not name.startswith((LOCK, TEMPORARY_PREFIX))]
    if foreign and "recipe.yaml" not in found:
        raise UsageError(
            f"{folder} is not empty and holds no run; nothing in it was touched. {advice}"
        )
    lock = filelock.FileLock(folder / LOCK)
    with storage_errors(folder, advice):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StorageError(
                f"another process is training in {folder}. Wait for it, or choose another folder"
                " with --out."
            ) from None
    try:
        with storage_errors(folder, advice):  # what killed processes have left: nobody else writes
            for place in (folder, folder / "checkpoints", folder / "probes"):
                remove_leftovers(place)
        if (folder / "recipe.yaml").exists():
            refuse_other_recipe(read_run(folder), recipe)
        else:
            with storage_errors(folder, advice):
                write_file(folder / "recipe.yaml", recipe.to_yaml())
        yield Run(folder, recipe)
    finally:
        lock.release()


LOCK = ".lock"


def refuse_other_recipe(run: Run, recipe: Recipe) -> None:
    """Raises RecipeError, naming the first difference, unless the run is of this recipe."""
    if run.recipe.digest == recipe.digest:
        return
    there, asked = flat(run.recipe.model_dump(mode="json")), flat(recipe.model_dump(mode="json"))
    key = next(key for key in {**there, **asked} if there.get(key) != asked.get(key))
    raise RecipeError(
        f"{run.folder} holds a run of another recipe: there {key} is {there.get(key)}, here"
        f" {asked.get(key)}. Nothing in it was touched. Choose another folder with --out."
    )


def run_elsewhere(folder: Path, recipe: Recipe) -> Run | None:
    """Returns the run in a folder when its images are to be found elsewhere than its list says.

    Its recipe says so, or the one that is asked for, which differs in the path of custom images
    alone.
    """
    if not ((folder / "recipe.yaml").is_file() and (folder / "images.csv").is_file()):
        return None
    run = read_run(folder)
    here = run.recipe.data.model_copy(update={"name": recipe.data.name})
    if run.recipe.model_copy(update={"data": here}).digest != recipe.digest:
        return None
    is_same = run.recipe.data.name == recipe.data.name
    return None if is_same and run.images.files[0].path.is_file() else run


def find_images(run: Run, root: Path) -> None:
    """Changes the list of a run's images to where they are now.

    Raises:
        DataError: when the images there are not those of the run.
        StorageError: when the list cannot be written, or another process is training in the folder.
    """
    with locked_run(run.folder, run.recipe):
        images = run.images
        try:
            now = relocated(images, root)
        except DataError as error:
            raise DataError(
                f"{error} The run in {run.folder} resumes where they are, named with --data, or"
                " another folder, named with --out, begins a new one. Nothing was changed."
            ) from error
        if now.files != images.files:
            with run.writing():
                write_file(run.images_path, write_images(now))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping as one level of dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else None
        result.update(inner if inner is not None else {prefix + key: value})
    return result


class Journal:
    """What the main rank writes down while it trains; the other ranks write nothing.

    Attributes:
        observe: is given every event.
    """

    def __init__(self, run: Run, observe: Callable[[Event], None], *, writes: bool) -> None:
        self.run, self.observe, self.writes = run, observe, writes
        if writes:
            with run.writing(), ExitStack() as opened:
                self.metrics = opened.enter_context(closing(EventLog(run.metrics_path)))
                self.timing = opened.enter_context(closing(EventLog(run.timing_path)))
                self.timing.cut_unfinished_line()
                opened.pop_all()  # they stay open

    def open_session(self, session: Event, metrics_bytes: int, metrics_sha256: str) -> None:
        """Notes what this start runs on, and cuts the metrics back to where it resumes.

        Raises:
            WeightsError: when the metrics are not those that the checkpoint was saved with.
        """
        if self.writes:
            with self.run.writing():
                self.metrics.resume(metrics_bytes, metrics_sha256)
                sessions = [*self.earlier_sessions(), session]
                write_file(self.run.environment_path, json.dumps(sessions, indent=1))
            self.observe({"event": "session", **session})

    def earlier_sessions(self) -> list[Event]:
        """Returns the environments of earlier starts; a damaged file is set aside.

        Nothing that is computed depends on them.
        """
        try:
            return self.run.sessions
        except DataError as error:
            path = self.run.environment_path
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            logger.warning("%s It was set aside as %s.", str(error).partition(". ")[0] + ".", aside)
            return []

    def write(self, event: Event, timing: Event | None = None) -> None:
        """Writes an event and, apart from it, how long it took; the observer sees both."""
        if self.writes:
            with self.run.writing():
                self.metrics.write(event)
                if timing is not None:
                    self.timing.write(timing)
            self.observe({**event, **(timing or {})})

    def sync(self) -> tuple[int, str]:
        """Waits until the metrics are on the disk; returns their length in bytes and SHA-256."""
        if not self.writes:
            return 0, ""
        with self.run.writing():
            self.metrics.sync()
        return self.metrics.size, self.metrics.sha256

    def close(self) -> None:
        if self.writes:
            self.metrics.close()
            self.timing.close()
