"""Tables of custom images: .csv and JSON lines files with columns path, label and split."""

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

from resnetkit.data.images.formats import IMAGE_SUFFIXES
from resnetkit.data.images.labels import clean_label
from resnetkit.data.images.listing import ImageFile, ImageList
from resnetkit.data.splits import split_named
from resnetkit.errors import DataError
from resnetkit.untrusted import parse_json, path_from_text, read_bounded, recognized_mistake

__all__ = ["encoding_of", "read_list", "read_table", "write_images"]

COLUMNS = ("path", "label", "split")
WRITTEN = ("path", "name", "digest", "label", "split")
REQUIRED = {"path", "label"}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
TABLES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
LINE_ENDS = re.compile(r"\r\n|\r|\n")
EMPTY_LINES = re.compile(r"(?:[ \t,;|]*(?:\r\n|\r|\n))*")
SEPARATOR_LINE = re.compile(r"\"?sep=([,;\t|])\"?(?:\r\n|\r|\n)", re.IGNORECASE)
LARGEST_TABLE = 2**30  # bytes
LONGEST_NAME = 200  # characters of a path in a message
MOST_ID_COLUMNS = 2  # besides the columns of one-hot labels: an index and a path
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is a prefix of this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The codec for each byte order mark."""

Row = dict[str, Any]


def read_table(path: Path) -> ImageList:
    """Lists the images of a table.

    Raises:
        DataError: when the table is invalid; the message names the line.
    """
    files: dict[str, ImageFile] = {}
    other_columns: dict[str, set[object]] = defaultdict(set)
    for number, row in rows_of(path):
        for column in row.keys() - set(COLUMNS):
            other_columns[column].add(row[column] if isinstance(row[column], str) else None)
        file = existing_file(path, number, row)
        if (key := str(file.path)) in files:
            raise DataError(
                f"{path}, line {number}: {shortened(key)} is listed twice. Remove one of the lines."
            )
        files[key] = file
    if not any(file.split for file in files.values()):
        refuse_misnamed_split(path, other_columns)
    return ImageList(path, tuple(files.values()))


def refuse_misnamed_split(path: Path, columns: dict[str, set[object]]) -> None:
    """Raises DataError for a column that contains splits but is not called split.

    Args:
        path: of the table.
        columns: the values of the columns that are not read; None for a value that is not text.
    """
    for column, values in columns.items():
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) == len(values) > 1 and all(map(split_named, texts)):
            raise DataError(
                f"{path}: the column {column} contains splits ({', '.join(sorted(texts))}), but is"
                " not called split. Rename it to split, or remove it to have splits drawn."
            )


def read_list(path: Path, root: Path) -> ImageList:
    """Reads a list that `write_images` has written; its files need not exist any longer.

    Args:
        path: of the list.
        root: the folder or table that the images came from.

    Raises:
        DataError: when it cannot be read.
    """
    return ImageList(root, tuple(named_file(path, number, row) for number, row in rows_of(path)))


def write_images(images: ImageList) -> bytes:
    """Returns the content of a .csv file from which `read_images` reads the list back.

    Raises:
        DataError: when the file would be larger than those that are read.
    """
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow(WRITTEN)
    for file in images.files:
        row = (os.path.abspath(file.path), file.name, file.digest, file.label, file.split or "")
        table.writerow(row)
    content = text.getvalue().encode(errors="surrogateescape")
    if len(content) > LARGEST_TABLE:
        raise DataError(
            f"{images.root}: the list of its {len(images.files):,} images would have more than"
            f" {LARGEST_TABLE / 2**20:,.0f} MiB. Use fewer images, or shorter paths."
        )
    return content


def rows_of(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a table, each with the number of its first line.

    Raises:
        DataError: when it cannot be read or is invalid.
    """
    kind = TABLES.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: expected a folder, or a .csv or .jsonl file.")
    text = text_of(path)
    rows = csv_rows(path, text) if kind == "csv" else json_rows(path, text)
    return ((number, with_paths(row)) for number, row in rows)


def with_paths(row: Row) -> Row:
    """Returns a row with its paths encoded as Python opens them in the current locale."""
    return {
        key: path_from_text(value) if key in ("path", "name") and isinstance(value, str) else value
        for key, value in row.items()
    }


def text_of(table: Path) -> str:
    """Returns the text of a table, in which bytes of a path that are not UTF-8 are surrogates.

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
            f"{table} begins as {encoding.upper()}, but it is not ({error.reason}). Save it as"
            " UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(f"{table} is not text: it contains zero bytes. Save it as UTF-8.")
    if mistake := recognized_mistake(content):
        raise DataError(f"{table}: {mistake}.")
    return text


def encoding_of(beginning: bytes) -> str:
    """Returns the encoding of a text by its first bytes; UTF-8 by default.

    UTF-16, which Windows writes, may lack the mark: every other byte of ASCII text is zero then.
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
    """Yields the rows of a CSV file with a header, each with the number of its first line."""
    separator, beginning = separator_of(text)
    before = len(LINE_ENDS.findall(beginning))
    reader = csv.reader(
        StringIO(text[len(beginning) :], newline=""),
        delimiter=separator,
        skipinitialspace=not text.startswith(",".join(WRITTEN)),  # there a space is of the name
        strict=True,
    )
    number = before + 1
    try:
        names = next(reader, [])
        columns = column_names(path, number, names)
        if not set(columns) >= REQUIRED:
            raise DataError(wrong_columns(path, number, names, next(reader, [])))
        number = before + reader.line_num + 1
        while (values := next(reader, None)) is not None:
            if any(map(str.strip, values[len(columns) :])):
                raise DataError(
                    f"{path}, line {number}: {len(values)} values, but the header has"
                    f" {len(columns)} columns. A path or label that contains"
                    f' {SEPARATORS[separator]} needs quotes: "a, b".'
                )
            if any(values):
                yield number, dict(zip(columns, values, strict=False))
            number = before + reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: {csv_problem(error)}.") from error


def csv_problem(error: csv.Error) -> str:
    """Describes what is wrong with a row."""
    message = str(error)
    if "unexpected end" in message or "field limit" in message:
        return "a quote is opened and never closed: remove it, or double it inside quotes"
    if "expected after" in message:
        return "a quote is closed within a value, or opened here and never closed"
    return message


def separator_of(text: str) -> tuple[str, str]:
    """Returns the separator of the columns, and the text before the header.

    That text consists of empty lines, and perhaps of a line such as sep=; for Excel. Without such a
    line, the separator is the one that yields the required columns.
    """
    empty = EMPTY_LINES.match(text)
    beginning = empty[0] if empty else ""
    explicit = SEPARATOR_LINE.match(text, len(beginning))
    if explicit:
        return explicit[1], beginning + explicit[0]
    first = re.compile(r"[^\r\n]*").match(text, len(beginning))
    for separator in SEPARATORS:
        if first and {column_name(name) for name in first[0].split(separator)} >= REQUIRED:
            return separator, beginning
    return ",", beginning


def column_name(name: str) -> str:
    """Normalizes the name of a column: no case, surrounding whitespace or quotes."""
    return clean_label(name).strip("\"'").strip().casefold()


def column_names(path: Path, number: int, names: list[str]) -> list[str]:
    """Returns the normalized column names of a header.

    Raises:
        DataError: when a name occurs twice.
    """
    columns = [column_name(name) for name in names]
    duplicates = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
    if duplicates:
        raise DataError(
            f"{path}, line {number}: the column {duplicates[0]} occurs twice in the header. Remove"
            " one."
        )
    return columns


def wrong_columns(path: Path, number: int, names: list[str], row: list[str]) -> str:
    """Returns the message on a table without the required columns.

    Args:
        path: of the table.
        number: of the line with its header.
        names: of the columns.
        row: the values of the next line.
    """
    hint = ""
    if names and names[0].lstrip().startswith("#"):
        hint = " Remove the lines that begin with #: the first line must be the header."
    elif any(Path(name.strip()).suffix.lower() in IMAGE_SUFFIXES for name in names):
        hint = " This line is not a header: insert 'path,label' above it."
    elif is_one_hot(row):
        hint = (
            " The labels look one-hot encoded: replace these columns by one column label with the"
            " name of the class."
        )
    return (
        f"{path}, line {number} has the columns {shortened(', '.join(names)) or 'none'}: expected"
        f" {', '.join(COLUMNS)}, separated by commas; split is optional.{hint}"
    )


def is_one_hot(row: list[str]) -> bool:
    """Returns whether the values of a row, apart from a path or id, are zeros and a single one."""
    numbers = [float(value) for value in row if value.strip() in ("0", "1", "0.0", "1.0")]
    return len(numbers) > 1 and sum(numbers) == 1 and len(row) - len(numbers) <= MOST_ID_COLUMNS


def json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Yields the objects of a JSON lines file, each with the number of its line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError('it is not an object, such as {"path": "a.jpg", "label": "cat"}')
            names = [column_name(key) for key in row]
            if len(set(names)) < len(names):
                raise ValueError("a key occurs twice")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}.") from error
        yield number, dict(zip(names, row.values(), strict=True))


def named_file(table: Path, number: int, row: Row) -> ImageFile:
    """Returns the image of a row, whether its file exists or not.

    Raises:
        DataError: when the path or the label is missing, or the split is unknown.
    """
    name, label, split_name = row.get("path"), row.get("label"), row.get("split")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not (isinstance(name, str) and name.strip() and isinstance(label, str)):
        raise DataError(f"{table}, line {number}: expected a path and a label.")
    if any("\ud800" <= letter <= "\udfff" for letter in label):
        raise DataError(f"{table}, line {number}: the label is not UTF-8. Save the file as UTF-8.")
    if not (label := clean_label(label)):
        raise DataError(f"{table}, line {number}: expected a path and a label.")
    split = split_named(split_name) if isinstance(split_name, str) else None
    is_given = split_name is not None and not is_blank(split_name)
    if is_given and split is None:
        raise DataError(
            f"{table}, line {number}: the split is {split_name!r}, expected one of train, val,"
            " test."
        )
    optional = {key: row.get(key) or "" for key in ("name", "digest")} if is_written(row) else {}
    return ImageFile(Path(os.path.abspath(table.parent / name)), label, split, **optional)


def is_blank(value: object) -> bool:
    """Returns whether a value is text without visible characters."""
    return isinstance(value, str) and not value.strip()


def is_written(row: Row) -> bool:
    """Returns whether a row was written by `write_images`, by its columns."""
    return tuple(row) == WRITTEN


def existing_file(table: Path, number: int, row: Row) -> ImageFile:
    """Returns the image of a row, whose file must exist.

    If there is no such file, whitespace around the path is removed, and backslashes are read as the
    separators of a Windows path.

    Raises:
        DataError: as for `named_file`, or when the file does not exist.
    """
    file = named_file(table, number, row)
    name = row["path"]
    candidates = (name, name.strip(), name.strip().replace("\\", "/"))
    paths = [
        Path(os.path.abspath(table.parent / candidate)) for candidate in dict.fromkeys(candidates)
    ]
    for path in paths:
        if (kind := kind_of(path)) == stat.S_IFREG:
            return ImageFile(path, file.label, file.split, file.name, file.digest)
        if kind and kind != stat.S_IFDIR:
            raise DataError(
                f"{table}, line {number}: {shortened(str(path))} is not a regular file."
            )
    if URL.match(name.strip()):
        raise DataError(
            f"{table}, line {number}: {shortened(name.strip())} is a URL, and images are not"
            " downloaded: download them, and list the paths of the files."
        )
    hint = missing_hint(paths[0], name)
    raise DataError(f"{table}, line {number}: there is no {shortened(str(paths[0]))}.{hint}")


def missing_hint(path: Path, name: str) -> str:
    """Returns a sentence on the likely reason why the file of a row does not exist, or nothing."""
    if "\\" in name:
        return " Write it with / as in photos/cat.jpg."
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ""
    for suffix in sorted(IMAGE_SUFFIXES):
        for candidate in (suffix, suffix.upper()):
            if kind_of(Path(f"{path}{candidate}")) == stat.S_IFREG:
                return (
                    f" There is {shortened(path.name)}{candidate}: paths need the extension of the"
                    " file."
                )
    return ""


def kind_of(path: Path) -> int:
    """Returns the file type of a path, following links; 0 if it does not exist or is invalid."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return 0


def shortened(name: str) -> str:
    """Returns a path for a message, shortened if it is very long."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
