"""Atomic writes: a crash, a full disk or a kill never leaves a half-written file or folder."""

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from resnetkit.errors import StorageError

if TYPE_CHECKING:
    import filelock

__all__ = [
    "NO_LOCKS",
    "TEMPORARY_PREFIX",
    "cache_folder",
    "check_file",
    "check_folder",
    "exclusive",
    "new_folder",
    "path_in_home",
    "remove_leftovers",
    "replaced_folder",
    "sorted_safetensors",
    "storage_errors",
    "temporary_for",
    "write_file",
    "write_synced",
]

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".writing-"
RENAME_ATTEMPTS = 100  # another process may put its folder in place first, each time
QUIET_SECONDS = 0.5  # spent waiting for a lock before the user is told
MAX_WAIT_HOURS = 6  # for a lock that another process holds
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems without locks


@contextmanager
def storage_errors(path: Path, advice: str | Callable[[], str]) -> Iterator[None]:
    """Turns an `OSError` raised in the block into a `StorageError` with a readable message.

    Args:
        path: the file or folder that is written.
        advice: what to do next, and what is safe; a function is called only if writing fails.

    Raises:
        StorageError: when the disk is full, the folder is not writable, or writing fails otherwise.
    """
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EFBIG: "the file would be larger than this system allows",
            errno.EACCES: "permission denied",
            errno.EPERM: "permission denied",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a parent of this path is a file, not a folder",
            errno.EEXIST: "a file with this name already exists",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        next_step = advice if isinstance(advice, str) else advice()
        raise StorageError(f"cannot write {path}: {reason}. {next_step}") from error


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file and flushes it to disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: readers see the old content or the new, never part of it."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = temporary_for(path)
    try:
        write_synced(temporary, as_bytes(content))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_file(path: Path, advice: str) -> None:
    """Checks that a file can be written, before the work whose results it will hold.

    Args:
        path: of the file; its folder is created if it does not exist.
        advice: what to do next if it cannot be written.

    Raises:
        StorageError: when it cannot.
    """
    with storage_errors(path, advice):
        try_writing(path.parent)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def check_folder(folder: Path, advice: str) -> None:
    """Checks that files can be written into a folder, as `check_file` does."""
    with storage_errors(folder, advice):
        try_writing(folder)


def try_writing(folder: Path) -> None:
    """Writes a file into a folder, which is created if needed, and removes it."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(folder / "check")
    try:
        write_synced(temporary, b"0")  # an empty file would fit on a full disk
    finally:
        temporary.unlink(missing_ok=True)


def temporary_for(path: Path) -> Path:
    """Returns a unique temporary path in the folder of `path`."""
    stem = path.name[:50]  # the whole name may already have the maximum length
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{stem}")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Removes the temporary files of killed processes; no other process may be writing them.

    Args:
        folder: that contains them.
        name: end of the names of the files or folders they were to become; by default all.
    """
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*{name}"):
        remove(leftover)


def remove(path: Path) -> None:
    """Removes a file, or a folder with its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def as_bytes(content: str | bytes) -> bytes:
    """Returns text as UTF-8; what cannot be encoded, such as parts of file names, is escaped."""
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


def sorted_safetensors(content: bytes) -> list[bytes | memoryview]:
    """Returns the content of a safetensors file, in pieces, with its metadata sorted.

    The library writes metadata in an order that changes from call to call; equal files need one.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return [len(text).to_bytes(8, "little"), text, memoryview(content)[end:]]


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that atomically becomes `path` if the block succeeds.

    If two processes write the same folder at the same time, the last one wins.
    """
    with temporary_folder(path, rename_over) as temporary:
        yield temporary


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that atomically becomes `path` if the block succeeds.

    If two processes write the same folder at the same time, the first one wins.

    Raises:
        StorageError: when `path` exists at the end of the block.
    """
    with temporary_folder(path, rename_to_new) as temporary:
        yield temporary


@contextmanager
def temporary_folder(path: Path, rename: Callable[[Path, Path], None]) -> Iterator[Path]:
    """Yields an empty temporary folder that is renamed to `path` if the block succeeds."""
    temporary = temporary_for(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_folder(temporary)
        rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def rename_to_new(temporary: Path, path: Path) -> None:
    """Renames a folder to `path`, which must not exist.

    Raises:
        StorageError: when it does, for example because another process has created it.
    """
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise StorageError(f"{path} already exists: choose another path.") from error


def rename_over(temporary: Path, path: Path) -> None:
    """Renames a folder to `path`; an existing one is moved aside first and then removed."""
    for _ in range(RENAME_ATTEMPTS):
        try:
            temporary.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = temporary_for(path)
        with suppress(FileNotFoundError):  # another process may have moved it aside
            path.rename(aside)
        remove(aside)
    temporary.rename(path)


@contextmanager
def exclusive(lock: Path, *, waiting: str, advice: str) -> Iterator[bool]:
    """Acquires a lock, waiting for other processes and threads, and holds it during the block.

    Args:
        lock: the lock file; it is created if needed and never removed.
        waiting: what to tell the user while another process holds the lock.
        advice: what to do next if the file cannot be written.

    Yields:
        Whether the lock is held: False on a file system without locks, where unique temporary names
        have to suffice.

    Raises:
        StorageError: when the file cannot be written, or another process holds the lock for hours.
    """
    import filelock  # here, because few commands need it

    lock_file = filelock.FileLock(lock, fallback_to_soft=False)
    held = True
    with storage_errors(lock, advice):
        try:
            acquire(lock_file, lock, waiting)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = False
    try:
        yield held
    finally:
        if held:
            lock_file.release()


def acquire(lock_file: "filelock.BaseFileLock", lock: Path, waiting: str) -> None:
    """Acquires a lock, and logs a warning if that takes longer than a moment.

    Raises:
        StorageError: when another process holds it for hours.
    """
    import filelock

    try:
        lock_file.acquire(timeout=QUIET_SECONDS)
        return
    except filelock.Timeout:
        logger.warning(waiting)
    try:
        lock_file.acquire(timeout=MAX_WAIT_HOURS * 3600)
    except filelock.Timeout:
        raise StorageError(
            f"another process has held {lock} for {MAX_WAIT_HOURS} hours: stop it and try again."
        ) from None


def cache_folder() -> Path:
    """Returns the cache folder: RESNETKIT_CACHE, or a folder in the XDG cache folder.

    Raises:
        StorageError: when neither is set and this user has no home folder.
    """
    xdg_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("RESNETKIT_CACHE") or f"{xdg_cache}/resnetkit"
    return path_in_home(folder, "RESNETKIT_CACHE")


def path_in_home(path: str, variable: str) -> Path:
    """Returns a path with ~ expanded to the user's home folder.

    Args:
        path: a path that may begin with ~.
        variable: the environment variable that sets another folder, for the error message.

    Raises:
        StorageError: when the path begins with ~ and this user has no home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise StorageError(
            f"{path} cannot be resolved: this user has no home folder. Set {variable} to a writable"
            " folder."
        )
    return Path(expanded)


def sync_folder(folder: Path) -> None:
    """Flushes the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
