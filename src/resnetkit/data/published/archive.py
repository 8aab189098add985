"""Unpacks files with given names from untrusted tar archives, and nothing else."""

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
MAX_MEMBERS = 10_000  # the archives of data sets have ten
MAX_STREAM_BYTES = 2 << 30  # decompressed; the largest official archive has 186 MB
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
    """Returns whether a file is, by its name, an archive that `unpack` reads."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path, folder: Path, names: Collection[str], *, max_bytes: int) -> None:
    """Unpacks the regular files with given names; those of one folder go into one new folder.

    Only `tarfile`'s parser of single headers is used. The rest of `tarfile` trusts the archive: in
    many patch releases of Python it writes through links outside the folder, loops forever, or
    allocates as much memory as a header claims. No path, link, owner or mode of the archive is used
    here: the new folders are numbered, and files have the given names.

    Args:
        archive: a tar file, or one compressed by gzip.
        folder: an empty folder.
        names: of the files to unpack, without their folders.
        max_bytes: the largest size of a file.

    Raises:
        DataError: when the file is not such an archive, is corrupt, or contains a file with one of
            the names twice, as a link, or larger than `max_bytes`.
        OSError: when the folder cannot be written.
    """
    try:
        with open_regular(archive) as file:
            beginning = file.read(BLOCK_BYTES)
            if mistake := recognized_mistake(beginning):
                raise ValueError(mistake)
            unpack_members(ByteStream(pieces(file, beginning)), folder, names, max_bytes)
    except (ValueError, tarfile.HeaderError) as error:
        is_clear = isinstance(error, ValueError)
        reason = str(error) if is_clear else "it is not a tar archive, or it is corrupt"
        raise DataError(f"the archive {archive} cannot be unpacked: {reason}.") from error


def pieces(file: IO[bytes], beginning: bytes) -> Iterator[bytes]:
    """Yields the decompressed content of an archive whose beginning has already been read."""

    def chunks() -> Iterator[bytes]:
        yield beginning
        while chunk := file.read(CHUNK_BYTES):
            yield chunk

    if beginning.startswith(GZIP):
        return decompressed_pieces(chunks(), MAX_STREAM_BYTES)
    return chunks()


class ByteStream:
    """Reads given numbers of bytes from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.rest = memoryview(b"")

    def chunks(self, count: int) -> Iterator[memoryview]:
        """Yields the next bytes without concatenating them.

        Raises:
            ValueError: when there are fewer.
        """
        while count > 0:
            if not self.rest:
                self.rest = memoryview(next(self.pieces, b""))
            if not self.rest:
                raise ValueError("it is truncated")
            chunk, self.rest = self.rest[:count], self.rest[count:]
            count -= len(chunk)
            yield chunk

    def read(self, count: int) -> bytes:
        """Returns the next bytes; empty at the end of the stream."""
        if not self.rest:
            self.rest = memoryview(next(self.pieces, b""))
        return b"".join(self.chunks(count)) if self.rest else b""

    def skip(self, count: int) -> None:
        """Skips the next bytes."""
        for _ in self.chunks(count):
            pass


def unpack_members(
    stream: ByteStream, folder: Path, names: Collection[str], max_bytes: int
) -> None:
    """Unpacks the files with given names from an uncompressed archive.

    Raises:
        ValueError: when the archive is refused, see `unpack`.
        tarfile.HeaderError: when a header is corrupt.
    """
    folders: dict[PurePosixPath, Path] = {}
    for member in members(stream):
        path = PurePosixPath(member.name)
        if path.name not in names:
            stream.skip(stored_bytes(member))
            continue
        name = printable(member.name)
        if member.isdir():
            continue
        if member.type not in REGULAR:
            raise ValueError(f"{name} in it is a link or another special file, not a regular file")
        if member.size > max_bytes:
            raise ValueError(
                f"the size of {name} in it is {member.size:,} bytes, expected at most {max_bytes:,}"
            )
        target = folders.setdefault(path.parent, folder / str(len(folders)))
        target.mkdir(exist_ok=True)
        if (target / path.name).exists():
            raise ValueError(f"it contains {name} twice")
        with (target / path.name).open("xb") as file:
            for chunk in stream.chunks(member.size):
                file.write(chunk)
        stream.skip(padding(member.size))


def members(stream: ByteStream) -> Iterator[tarfile.TarInfo]:
    """Yields the header of each member; the caller reads or skips its content.

    Raises:
        ValueError: when there are too many members, or one is sparse.
        tarfile.HeaderError: when a header is corrupt.
    """
    long_name = ""
    for _ in range(MAX_MEMBERS):
        block = stream.read(BLOCK_BYTES)
        if not block.strip(b"\0"):  # the end marker, or the end of the stream
            return
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.size < 0:
            raise ValueError("it is corrupt: the size of a file in it is negative")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError(f"{printable(member.name)} in it is sparse: pack it without --sparse")
        if member.type in METADATA:
            long_name = name_in(member, stream) or long_name
            continue
        member.name, long_name = long_name or member.name, ""
        yield member
    raise ValueError(f"it contains more than {MAX_MEMBERS:,} files")


def name_in(member: tarfile.TarInfo, stream: ByteStream) -> str:
    """Returns the long name of the next member from a metadata member; empty without one."""
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
    """Returns the number of bytes after the header of a member: 0 for links and folders."""
    is_empty = member.type in tarfile.SUPPORTED_TYPES and not member.isreg()
    return 0 if is_empty and member.type not in METADATA else member.size + padding(member.size)


def padding(size: int) -> int:
    """Returns the number of zero bytes that fill the last block of a file of a given size."""
    return -size % BLOCK_BYTES
