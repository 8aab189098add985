"""Reads the events of a run as they are written, each once, through every resume."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from resnetkit.errors import DataError
from resnetkit.storage import write_file
from resnetkit.training.events import EpochEvent, FinalEvent, IntervalEvent, event_from_json
from resnetkit.training.run_folder import LARGEST_RECORD
from resnetkit.untrusted import open_regular, parse_json, read_record

__all__ = ["Position", "Scalars", "read_position", "scalars_after", "write_position"]

LARGEST_POSITION = 2**16  # bytes
PIECE = 2**20  # bytes that are read at a time


@dataclass(frozen=True)
class Position:
    """How much of metrics.jsonl a tracker has.

    Attributes:
        size: in bytes, whole lines.
        sha256: digest of these bytes.
        step: of the last event in them.
        run_id: by which the tracker knows the run; empty where it needs none.
    """

    size: int = 0
    sha256: str = hashlib.sha256().hexdigest()
    step: int = 0
    run_id: str = ""


@dataclass(frozen=True)
class Scalars:
    """The numbers of one event.

    Attributes:
        step: steps done.
        values: by name, such as interval/loss or validation/error.
        ends_at: the position after this event.
        is_final: whether the run is finished.
    """

    step: int
    values: dict[str, float]
    ends_at: Position
    is_final: bool


def scalars_after(metrics: Path, position: Position) -> Iterator[Scalars]:
    """Yields the numbers of the events after a position, up to the last whole line.

    A resumed training cuts the file back to its checkpoint and writes the same lines again. A file
    that is shorter than the position is therefore no error: nothing is yielded until it is longer.

    Args:
        metrics: path of metrics.jsonl; nothing is yielded while it does not exist.
        position: where to begin.

    Raises:
        DataError: when what was read before has changed, or a line is corrupt.
    """
    if not metrics.exists():
        return
    with open_regular(metrics) as file:
        digest, remaining = hashlib.sha256(), position.size
        while remaining and (piece := file.read(min(remaining, PIECE))):
            digest.update(piece)
            remaining -= len(piece)
        if remaining:
            return
        if digest.hexdigest() != position.sha256:
            raise DataError(
                f"{metrics} is not what it was when it was tracked: its first {position.size:,}"
                " bytes have changed, as when a run is resumed on another kind of machine. Track"
                " it again with another --out."
            )
        size = position.size
        while (line := file.readline(LARGEST_RECORD)).endswith(b"\n"):
            digest.update(line)
            size += len(line)
            try:
                event = event_from_json(parse_json(line))
            except ValueError as error:
                raise DataError(f"{metrics} is corrupt at byte {size:,}: {error}.") from error
            yield Scalars(
                step=event.step,
                values=values_of(event),
                ends_at=Position(size, digest.copy().hexdigest(), event.step, position.run_id),
                is_final=isinstance(event, FinalEvent),
            )


def values_of(event: IntervalEvent | EpochEvent | FinalEvent) -> dict[str, float]:
    """Returns the numbers of an event by name; losses in nats, errors in percent."""
    if isinstance(event, IntervalEvent):
        return {
            "interval/loss": event.loss,
            "interval/error": event.error,
            "interval/lr": event.lr,
            "interval/gradient_norm": event.gradient_norm,
        }
    if isinstance(event, EpochEvent):
        values = {
            "train/loss": event.train_loss,
            "train/error": event.train_error,
            "validation/loss": event.validation_loss,
            "validation/error": event.validation_error,
            "test/loss": event.test_loss,
            "test/error": event.test_error,
        }
        return {name: value for name, value in values.items() if value is not None}
    return {
        f"final/{split}_{name}": value
        for split, score in event.scores.items()
        for name, value in (("loss", score.loss), ("error", score.error))
    }


def read_position(path: Path) -> Position:
    """Returns a saved position; the beginning where there is none.

    Raises:
        DataError: when the file is corrupt.
    """
    if not path.exists():
        return Position()
    return read_record(
        path,
        Position,
        LARGEST_POSITION,
        advice="What was tracked is not known: track the run again with another --out.",
    )


def write_position(path: Path, position: Position) -> None:
    """Writes a position atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, TypeAdapter(Position).dump_json(position))
