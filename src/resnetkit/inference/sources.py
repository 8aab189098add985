"""Words of a command line -> images: files, folders, patterns, lists and bytes on a stream."""

import codecs
import os
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from io import BufferedReader, TextIOWrapper
from pathlib import Path

from resnetkit.data.images.check import BadImage
from resnetkit.data.images.decode import IMAGE_SUFFIXES, LARGEST_FILE, unreadable_reason
from resnetkit.data.images.table import encoding_of
from resnetkit.data.images.tree import files_in, folders_in
from resnetkit.errors import DataError
from resnetkit.untrusted import path_from_text

__all__ = ["find_images"]

LOOKED_AT = 64  # bytes at the beginning of a stream


def find_images(words: Iterable[str], stream: BufferedReader) -> Iterator[str | bytes | BadImage]:
    """Yields images in the order in which they are asked for, and what leads to none.

    A word is the path of a file; of a folder, below which every file is taken whose name ends like
    that of an image, by name, first those of the folder itself; a pattern with `*`, `?` or `[]`,
    unless a file has that very name; or `-`. Nothing is opened yet, and no list of all is kept.

    Args:
        words: as a person types them.
        stream: what `-` stands for, standard input: a path of a file or folder a line, or the
            content of one image file.
    """
    for word in words:
        if word == "-":
            yield from in_stream(stream)
        elif has_magic(word) and not os.path.lexists(word):
            yield from matching(word)
        else:
            yield from at(word)


def at(path: str) -> Iterator[str | BadImage]:
    """Yields a file, or the images below a folder."""
    if os.path.isdir(path):
        yield from images_below(Path(path))
    else:
        yield path


def matching(pattern: str) -> Iterator[str | BadImage]:
    """Yields what a pattern matches as a shell would; `**` matches files in folders of any depth.

    Folders that match `**` are not entered: their files match it as well.
    """
    paths = sorted(glob(pattern, recursive=True))
    if "**" in pattern:
        paths = [path for path in paths if not os.path.isdir(path)]
    if not paths:
        yield BadImage(Path(pattern), f"{pattern}: nothing matches this pattern.")
    for path in paths:
        yield from at(path)


def images_below(folder: Path) -> Iterator[str | BadImage]:
    """Yields the images below a folder; one that links back to itself is entered once."""
    waiting, entered, is_empty = [folder], set(), True
    while waiting:
        here = waiting.pop()
        if (real := os.path.realpath(here)) in entered:
            continue
        entered.add(real)
        try:
            files, folders = files_in(here), folders_in(here)
        except (DataError, OSError) as error:
            is_empty = False
            yield BadImage(here, str(error))
            continue
        for path in files:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                is_empty = False
                yield str(path)
            elif reason := unreadable_reason(path.suffix):
                is_empty = False
                yield BadImage(path, f"{path}: {reason}.")
        waiting.extend(reversed(folders))
    if is_empty:
        yield BadImage(
            folder,
            f"{folder}: the folder holds no images: expected files whose names end in"
            f" {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )


def in_stream(stream: BufferedReader) -> Iterator[str | bytes | BadImage]:
    """Yields what a stream holds: an image, or the images that it names, a path a line."""
    beginning = stream.peek(LOOKED_AT)[:LOOKED_AT]
    encoding = encoding_of(beginning)
    if b"\0" in beginning and encoding == "utf-8":  # as in every image, and in no path
        yield stream.read(LARGEST_FILE)
        return
    for name in lines_of(stream, encoding):
        if "\0" in name:
            yield BadImage(
                Path("-"), "standard input: a line holds a zero byte, which no path has."
            )
        elif name:
            yield from at(name)


def lines_of(stream: BufferedReader, encoding: str) -> Iterator[str]:
    """Yields the lines of a stream as paths, which need not be UTF-8; Windows writes UTF-16."""
    if encoding.startswith("utf-8"):
        for number, line in enumerate(stream):
            mark = codecs.BOM_UTF8 if number == 0 else b""
            yield os.fsdecode(line.rstrip(b"\r\n").removeprefix(mark))
    else:
        text = TextIOWrapper(stream, encoding, errors="replace")
        try:
            for written in text:
                yield path_from_text(written.rstrip("\r\n").removeprefix("\ufeff"))
        finally:
            text.detach()  # the stream stays open
