"""Writing files so that a crash, a full disk or a kill never leaves a half-written one in place."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resnetkit.errors import StorageError

__all__ = ["replaced_folder", "storage_errors", "write_file", "write_synced"]

TEMPORARY_PREFIX = ".writing-"


@contextmanager
def storage_errors(path: Path, advice: str | Callable[[], str]) -> Iterator[None]:
    """Turns the operating system's refusals into sentences.

    Args:
        path: what is being written.
        advice: what is safe, and how to go on; called when writing fails if that changes.

    Raises:
        StorageError: when the disk is full, the folder may not be written, or anything else fails.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file would be larger than this system allows",
            errno.EACCES: "there is no permission to write there",
            errno.EPERM: "there is no permission to write there",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a part of the path is a file, not a folder",
            errno.EEXIST: "a file of that name is in the way",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        words = advice if isinstance(advice, str) else advice()
        raise StorageError(f"cannot write {path}: {reason}. {words}") from error


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: Path, content: str | bytes) -> None:
    """Puts a whole file in place at once: readers see the old one or the new one, never a part."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    try:
        write_synced(temporary, content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that becomes `path` at once when the block ends well."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_folder(temporary)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
