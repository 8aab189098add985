"""Untrusted input: files, gzip streams, JSON and text, read with limits."""

import errno
import json
import math
import os
import re
import stat
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from resnetkit.errors import DataError

__all__ = [
    "BEGINNING_BYTES",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "decompressed",
    "decompressed_pieces",
    "markup_text",
    "name_as_text",
    "open_regular",
    "parse_json",
    "path_from_text",
    "printable",
    "read_bounded",
    "read_record",
    "recognized_mistake",
]

Record = TypeVar("Record")

CHUNK_BYTES = 1 << 20
GZIP_BYTE = b"\x1f"  # the first byte of every member of a gzip stream
MAX_DIGITS = 400  # of an integer: more than the largest float has
MAX_DEPTH = 100  # nested brackets in JSON; Python's parser fails at about 1,000

BEGINNING_BYTES = 1024  # of a file, enough to recognize its type
# What a file really is after a failed download, by its first bytes. The atomic group avoids
# exponential backtracking over a sequence of comments.
MISTAKES = {
    rb"version https://(git-lfs|hawser)\.github\.com/spec/": (
        "it is a Git LFS pointer, not the file itself: run 'git lfs pull' in its repository"
    ),
    rb"((\.\./)*\.git)?/annex/objects/": (
        "it is a git-annex pointer, not the file itself: run 'git annex get' in its repository"
    ),
    rb"(?>(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*)<(!doctype\s+html|html|head|body|title|script)\b": (
        "it is an HTML page, such as a login or an error page, not the file itself: check the"
        " address and download it again"
    ),
    rb"(<\?xml[^>]*>\s*)?<Error>": (
        "it is a server's error message, not the file itself: check the address and download it"
        " again"
    ),
    rb"\x00\x05\x16[\x00\x07]": (
        "it holds only the metadata that macOS stores next to a file (its name begins with '._'),"
        " not the file itself"
    ),
}


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; pipes, devices and sockets are refused without blocking.

    Raises:
        OSError: when it does not exist, may not be read, or is not a regular file.
    """
    # Without O_NONBLOCK, opening a pipe blocks until something writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        yield file


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a regular file without allocating more memory than its size.

    Raises:
        OSError: as for `open_regular`, or with EFBIG when the file is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise too_large(path, max_bytes)
        # Files that grow while they are read, and those of /proc, which report no size.
        content = file.read(min(size, max_bytes) + 1)
        while len(content) <= max_bytes and (more := file.read(CHUNK_BYTES)):
            content += more
    if len(content) > max_bytes:
        raise too_large(path, max_bytes)
    return content


def too_large(path: Path, max_bytes: int) -> OSError:
    """Returns the error for a file that is larger than the limit."""
    return OSError(errno.EFBIG, f"it is larger than {megabytes(max_bytes)}", str(path))


def decompressed(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    """Decompresses a gzip stream, stopping at a limit.

    Args:
        chunks: the compressed bytes, in order.
        max_bytes: the largest decompressed size.

    Raises:
        ValueError: when the stream is truncated, is not gzip, or decompresses to more.
    """
    return b"".join(decompressed_pieces(chunks, max_bytes))


def decompressed_pieces(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Decompresses a gzip stream, yielding at most a megabyte at a time.

    Members are concatenated, as gunzip does; other trailing bytes are ignored.

    Args:
        chunks: as for `decompressed`.
        max_bytes: as for `decompressed`.

    Raises:
        ValueError: as for `decompressed`.
    """
    count, unpacker = 0, zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            while chunk:
                if unpacker.eof:  # another member may follow, after padding with zeros
                    chunk = chunk.lstrip(b"\0")
                    if not chunk.startswith(GZIP_BYTE):
                        break
                    unpacker = zlib.decompressobj(wbits=31)
                piece = unpacker.decompress(chunk, min(CHUNK_BYTES, max_bytes + 1 - count))
                count += len(piece)
                if count > max_bytes:
                    raise ValueError(f"it decompresses to more than {megabytes(max_bytes)}")
                if piece:
                    yield piece
                chunk = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as error:
        raise ValueError("it is not gzip, or it is corrupt") from error
    if not unpacker.eof:
        raise ValueError("it is truncated")


def recognized_mistake(beginning: bytes) -> str | None:
    """Recognizes common mistakes by the first bytes of a file that cannot be read.

    Args:
        beginning: of the file; only the first kilobyte is used.

    Returns:
        What the file is and what to do, such as "it is a Git LFS pointer, not the file itself: run
        'git lfs pull' ...", without a full stop; None if nothing is recognized.
    """
    content = beginning[:BEGINNING_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, description in MISTAKES.items():
        if re.match(pattern, content, re.IGNORECASE | re.DOTALL):
            return description
    return None


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Parses untrusted JSON.

    Args:
        content: text, or bytes in UTF-8.
        finite: whether to refuse NaN, Infinity and numbers too large for a float, as the JSON
            standard does.

    Raises:
        ValueError: when it is not JSON in UTF-8, has duplicate keys, is nested too deeply, or has a
            number that is not finite or has too many digits.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    check_depth(text)
    return json.loads(
        text,
        object_pairs_hook=object_of_pairs,
        parse_int=whole_number,
        parse_float=finite_number if finite else float,
        parse_constant=finite_number if finite else float,
    )


def read_record(path: Path, kind: type[Record], max_bytes: int, *, advice: str) -> Record:
    """Reads a dataclass from a JSON file.

    Args:
        path: the file.
        kind: the dataclass.
        max_bytes: the largest size of the file.
        advice: what to do with a file that is corrupt.

    Raises:
        DataError: when it cannot be read, is too large, is not JSON, or lacks a field.
    """
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(kind).validate_python(parse_json(read_bounded(path, max_bytes)))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is corrupt ({type(error).__name__}). {advice}") from error


def whole_number(digits: str) -> int:
    """Parses an untrusted integer.

    Raises:
        ValueError: when it has too many digits.
    """
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it contains a number of {len(digits):,} digits")
    return int(digits)


def finite_number(text: str) -> float:
    """Parses an untrusted number.

    Raises:
        ValueError: when it is not finite, or too large for a float.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it contains {text[:20]}, which is not a finite number")
    return number


def check_depth(text: str) -> None:
    """Raises ValueError when brackets are nested deeper than `MAX_DEPTH`."""
    depth, in_string = 0, False
    characters = iter(text) if text.count("[") + text.count("{") > MAX_DEPTH else iter(())
    for character in characters:
        if in_string:
            if character == "\\":
                next(characters, "")
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        elif character in "]}":
            depth -= 1


def object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the keys and values of a JSON object as a dict.

    Raises:
        ValueError: when a key occurs twice, since one of its values would be lost.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {duplicate[:100]!r} occurs twice")
    return values


def printable(text: str, *, keep: str = "") -> str:
    r"""Escapes characters that move a terminal's cursor, change its colors or break a line.

    Args:
        text: untrusted, such as the name of a file.
        keep: characters that are not escaped, such as "\n" in a message of several lines.
    """
    return "".join(
        character if character in keep or is_harmless(character) else escaped(character)
        for character in with_utf8(text)
    )


# Zero-width joiners, with which emoji and some scripts combine several characters into one.
JOINERS = "\u200c\u200d"


def is_harmless(character: str) -> bool:
    """Returns whether a terminal only displays a character.

    Spaces other than the ASCII one count: some systems use them in file names.
    """
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or character in JOINERS


def escaped(character: str) -> str:
    """Returns a character as a Python escape sequence."""
    return character.encode("unicode_escape").decode()


# What XML 1.0 does not allow, C1 control characters, which browsers interpret, and characters that
# change the direction of the surrounding text.
NOT_IN_MARKUP = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def markup_text(text: str) -> str:
    """Escapes characters that HTML and SVG documents may not contain.

    A single control character makes a whole SVG file unreadable.

    Args:
        text: a document or a part of one; its markup is not changed.
    """
    return NOT_IN_MARKUP.sub(lambda match: escaped(match[0]), with_utf8(text))


def name_as_text(name: str) -> str:
    """Returns the name of a file, decoded as UTF-8 in every locale.

    Python decodes file names by the locale: in an ASCII locale, an accented letter becomes two
    surrogates. Bytes that are not valid UTF-8 remain surrogates.
    """
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def path_from_text(text: str) -> str:
    """Returns the path that Python opens for a name in UTF-8: the inverse of `name_as_text`."""
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # a surrogate that stands for no byte, which no path contains
        return text


def with_utf8(text: str) -> str:
    """Replaces surrogates that stand for the bytes of UTF-8 by the characters they encode."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text


def megabytes(count: int) -> str:
    """Formats a number of bytes for messages."""
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count:,} bytes"
