"""What comes from outside, bounded before it is believed: files, JSON and text for a terminal."""

import errno
import json
import math
import os
import re
import stat
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

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
    "recognized_mistake",
]

CHUNK_BYTES = 1 << 20
GZIP_BYTE = b"\x1f"  # with which every member of a gzip stream begins
MAX_DIGITS = 400  # of a whole number: more than the largest float has
MAX_DEPTH = 100  # brackets within brackets in JSON; Python's parser gives up at about 1,000

BEGINNING_BYTES = 1024  # of a file, enough to recognize what it is
# What people have in place of a file when a download went wrong, by how it begins. The atomic group
# keeps a row of comments from being tried in every way.
MISTAKES = {
    rb"version https://(git-lfs|hawser)\.github\.com/spec/": (
        "it is a Git LFS pointer, not the file itself: run 'git lfs pull' where it came from"
    ),
    rb"((\.\./)*\.git)?/annex/objects/": (
        "it is a git-annex pointer, not the file itself: run 'git annex get' where it came from"
    ),
    rb"(?>(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*)<(!doctype\s+html|html|head|body|title|script)\b": (
        "it is an HTML page, such as a login or an error page, not the file itself: download it"
        " again and look at the address"
    ),
    rb"(<\?xml[^>]*>\s*)?<Error>": (
        "it is a server's error message, not the file itself: download it again and look at the"
        " address"
    ),
    rb"\x00\x05\x16[\x00\x07]": (
        "it holds only what macOS keeps beside a file (its name begins with '._'), not the file"
        " itself"
    ),
}


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Opens a regular file for reading; a pipe, a device or a socket is refused without waiting.

    Raises:
        OSError: when there is none, it may not be read, or it is no regular file.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        yield file


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a regular file, for which no more memory is asked than it has bytes.

    Raises:
        OSError: as `open_regular`, or with EFBIG when the file is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise too_large(path, max_bytes)
        # A file that grows while it is read, and those of /proc that claim no size, are read too.
        content = file.read(min(size, max_bytes) + 1)
        while len(content) <= max_bytes and (more := file.read(CHUNK_BYTES)):
            content += more
    if len(content) > max_bytes:
        raise too_large(path, max_bytes)
    return content


def too_large(path: Path, max_bytes: int) -> OSError:
    """Returns the error for a file of more bytes than are read."""
    return OSError(errno.EFBIG, f"it is larger than {megabytes(max_bytes)}", str(path))


def decompressed(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    """Returns what a gzip stream unpacks to, in pieces, so that a bomb is stopped at its limit.

    Args:
        chunks: of the compressed bytes, in order.
        max_bytes: that may come out.

    Raises:
        ValueError: when it is not whole, not gzip, or unpacks to more.
    """
    return b"".join(decompressed_pieces(chunks, max_bytes))


def decompressed_pieces(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yields what a gzip stream unpacks to, a megabyte at most at a time.

    Its members are joined, as gunzip does; other bytes behind them are left alone.

    Args:
        chunks: as for `decompressed`.
        max_bytes: likewise.

    Raises:
        ValueError: likewise.
    """
    count, unpacker = 0, zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            while chunk:
                if unpacker.eof:  # of one member; others may follow, as after zeros of padding
                    chunk = chunk.lstrip(b"\0")
                    if not chunk.startswith(GZIP_BYTE):
                        break
                    unpacker = zlib.decompressobj(wbits=31)
                piece = unpacker.decompress(chunk, min(CHUNK_BYTES, max_bytes + 1 - count))
                count += len(piece)
                if count > max_bytes:
                    raise ValueError(f"it unpacks to more than {megabytes(max_bytes)}")
                if piece:
                    yield piece
                chunk = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as error:
        raise ValueError("it is not gzip, or damaged") from error
    if not unpacker.eof:
        raise ValueError("its end is missing")


def recognized_mistake(beginning: bytes) -> str | None:
    """Returns what a file is that is not what it should be, where that is a common mistake.

    To be asked of a file that cannot be read as what its name says.

    Args:
        beginning: of the file; of more than a kilobyte, the first is looked at.

    Returns:
        Words such as "it is a Git LFS pointer, not the file itself: run 'git lfs pull' ..." without
        a full stop; None where nothing is recognized.
    """
    content = beginning[:BEGINNING_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, words in MISTAKES.items():
        if re.match(pattern, content, re.IGNORECASE | re.DOTALL):
            return words
    return None


def parse_json(content: bytes | str, *, finite: bool = True) -> Any:
    """Parses JSON that came from elsewhere.

    Args:
        content: as bytes, in UTF-8.
        finite: whether NaN, Infinity and numbers too large for a float are refused, as JSON does.

    Raises:
        ValueError: when it is not JSON in UTF-8, names a key twice, is nested too deeply, or holds
            a number that is not finite or has too many digits.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    check_depth(text)
    return json.loads(
        text,
        object_pairs_hook=distinct,
        parse_int=whole_number,
        parse_float=finite_number if finite else float,
        parse_constant=finite_number if finite else float,
    )


def whole_number(digits: str) -> int:
    """Returns a whole number that came from elsewhere.

    Raises:
        ValueError: when it has absurdly many digits.
    """
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def finite_number(text: str) -> float:
    """Returns a number that came from elsewhere.

    Raises:
        ValueError: when it is not finite, or too large for a float.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text[:20]}, which is not a finite number")
    return number


def check_depth(text: str) -> None:
    """Raises ValueError for brackets within brackets beyond `MAX_DEPTH`."""
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


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the pairs of a JSON object as a dict.

    Raises:
        ValueError: when a key occurs twice, of which one value would be lost.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it names the key {duplicate!r} twice")
    return values


def printable(text: str, *, keep: str = "") -> str:
    r"""Returns text that cannot move a terminal's cursor, change its colors or break a line.

    Args:
        text: which may come from a file, a file's name or a network.
        keep: characters that stay as they are, such as "\n" in a message of several lines.
    """
    return "".join(
        character if character in keep or is_harmless(character) else escaped(character)
        for character in with_utf8(text)
    )


# Zero-width joiners, of which emoji and some scripts make one sign of several.
JOINERS = "\u200c\u200d"


def is_harmless(character: str) -> bool:
    """Returns whether a terminal shows a character and does nothing else.

    So it does with spaces that are not the plain one, which systems put into names of files.
    """
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or character in JOINERS


def escaped(character: str) -> str:
    """Returns a character as Python writes it in ASCII."""
    return character.encode("unicode_escape").decode()


# What XML 1.0 does not allow, the controls that browsers interpret (C1), and those that change the
# direction of the text around them.
NOT_IN_MARKUP = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def markup_text(text: str) -> str:
    """Returns HTML or SVG with the characters escaped that no such document may hold.

    A control character in a name makes the whole of an SVG file unreadable.

    Args:
        text: of a document or of a part of it; markup in it stays.
    """
    return NOT_IN_MARKUP.sub(lambda match: escaped(match[0]), with_utf8(text))


def name_as_text(name: str) -> str:
    """Returns the name of a file as the text that its bytes are in UTF-8, in every locale.

    Python decodes names by the locale: in one of ASCII, two surrogates stand for the e with an
    accent. Bytes that are not UTF-8 stay surrogates.
    """
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def path_from_text(text: str) -> str:
    """Returns the path that a text in UTF-8 names, as Python opens it: undoes `name_as_text`."""
    try:
        return os.fsdecode(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # a surrogate that stands for no byte, which no path has
        return text


def with_utf8(text: str) -> str:
    """Returns text in which surrogates that stand for the bytes of UTF-8 are the characters."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text


def megabytes(count: int) -> str:
    """Returns a number of bytes for people."""
    return f"{count / 2**20:,.0f} MiB" if count >= 2**20 else f"{count:,} bytes"
