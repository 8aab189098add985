"""Writing files so that a crash, a full disk or a kill never leaves a half-written one in place."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnetkit.errors import StorageError

__all__ = [
    "TEMPORARY_PREFIX",
    "remove_leftovers",
    "replaced_folder",
    "storage_errors",
    "write_file",
    "write_synced",
]

TEMPORARY_PREFIX = ".writing-"
PUT_TRIES = 100  # each lost to another process that put its folder there first


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
    temporary = temporary_for(path)
    try:
        write_synced(temporary, content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_for(path: Path) -> Path:
    """Returns a path next to `path` that no other process writes to at the same time."""
    beginning = path.name[:50]  # for people; whole names may be as long as names can be
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{beginning}")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes had not finished writing; for the only one that writes here."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove(leftover)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that becomes `path` at once when the block ends well.

    Of two processes that do this at the same time, the one that ends last wins.
    """
    temporary = temporary_for(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_folder(temporary)
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def put_in_place(temporary: Path, path: Path) -> None:
    """Renames a folder to `path`; what is there already is set aside first and then removed."""
    for _ in range(PUT_TRIES):
        try:
            temporary.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = temporary_for(path)
        with suppress(FileNotFoundError):  # another process may have set it aside
            path.rename(aside)
        remove(aside)
    temporary.rename(path)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
