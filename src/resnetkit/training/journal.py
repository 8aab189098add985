"""The event log of a run, as the main rank writes it during training."""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        sha256: digest of that much of the file.
    """

    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()


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

    def write(self, values: dict[str, Any]) -> None:
        """Appends a line."""
        line = json.dumps(finite(values), allow_nan=False).encode() + b"\n"
        self.digest.update(line)
        while line:  # the last bytes before a disk is full are written without complaint
            line = line[self.file.write(line) :]

    @property
    def end(self) -> MetricsEnd:
        """Returns where the file ends now."""
        return MetricsEnd(self.size, self.digest.hexdigest())

    def resume(self, end: MetricsEnd) -> None:
        """Removes what lies beyond an end, which a resumed run writes again.

        Raises:
            WeightsError: when the file is shorter than that, or holds something else.
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

    def open_session(self, session: Session, end: MetricsEnd) -> None:
        """Notes what this start runs on, and cuts the metrics back to where it resumes.

        Raises:
            WeightsError: when the metrics are not those that the checkpoint was saved with.
        """
        if self.writes:
            with self.run.writing():
                self.metrics.resume(end)
                sessions = [asdict(start) for start in [*self.earlier_sessions(), session]]
                write_file(self.run.environment_path, json.dumps(sessions, indent=1))
            self.observe(session)

    def earlier_sessions(self) -> list[Session]:
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
