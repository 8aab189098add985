"""How commands print: data to stdout, progress bars and remarks to stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from resnetkit.untrusted import printable

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "Bar",
    "StdoutConsole",
    "bar",
    "print_json",
    "print_table",
    "remark",
    "remark_on_data",
    "say",
]


def print_json(value: object) -> None:
    """Prints a value as JSON; dataclasses are printed as objects."""
    print(json.dumps(value, indent=2, allow_nan=False, default=fields_of))


def fields_of(value: Any) -> dict[str, object]:
    """Returns the fields of a dataclass, which may hold others."""
    return asdict(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: str) -> None:
    """Prints a table to a terminal, or tab-separated lines where stdout is not a terminal.

    Args:
        columns: headings.
        rows: one cell for each column.
        numbers: one letter for each column: `r` for numbers, aligned to the right, else `l`.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    columns = [printable(column) for column in columns]
    if not sys.stdout.isatty():
        for row in (columns, *cells):
            print("\t".join(row))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = StdoutConsole(highlight=False)
    for gap in (2, 1):
        widths = column_widths([columns, *cells], numbers, console.width, gap)
        total = sum(widths) + gap * (len(widths) - 1)
        if total <= console.width:
            break
    console.width = max(console.width, total)  # where even that is too wide, the terminal wraps
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False)
    for index, (column, kind) in enumerate(zip(columns, numbers, strict=True)):
        align: Literal["right", "left"] = "right" if kind == "r" else "left"
        table.add_column(Text(column), justify=align, width=widths[index])
    for row in cells:
        table.add_row(*map(Text, row))
    console.print("", table, "", sep="\n")


def column_widths(
    rows: Sequence[Sequence[str]], numbers: str, available: int, gap: int
) -> list[int]:
    """Returns the width of each column, so that texts wrap but no name, number, or word is cut.

    Together they may be wider than what is available.

    Args:
        rows: the cells, headings first; names are in the first column.
        numbers: as in `print_table`.
        available: cells of the terminal's width.
        gap: cells between two columns.
    """
    from rich.cells import cell_len

    whole, least = [], []
    for index, (heading, *texts) in enumerate(zip(*rows, strict=True)):
        wraps = index > 0 and numbers[index] != "r"
        parts = [longest_word(heading), *(map(longest_word, texts) if wraps else texts)]
        whole.append(max(map(cell_len, [heading, *texts])))
        least.append(max(map(cell_len, parts)))
    free = max(0, available - sum(least) - gap * (len(least) - 1))
    widths = []
    for needed, wished in zip(least, whole, strict=True):
        widths.append(min(wished, needed + free))
        free -= widths[-1] - needed
    return widths


def longest_word(text: str) -> str:
    """Returns the longest word of a text."""
    return max(text.split(), key=len, default="")


def say(text: object, *, end: str = "\n") -> None:
    """Prints a result; names that come from files cannot control the terminal."""
    print(printable(str(text), keep="\n\t"), end=end)


def remark(text: str) -> None:
    """Prints a message to stderr."""
    print(printable(text, keep="\n"), file=sys.stderr)


class StdoutConsole(Console):
    """The console that tables and the help are written to."""

    def on_broken_pipe(self) -> None:
        """Lets the command handle a reader that has left."""
        raise BrokenPipeError


def remark_on_data(name: str) -> None:
    """Reports which is used when a data set and a file or folder here have the same name."""
    from resnetkit.data.datasets import other_meaning

    if meaning := other_meaning(name):
        remark(meaning)


class Bar:
    """A progress bar on a terminal; elsewhere it is silent."""

    def __init__(self, progress: "Progress | None", description: str, total: float) -> None:
        self.progress = progress
        self.task = progress.add_task(description, total=total, detail="") if progress else None

    def update(self, completed: float, detail: str | None = None) -> None:
        """Shows the fraction done and a short text."""
        if self.progress is not None and self.task is not None:
            text = printable(detail or "")
            self.progress.update(self.task, completed=completed, detail=text)

    @property
    def is_shown(self) -> bool:
        return self.progress is not None


@contextmanager
def bar(description: str, total: float = 1.0, *, hidden: bool = False) -> Iterator[Bar]:
    """Shows a progress bar with the time left and a short text while the block runs."""
    if hidden or not sys.stderr.isatty():
        yield Bar(None, description, total)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bar(progress, printable(description), total)
