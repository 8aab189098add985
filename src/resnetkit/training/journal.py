"""The event log of a run, written by the main rank during training."""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from resnetkit.errors import DataError, WeightsError
from resnetkit.storage import write_file
from resnetkit.training.events import (
    EpochEvent,
    Event,
    FinalEvent,
    IntervalEvent,
    Session,
    event_to_json,
    finite,
)
from resnetkit.training.run_folder import LARGEST_RECORD, Run
from resnetkit.untrusted import read_bounded

__all__ = ["EventLog", "Journal", "MetricsEnd"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricsEnd:
    """How much of metrics.jsonl belongs to a checkpoint.

    Attributes:
        size: in bytes.
        sha256: digest of these bytes.
    """

    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class EventLog:
    """A JSON lines file that grows by whole lines and can be truncated to an earlier end."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # opening a pipe would wait for its reader
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        self.path = path
        self.file = path.open("ab", buffering=0)  # no buffered bytes are lost when the disk is full
        self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        """Returns the length in bytes."""
        return os.fstat(self.file.fileno()).st_size

    def write(self, values: dict[str, object]) -> None:
        """Appends a line."""
        line = json.dumps(finite(values), allow_nan=False).encode() + b"\n"
        self.digest.update(line)
        while line:  # a disk that becomes full writes some bytes before it raises
            line = line[self.file.write(line) :]

    @property
    def end(self) -> MetricsEnd:
        """Returns where the file ends now."""
        return MetricsEnd(self.size, self.digest.hexdigest())

    def resume(self, end: MetricsEnd) -> None:
        """Truncates the file at an end; a resumed run writes the rest again.

        Raises:
            WeightsError: when the file is shorter, or its content was changed.
        """
        digest, size = prefix_digest(self.path, end.size), end.size
        if self.size < size or digest.hexdigest() != end.sha256:
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
        """Removes a last line that a killed process has not finished."""
        self.file.truncate(read_bounded(self.path, LARGEST_RECORD).rfind(b"\n") + 1)

    def sync(self) -> None:
        """Waits until everything is on the disk."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def prefix_digest(path: Path, size: int) -> "hashlib._Hash":
    """Returns the running SHA-256 of the first bytes of a file."""
    digest, remaining = hashlib.sha256(), size
    with path.open("rb") as file:
        while remaining > 0 and (chunk := file.read(min(remaining, 2**20))):
            digest.update(chunk)
            remaining -= len(chunk)
    return digest


class Journal:
    """The writer of a run's events; only the main rank writes.

    Attributes:
        observe: called with every event.
    """

    def __init__(self, run: Run, observe: Callable[[Event], None], *, writes: bool) -> None:
        self.run, self.observe, self.writes = run, observe, writes
        if writes:
            with run.writing(), ExitStack() as opened:
                self.metrics = opened.enter_context(closing(EventLog(run.metrics_path)))
                self.timing = opened.enter_context(closing(EventLog(run.timing_path)))
                self.timing.cut_unfinished_line()
                opened.pop_all()  # they stay open

    def open_session(self, session: Session, end: MetricsEnd) -> None:
        """Records the session, and truncates the metrics to where the training resumes.

        Raises:
            WeightsError: when the metrics are not those of the checkpoint.
        """
        if self.writes:
            with self.run.writing():
                self.metrics.resume(end)
                sessions = [asdict(start) for start in [*self.earlier_sessions(), session]]
                write_file(self.run.environment_path, json.dumps(sessions, indent=1))
                self.run.failure_path.unlink(missing_ok=True)  # of an earlier session
            self.observe(session)

    def earlier_sessions(self) -> list[Session]:
        """Returns the earlier sessions; a corrupt file is renamed.

        No result depends on them.
        """
        try:
            return self.run.sessions
        except DataError as error:
            path = self.run.environment_path
            aside = path.with_name(f"{path.name}.corrupt")
            path.replace(aside)
            logger.warning("%s It was renamed to %s.", str(error).partition(". ")[0] + ".", aside)
            return []

    def write(self, event: IntervalEvent | EpochEvent | FinalEvent) -> None:
        """Writes an event, and the timing of an interval to a file of its own."""
        if self.writes:
            with self.run.writing():
                self.metrics.write(event_to_json(event))
                if isinstance(event, IntervalEvent) and event.timing is not None:
                    self.timing.write(asdict(event.timing))
            self.observe(event)

    def sync(self) -> MetricsEnd:
        """Waits until the metrics are on the disk; returns where they end."""
        if not self.writes:
            return MetricsEnd()
        with self.run.writing():
            self.metrics.sync()
        return self.metrics.end

    def close(self) -> None:
        if self.writes:
            self.metrics.close()
            self.timing.close()
