"""Results for images as they come: as a table, JSON, JSON lines or CSV."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from resnetkit.cli.output import remark
from resnetkit.errors import DataError, UsageError
from resnetkit.untrusted import name_as_text, printable

if TYPE_CHECKING:
    from resnetkit.data.images.check import BadImage

__all__ = ["AnswerCounts", "Format", "Kind", "Record", "chosen_form", "print_records"]

Form = Literal["table", "lines", "csv", "json"]

Format = Annotated[
    Literal["table", "lines", "csv"],
    Parameter(help="table, the default; lines, a JSON object an image; or csv."),
]


@dataclass(frozen=True)
class Kind:
    """Names of the fields of records.

    Attributes:
        name: of the field that holds the path of the image.
        ranked: of the field that holds the results.
        columns: of each result; a table shows the last one, a number, and the one before it.
    """

    name: str
    ranked: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """The results for an image.

    Attributes:
        name: of the image; None where it came on standard input.
        ranked: values of the columns, the best first.
    """

    name: str | None
    ranked: Sequence[tuple[Any, ...]]


@dataclass
class AnswerCounts:
    """Counts images with and without results, and the time since the first."""

    good: int = 0
    bad: int = 0
    start: float = field(default_factory=perf_counter)

    def watched(self, records: "Iterable[Record | BadImage]") -> "Iterator[Record | BadImage]":
        """Yields records, and reports bad images at once."""
        for record in records:
            self.count(record)
            yield record

    def count(self, output: object) -> None:
        """Counts an image, and reports it if it is bad."""
        from resnetkit.data.images.check import BadImage

        if isinstance(output, BadImage):
            self.bad += 1
            remark(f"bad: {output.reason}")
        else:
            self.good += 1

    def finish(self) -> int:
        """Reports the rate, and returns the exit code: that of bad data if there was any."""
        seconds = max(perf_counter() - self.start, 1e-9)
        bad = f", {self.bad:,} bad" if self.bad else ""
        rate = self.good / seconds
        remark(f"{self.good:,} image(s) in {seconds:.2f} s: {rate:,.1f} images/s{bad}")
        return DataError.exit_code if self.bad else 0


def chosen_form(format: Form, *, json: bool) -> Form:  # noqa: A002  # the name of the option
    """Returns the form in which records are printed.

    Raises:
        UsageError: when two forms are requested.
    """
    if json and format != "table":
        raise UsageError(f"--json and --format {format}: choose one of them.")
    return "json" if json else format


def print_records(records: "Iterable[Record | BadImage]", kind: Kind, form: Form) -> int:
    """Prints records one by one as they come, reports the rate, and returns the exit code."""
    counts = AnswerCounts()
    is_for_machines = form in ("csv", "json", "lines") and not sys.stdout.isatty()
    for text in TEXTS[form](counts.watched(records), kind):
        print(text if is_for_machines else printable(text, keep="\n"), flush=True)
    return counts.finish()


def as_table(records: "Iterable[Record | BadImage]", kind: Kind) -> Iterator[str]:
    """Yields the name of each image, followed by a line for each result."""
    for record in records:
        if isinstance(record, Record):
            results = (f"  {number:.4f}  {name}" for *_, name, number in record.ranked)
            yield "\n".join([name_of(record), *results])


def as_lines(records: "Iterable[Record | BadImage]", kind: Kind) -> Iterator[str]:
    """Yields a JSON object for each image."""
    for record in records:
        ranked, error = (record.ranked, None) if isinstance(record, Record) else ((), record.reason)
        results = [dict(zip(kind.columns, values, strict=True)) for values in ranked]
        facts = {kind.name: name_of(record), kind.ranked: results, "error": error}
        yield json.dumps(facts, allow_nan=False)


def as_json(records: "Iterable[Record | BadImage]", kind: Kind) -> Iterator[str]:
    """Yields one JSON list, a line for each image."""
    before = "["
    for line in as_lines(records, kind):
        yield before + line
        before = ","
    yield "[]" if before == "[" else "]"


def as_csv(records: "Iterable[Record | BadImage]", kind: Kind) -> Iterator[str]:
    """Yields a heading and a row for each result; a bad image has one row."""
    yield row([kind.name, "rank", *kind.columns, "error"])
    for record in records:
        if isinstance(record, Record):
            for rank, values in enumerate(record.ranked, start=1):
                yield row([name_of(record), rank, *values, ""])
        else:
            yield row([name_of(record), *[""] * (1 + len(kind.columns)), record.reason])


def row(cells: Sequence[object]) -> str:
    """Returns cells as a row of CSV, without the end of its line."""
    text = StringIO(newline="")
    csv.writer(text).writerow(cells)  # cells are quoted for what its line ends with, both signs
    return text.getvalue().removesuffix("\r\n")


def name_of(record: "Record | BadImage") -> str:
    """Returns the name of an image as on the command line; a dash for standard input."""
    name = record.name if isinstance(record, Record) else record.path
    return "-" if name is None else name_as_text(str(name))


TEXTS: dict[Form, Callable[["Iterable[Record | BadImage]", Kind], Iterator[str]]] = {
    "table": as_table,
    "lines": as_lines,
    "json": as_json,
    "csv": as_csv,
}
