"""Answers about images as they come: for people, as JSON, JSON lines or CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from time import perf_counter
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from resnetkit.cli.output import remark
from resnetkit.errors import DataError, UsageError
from resnetkit.untrusted import name_as_text, printable

__all__ = ["AnswerCounts", "Format", "Kind", "Record", "chosen_form", "print_records"]

Form = Literal["table", "lines", "csv", "json"]

Format = Annotated[
    Literal["table", "lines", "csv"],
    Parameter(help="table, the default; lines, a JSON object an image; or csv."),
]


@dataclass(frozen=True)
class Kind:
    """What records are about.

    Attributes:
        name: what the image is called.
        ranked: what was found for it is called.
        columns: of each thing found; a person is shown the last one, a number, and the one before.
    """

    name: str
    ranked: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """What was found for an image.

    Attributes:
        name: of the image; empty where it came on standard input.
        ranked: values of the columns, the best first.
        error: why nothing was found; empty where something was.
    """

    name: str
    ranked: Sequence[tuple[Any, ...]]
    error: str


@dataclass
class AnswerCounts:
    """How many images there were, good and bad ones, since when."""

    good: int = 0
    bad: int = 0
    start: float = field(default_factory=perf_counter)

    def watched(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields records, and tells a person at once of those with an error."""
        for record in records:
            self.count(record.error)
            yield record

    def count(self, error: str) -> None:
        """Counts an image, and tells a person of the error, if there is one."""
        if error:
            self.bad += 1
            remark(f"bad: {error}")
        else:
            self.good += 1

    def finish(self) -> int:
        """Says how fast it went, and returns the exit code: that of bad data if any was."""
        seconds = max(perf_counter() - self.start, 1e-9)
        bad = f", {self.bad:,} bad" if self.bad else ""
        rate = self.good / seconds
        remark(f"{self.good:,} image(s) in {seconds:.2f} s: {rate:,.1f} images/s{bad}")
        return DataError.exit_code if self.bad else 0


def chosen_form(format: Form, *, json: bool) -> Form:  # noqa: A002  # the name of the option
    """Returns how records are printed.

    Raises:
        UsageError: when two ways are asked for.
    """
    if json and format != "table":
        raise UsageError(f"--json and --format {format}: choose one of them.")
    return "json" if json else format


def print_records(records: Iterable[Record], kind: Kind, form: Form) -> int:
    """Prints records one by one as they come, says how fast, and returns the exit code."""
    counts = AnswerCounts()
    is_for_machines = form in ("csv", "json", "lines") and not sys.stdout.isatty()
    for text in TEXTS[form](counts.watched(records), kind):
        print(text if is_for_machines else printable(text, keep="\n"), flush=True)
    return counts.finish()


def as_table(records: Iterable[Record], kind: Kind) -> Iterator[str]:
    """Yields for each image its name and below it a line for each thing found, for people."""
    for record in records:
        if not record.error:
            found = (f"  {number:.4f}  {words}" for *_, words, number in record.ranked)
            yield "\n".join([called(record), *found])


def as_lines(records: Iterable[Record], kind: Kind) -> Iterator[str]:
    """Yields a JSON object an image."""
    for record in records:
        found = [dict(zip(kind.columns, values, strict=True)) for values in record.ranked]
        facts = {kind.name: called(record), kind.ranked: found, "error": record.error or None}
        yield json.dumps(facts, allow_nan=False)


def as_json(records: Iterable[Record], kind: Kind) -> Iterator[str]:
    """Yields one JSON list, a line an image."""
    before = "["
    for line in as_lines(records, kind):
        yield before + line
        before = ","
    yield "[]" if before == "[" else "]"


def as_csv(records: Iterable[Record], kind: Kind) -> Iterator[str]:
    """Yields a heading and a row for each thing found; an image with an error has one row."""
    yield row([kind.name, "rank", *kind.columns, "error"])
    for record in records:
        for rank, values in enumerate(record.ranked, start=1):
            yield row([called(record), rank, *values, ""])
        if record.error:
            yield row([called(record), *[""] * (1 + len(kind.columns)), record.error])


def row(cells: Sequence[object]) -> str:
    """Returns cells as a row of CSV, without the end of its line."""
    text = StringIO(newline="")
    csv.writer(text).writerow(cells)  # cells are quoted for what its line ends with, both signs
    return text.getvalue().removesuffix("\r\n")


def called(record: Record) -> str:
    """Returns the name of an image, as it stands on the command line."""
    return name_as_text(record.name) or "-"


TEXTS: dict[Form, Callable[[Iterable[Record], Kind], Iterator[str]]] = {
    "table": as_table,
    "lines": as_lines,
    "json": as_json,
    "csv": as_csv,
}
