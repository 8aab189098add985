"""Tables of custom images: .csv and JSON lines with a path, a label and perhaps a split."""

import codecs
import csv
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from resnetkit.data.images.decode import IMAGE_SUFFIXES
from resnetkit.data.images.labels import clean_label
from resnetkit.data.images.listing import ImageFile, ImageList
from resnetkit.data.splits import split_named
from resnetkit.errors import DataError
from resnetkit.untrusted import parse_json, path_from_text, read_bounded, recognized_mistake

__all__ = ["encoding_of", "read_list", "read_table", "write_images"]

COLUMNS = ("path", "label", "split")
WRITTEN = ("path", "name", "digest", "label", "split")
NEEDED = {"path", "label"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
TABLES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
LINE_ENDS = re.compile(r"\r\n|\r|\n")
EMPTY_LINES = re.compile(r"(?:[ \t,;|]*(?:\r\n|\r|\n))*")
TOLD = re.compile(r"\"?sep=([,;\t|])\"?(?:\r\n|\r|\n)", re.IGNORECASE)
LARGEST_TABLE = 2**30  # bytes
LONGEST_NAME = 200  # letters of a path in a message
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # which begins as UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, and what reads the text that begins with each."""

Row = dict[str, Any]


def read_table(path: Path) -> ImageList:
    """Lists the images that a table names.

    Raises:
        DataError: when it is not of a known form; the message names the line.
    """
    files: dict[str, ImageFile] = {}
    others: dict[str, set[object]] = defaultdict(set)
    for number, row in rows_of(path):
        for column in row.keys() - set(COLUMNS):
            others[column].add(row[column] if isinstance(row[column], str) else None)
        file = checked_file(path, number, row)
        if (key := str(file.path)) in files:
            raise DataError(f"{path}, line {number}: {shortened(key)} was named before. Keep one.")
        files[key] = file
    if not any(file.split for file in files.values()):
        refuse_other_splits(path, others)
    return ImageList(path, tuple(files.values()))


def refuse_other_splits(path: Path, columns: dict[str, set[object]]) -> None:
    """Raises DataError for a column that holds splits and is called otherwise.

    Args:
        path: of the table.
        columns: those that are not read, each with its values; None for one that is no text.
    """
    for column, values in columns.items():
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) == len(values) > 1 and all(map(split_named, texts)):
            raise DataError(
                f"{path}: the column {column} holds splits ({', '.join(sorted(texts))}), but is not"
                " called split. Rename it to split, or remove it and other splits are drawn."
            )


def read_list(path: Path, root: Path) -> ImageList:
    """Reads a list that `write_images` has written; its files need not be there any longer.

    Args:
        path: of the list.
        root: where the images lay when it was written.

    Raises:
        DataError: when it cannot be read.
    """
    return ImageList(root, tuple(named_file(path, number, row) for number, row in rows_of(path)))


def write_images(images: ImageList) -> bytes:
    """Returns the list as the content of a .csv file that `read_images` reads back."""
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(WRITTEN)
    for file in images.files:
        row = (os.path.abspath(file.path), file.name, file.digest, file.label, file.split or "")
        table.writerow(row)
    return text.getvalue().encode(errors="surrogateescape")


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a table, each with the number of the line where it begins.

    Raises:
        DataError: when it cannot be read, or is not of a known form.
    """
    kind = TABLES.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path} is not a folder: expected one, or a .csv or .jsonl file.")
    text = text_of(path)
    rows = csv_rows(path, text) if kind == "csv" else json_rows(path, text)
    return ((number, with_paths(row)) for number, row in rows)


def with_paths(row: Row) -> Row:
    """Returns a row whose paths are as Python opens them, whatever the locale."""
    return {
        key: path_from_text(value) if key in ("path", "name") and isinstance(value, str) else value
        for key, value in row.items()
    }


def text_of(table: Path) -> str:
    """Returns the text of a table, in which a path may hold what is no UTF-8.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        content = read_bounded(table, LARGEST_TABLE)
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror or error}.") from error
    encoding = encoding_of(content)
    try:
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        text = content.decode(encoding, errors=errors)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table} is not {encoding.upper()}, as it begins ({error.reason}). Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(f"{table} is no text: it holds zero bytes. Save it as UTF-8.")
    if mistake := recognized_mistake(content):
        raise DataError(f"{table}: {mistake}.")
    return text


def encoding_of(beginning: bytes) -> str:
    """Returns the encoding that a text has by its first bytes; UTF-8 where they do not say.

    UTF-16, which Windows writes, may lack the mark: then every other byte of ASCII is zero.
    """
    for mark, encoding in MARKS.items():
        if beginning.startswith(mark):
            return encoding
    pairs = beginning[:64]
    if len(pairs) > 3 and not any(pairs[1::2]) and all(pairs[0::2]):
        return "utf-16-le"
    if len(pairs) > 3 and not any(pairs[0::2]) and all(pairs[1::2]):
        return "utf-16-be"
    return "utf-8"


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a table with a heading, each with the number of its first line."""
    separator, beginning = separator_of(text)
    before = len(LINE_ENDS.findall(beginning))
    reader = csv.reader(
        StringIO(text[len(beginning) :], newline=""),
        delimiter=separator,
        skipinitialspace=True,
        strict=True,
    )
    number = before + 1
    try:
        columns = heading(path, number, next(reader, []))
        number = before + reader.line_num + 1
        while (values := next(reader, None)) is not None:
            if any(map(str.strip, values[len(columns) :])):
                raise DataError(
                    f"{path}, line {number}: {len(values)} values, but the heading names"
                    f" {len(columns)} columns. A path or label with {SEPARATORS[separator]} in it"
                    ' needs quotes: "a, b".'
                )
            if any(values):
                yield number, dict(zip(columns, values, strict=False))
            number = before + reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: {csv_problem(error)}.") from error


def csv_problem(error: csv.Error) -> str:
    """Returns in words what is wrong with a row."""
    words = str(error)
    if "unexpected end" in words or "field limit" in words:
        return "a quote is opened and never closed: remove it, or double it inside of quotes"
    if "expected after" in words:
        return "a quote is closed within a value, or opened here and never closed"
    return words


def separator_of(text: str) -> tuple[str, str]:
    """Returns what separates the columns of a table, and what stands before its heading.

    That are empty lines, and a line such as sep=; which tells Excel. Without it the separator is
    the one that makes the heading one.
    """
    empty = EMPTY_LINES.match(text)
    beginning = empty[0] if empty else ""
    told = TOLD.match(text, len(beginning))
    if told:
        return told[1], beginning + told[0]
    first = re.compile(r"[^\r\n]*").match(text, len(beginning))
    for separator in SEPARATORS:
        if first and {plain(name) for name in first[0].split(separator)} >= NEEDED:
            return separator, beginning
    return ",", beginning


def plain(name: str) -> str:
    """Returns the name of a column without case, blanks and quotes."""
    return clean_label(name).strip("\"'").strip().casefold()


def heading(path: Path, number: int, names: list[str]) -> list[str]:
    """Returns the names of a table's columns.

    Raises:
        DataError: when one is there twice, or a needed one is not there.
    """
    columns = [plain(name) for name in names]
    twice = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}, line {number}: the heading names the column {twice[0]} twice. Remove one."
        )
    if not set(columns) >= NEEDED:
        is_row = any(Path(name.strip()).suffix.lower() in IMAGE_SUFFIXES for name in names)
        hint = " That line is not a heading: write 'path,label' above it." if is_row else ""
        raise DataError(
            f"{path}, line {number} has the columns {', '.join(names) or 'none'}: expected"
            f" {', '.join(COLUMNS)}, separated by commas; split may be left out.{hint}"
        )
    return columns


def json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Yields the objects of a JSON lines file, each with the number of its line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError('it is not an object, such as {"path": "a.jpg", "label": "cat"}')
            names = [plain(key) for key in row]
            if len(set(names)) < len(names):
                raise ValueError("it names a key twice")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
        yield number, dict(zip(names, row.values(), strict=True))


def named_file(table: Path, number: int, row: Row) -> ImageFile:
    """Returns the image that a row names, whether it is there or not.

    Raises:
        DataError: when the row lacks something or names an unknown part.
    """
    name, label, part = row.get("path"), row.get("label"), row.get("split")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not (isinstance(name, str) and name.strip() and isinstance(label, str)):
        raise DataError(f"{table}, line {number}: expected a path and a label.")
    if any("\ud800" <= letter <= "\udfff" for letter in label):
        raise DataError(f"{table}, line {number}: the label is not UTF-8. Save the file as that.")
    if not (label := clean_label(label)):
        raise DataError(f"{table}, line {number}: expected a path and a label.")
    split = split_named(part) if isinstance(part, str) else None
    is_given = part is not None and not (isinstance(part, str) and not part.strip())
    if is_given and split is None:
        raise DataError(
            f"{table}, line {number}: the split is {part!r}, expected one of train, val, test."
        )
    others = {key: row.get(key) or "" for key in ("name", "digest")} if is_written(row) else {}
    return ImageFile(Path(os.path.abspath(table.parent / name)), label, split, **others)


def is_written(row: Row) -> bool:
    """Returns whether a row is one of `write_images`, by its columns."""
    return tuple(row) == WRITTEN


def checked_file(table: Path, number: int, row: Row) -> ImageFile:
    """Returns the image of a row, which is there.

    Blanks around a path are taken off, and a path of Windows is read, where no file is so called.

    Raises:
        DataError: when the row lacks something, or there is no such file.
    """
    file = named_file(table, number, row)
    name = row["path"]
    candidates = (name, name.strip(), name.strip().replace("\\", "/"))
    paths = [Path(os.path.abspath(table.parent / each)) for each in dict.fromkeys(candidates)]
    for path in paths:
        if (kind := kind_of(path)) == stat.S_IFREG:
            return ImageFile(path, file.label, file.split, file.name, file.digest)
        if kind and kind != stat.S_IFDIR:
            raise DataError(f"{table}, line {number}: {shortened(str(path))} is no regular file.")
    hint = " Write it with / as in photos/cat.jpg." if "\\" in name else ""
    raise DataError(f"{table}, line {number}: there is no {shortened(str(paths[0]))}.{hint}")


def kind_of(path: Path) -> int:
    """Returns the kind of what a path leads to; 0 where there is nothing, or it can be no path."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return 0


def shortened(name: str) -> str:
    """Returns a path that may be very long, for a message."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
