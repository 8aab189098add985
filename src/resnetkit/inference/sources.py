"""Finds the images named on a command line: files, folders, patterns, and standard input."""

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, AnyStr

from resnetkit.data.images.check import BadImage
from resnetkit.data.images.decode import LARGEST_FILE
from resnetkit.data.images.formats import (
    IMAGE_SIGNATURE,
    IMAGE_SUFFIXES,
    is_image,
    unreadable_reason,
)
from resnetkit.data.images.table import encoding_of
from resnetkit.data.images.tree import files_in, folders_in
from resnetkit.errors import DataError
from resnetkit.untrusted import path_from_text

__all__ = ["find_images"]

BEGINNING_BYTES = 64  # of a stream, from which its type is determined
# The header of PPM, PGM, PBM and PFM, which may be text up to the first pixel: djpeg writes it.
NETPBM_HEADER = re.compile(rb"P[1-6fF]\s+(#|\d+\s+\d+\s)")
LONGEST_LINE = 2**16  # bytes, or characters of UTF-16; Linux paths have at most 4,096 bytes


def find_images(
    arguments: Iterable[str], stream: BufferedReader
) -> Iterator[str | bytes | BadImage]:
    """Yields the images that are named, in order, and a `BadImage` where there are none.

    An argument is the path of a file or folder, a pattern with `*`, `?` or `[]`, or `-` for
    standard input. A folder stands for all image files in it, sorted by name, and then for those in
    its folders. An argument that contains `*` is a path if a file has that name. No image is
    decoded, and the list is never held in memory as a whole.

    Args:
        arguments: as on a command line.
        stream: standard input: a path of a file or folder on each line, or the content of one image
            file.
    """
    for argument in arguments:
        if argument == "-":
            yield from from_stream(stream)
        elif has_magic(argument) and not os.path.lexists(argument):
            yield from matching(argument)
        else:
            yield from from_path(argument)


def from_path(path: str) -> Iterator[str | BadImage]:
    """Yields a file, or the images below a folder."""
    if os.path.isdir(path):
        yield from images_below(Path(path))
    else:
        yield path


def matching(pattern: str) -> Iterator[str | BadImage]:
    """Yields the images that match a pattern, as in a shell; `**` matches nested folders.

    Folders that match `**` are not searched: their files match it too.
    """
    paths = sorted(glob(pattern, recursive=True))
    if "**" in pattern:
        paths = [path for path in paths if not os.path.isdir(path)]
    if not paths:
        yield BadImage(Path(pattern), f"{pattern}: nothing matches this pattern.")
    for path in paths:
        yield from from_path(path)


def images_below(root: Path) -> Iterator[str | BadImage]:
    """Yields the images below a folder; each folder is searched once, whatever links there are."""
    pending, searched, is_empty = [root], set(), True
    while pending:
        folder = pending.pop()
        if (real := os.path.realpath(folder)) in searched:
            continue
        searched.add(real)
        try:
            files, folders = files_in(folder), folders_in(folder)
        except (DataError, OSError) as error:
            is_empty = False
            yield BadImage(folder, str(error))
            continue
        for path in files:
            if is_image(path):
                is_empty = False
                yield str(path)
            elif reason := unreadable_reason(path.suffix):
                is_empty = False
                yield BadImage(path, f"{path}: {reason}.")
        pending.extend(reversed(folders))
    if is_empty:
        yield BadImage(
            root,
            f"{root}: the folder contains no images: expected files whose names end in"
            f" {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )


def from_stream(stream: BufferedReader) -> Iterator[str | bytes | BadImage]:
    """Yields the content of a stream if it is an image, or the images named on its lines."""
    beginning = stream.peek(BEGINNING_BYTES)[:BEGINNING_BYTES]
    encoding = encoding_of(beginning)
    if is_image_content(beginning, encoding):
        yield stream.read(LARGEST_FILE)
        return
    for name in paths_in(stream, encoding):
        if name is None:
            yield BadImage(
                Path("-"),
                f"standard input: a line is longer than {LONGEST_LINE:,} characters, and so is not"
                " a path.",
            )
        elif "\0" in name:
            yield BadImage(
                Path("-"), "standard input: a line contains a zero byte, and so is not a path."
            )
        elif name:
            yield from from_path(name)


def is_image_content(beginning: bytes, encoding: str) -> bool:
    """Returns whether a stream is an image and not a list of paths, by its first bytes.

    Args:
        beginning: the first bytes.
        encoding: of the text, if it is one.
    """
    if IMAGE_SIGNATURE.match(beginning) or NETPBM_HEADER.match(beginning):
        return True
    return b"\0" in beginning and encoding == "utf-8"  # no path contains a zero byte


def paths_in(stream: BufferedReader, encoding: str) -> Iterator[str | None]:
    """Yields the lines of a stream as paths, and None for a line that is far too long.

    Paths need not be UTF-8, and Windows writes UTF-16.
    """
    if encoding.startswith("utf-8"):
        for number, line in enumerate(bounded_lines(stream, b"\n")):
            mark = codecs.BOM_UTF8 if number == 0 else b""
            yield None if line is None else os.fsdecode(line.rstrip(b"\r\n").removeprefix(mark))
    else:
        text = TextIOWrapper(stream, encoding, errors="replace")
        try:
            for decoded in bounded_lines(text, "\n"):
                yield (
                    None
                    if decoded is None
                    else path_from_text(decoded.rstrip("\r\n").removeprefix("\ufeff"))
                )
        finally:
            text.detach()  # the stream stays open


def bounded_lines(stream: IO[AnyStr], end: AnyStr) -> Iterator[AnyStr | None]:
    """Yields the lines of a stream; None for one of more than `LONGEST_LINE`, which is skipped."""
    while line := stream.readline(LONGEST_LINE):
        if line.endswith(end) or len(line) < LONGEST_LINE:
            yield line
            continue
        yield None
        while (rest := stream.readline(LONGEST_LINE)) and not rest.endswith(end):
            pass
