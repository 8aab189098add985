"""Archives that may hold anything: the files of known names are unpacked, and nothing else."""

import re
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from resnetkit.errors import DataError
from resnetkit.untrusted import decompressed_pieces, open_regular, printable, recognized_mistake

__all__ = ["is_archive", "unpack"]

ENDINGS = (".tar.gz", ".tgz", ".tar")
GZIP = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 512
MAX_MEMBERS = 10_000  # the archives of data sets hold ten
MAX_STREAM_BYTES = 2 << 30  # unpacked; the largest official archive has 186 MB
MAX_METADATA_BYTES = 16 << 10  # of a long name
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
METADATA = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
PAX_PATH = re.compile(rb"(?:^|\n)\d{1,9} path=([^\n]*)\n")


def is_archive(path: Path) -> bool:
    """Returns whether the name of a file is one of an archive that `unpack` reads."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path, folder: Path, names: Collection[str], *, max_bytes: int) -> None:
    """Unpacks the regular files of some names; those of one folder come into one folder.

    tarfile parses single headers here, and nothing more. What else it does with an archive follows
    what the archive claims: in many patch versions of Python it writes through links to elsewhere,
    never ends, or asks for as much memory as a header names. Here no name, link, owner or mode of
    the archive is used: the folders are numbered, and the files have the names asked for.

    Args:
        archive: tar, or tar compressed by gzip.
        folder: an empty one.
        names: of the files to unpack, without their folders.
        max_bytes: of one file.

    Raises:
        DataError: when it is no such archive, is damaged, or holds a file of these names twice, as
            a link, or larger than that.
        OSError: when the folder cannot be written.
    """
    try:
        with open_regular(archive) as file:
            beginning = file.read(BLOCK_BYTES)
            if mistake := recognized_mistake(beginning):
                raise ValueError(mistake)
            unpack_members(ByteStream(pieces(file, beginning)), folder, names, max_bytes)
    except (ValueError, tarfile.HeaderError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is no tar archive, or damaged"
        raise DataError(f"the archive {archive} cannot be unpacked: {reason}.") from error


def pieces(file: IO[bytes], beginning: bytes) -> Iterator[bytes]:
    """Yields the content of an archive, of which the beginning has been read, uncompressed."""

    def chunks() -> Iterator[bytes]:
        yield beginning
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

    if beginning.startswith(GZIP):
        return decompressed_pieces(chunks(), MAX_STREAM_BYTES)
    return chunks()


class ByteStream:
    """Bytes that come in pieces of any size, read in the sizes that are wanted."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.rest = memoryview(b"")

    def parts(self, count: int) -> Iterator[memoryview]:
        """Yields the next bytes without joining them.

        Raises:
            ValueError: when there are fewer.
        """
        while count > 0:
            if not self.rest:
                self.rest = memoryview(next(self.pieces, b""))
            if not self.rest:
                raise ValueError("it is truncated")
            part, self.rest = self.rest[:count], self.rest[count:]
            count -= len(part)
            yield part

    def read(self, count: int) -> bytes:
        """Returns the next bytes; none at the very end."""
        if not self.rest:
            self.rest = memoryview(next(self.pieces, b""))
        return b"".join(self.parts(count)) if self.rest else b""

    def skip(self, count: int) -> None:
        """Passes over the next bytes."""
        for _ in self.parts(count):
            pass


def unpack_members(
    stream: ByteStream, folder: Path, names: Collection[str], max_bytes: int
) -> None:
    """Unpacks the files of some names from an uncompressed archive.

    Raises:
        ValueError: see `unpack`.
        tarfile.HeaderError: likewise.
    """
    folders: dict[PurePosixPath, Path] = {}
    for member in members(stream):
        path = PurePosixPath(member.name)
        if path.name not in names:
            stream.skip(stored_bytes(member))
            continue
        shown = printable(member.name)
        if member.isdir():
            continue
        if member.type not in REGULAR:
            raise ValueError(f"{shown} in it is a link or another special file, not a regular one")
        if member.size > max_bytes:
            raise ValueError(
                f"{shown} in it claims {member.size:,} bytes, expected {max_bytes:,} at most"
            )
        place = folders.setdefault(path.parent, folder / str(len(folders)))
        place.mkdir(exist_ok=True)
        if (place / path.name).exists():
            raise ValueError(f"it holds {shown} twice")
        with (place / path.name).open("xb") as file:
            for part in stream.parts(member.size):
                file.write(part)
        stream.skip(padding(member.size))


def members(stream: ByteStream) -> Iterator[tarfile.TarInfo]:
    """Yields the header of each member; whoever gets one reads or skips its content.

    Raises:
        ValueError: when there are too many, or one is sparse.
        tarfile.HeaderError: when one is damaged.
    """
    long_name = ""
    for _ in range(MAX_MEMBERS):
        block = stream.read(BLOCK_BYTES)
        if not block.strip(b"\0"):  # the mark at the end, or no more bytes
            return
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.size < 0:
            raise ValueError("it is damaged: a file in it claims a negative size")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError(f"{printable(member.name)} in it is sparse: pack it without --sparse")
        if member.type in METADATA:
            long_name = name_in(member, stream) or long_name
            continue
        member.name, long_name = long_name or member.name, ""
        yield member
    raise ValueError(f"it holds more than {MAX_MEMBERS:,} files")


def name_in(member: tarfile.TarInfo, stream: ByteStream) -> str:
    """Returns the long name of the next member that this one holds; empty where it does not."""
    if member.size > MAX_METADATA_BYTES:
        stream.skip(stored_bytes(member))
        return ""
    content = stream.read(stored_bytes(member))[: member.size]
    if member.type == tarfile.GNUTYPE_LONGNAME:
        return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    is_for_one = member.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
    path = PAX_PATH.search(content) if is_for_one else None
    return path[1].decode("utf-8", "surrogateescape") if path else ""


def stored_bytes(member: tarfile.TarInfo) -> int:
    """Returns how many bytes follow the header of a member: none of links and folders."""
    is_empty = member.type in tarfile.SUPPORTED_TYPES and not member.isreg()
    return 0 if is_empty and member.type not in METADATA else member.size + padding(member.size)


def padding(size: int) -> int:
    """Returns how many zeros fill up the last block of a file of so many bytes."""
    return -size % BLOCK_BYTES
