"""Writing files so that a crash, a full disk or a kill never leaves a half-written one in place."""

import errno
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
    "TEMPORARY_PREFIX",
    "exclusive",
    "new_folder",
    "path_in_home",
    "remove_leftovers",
    "replaced_folder",
    "storage_errors",
    "temporary_for",
    "write_file",
    "write_synced",
]

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".writing-"
PUT_TRIES = 100  # each lost to another process that put its folder there first
QUIET_SECONDS = 0.5  # that a process waits for a lock before it says so
MAX_WAIT_HOURS = 6  # for another process that holds a lock
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # how file systems say that they know none


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
        write_synced(temporary, as_bytes(content))
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


def as_bytes(content: str | bytes) -> bytes:
    """Returns text in UTF-8; what of it is no text, as in the name of a file, is escaped."""
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that becomes `path` at once when the block ends well.

    Of two processes that do this at the same time, the one that ends last wins.
    """
    with placed_folder(path, put_in_place) as temporary:
        yield temporary


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder that becomes `path` at once when the block ends well.

    Of two processes that do this at the same time, the one that ends first wins.

    Raises:
        StorageError: when there is something at `path` by then.
    """
    with placed_folder(path, put_where_nothing_is) as temporary:
        yield temporary


@contextmanager
def placed_folder(path: Path, put: Callable[[Path, Path], None]) -> Iterator[Path]:
    """Yields an empty temporary folder that is put to `path` when the block ends well."""
    temporary = temporary_for(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_folder(temporary)
        put(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def put_where_nothing_is(temporary: Path, path: Path) -> None:
    """Renames a folder to `path`, which another process may have made meanwhile.

    Raises:
        StorageError: when one has.
    """
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise StorageError(
            f"there is something at {path} already: choose another place."
        ) from error


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


@contextmanager
def exclusive(lock: Path, *, waiting: str, advice: str) -> Iterator[bool]:
    """Waits until no other process or thread holds a lock, and holds it.

    Args:
        lock: a file, made where there is none, and left there.
        waiting: what to tell the user when another one holds it.
        advice: how to go on when the file cannot be written.

    Yields:
        Whether the lock is held: not on a file system that knows no locks, where unique temporary
        names must do.

    Raises:
        StorageError: when the file cannot be written, or another one holds the lock for hours.
    """
    import filelock  # here, so that commands that lock nothing start without it

    lock_file = filelock.FileLock(lock)
    held = True
    with storage_errors(lock, advice):
        try:
            acquire(lock_file, lock, waiting)
        except NotImplementedError:  # in versions of filelock before 3.19
            held = False
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
    """Acquires a lock, and tells the user when that takes long.

    Raises:
        StorageError: when it takes hours.
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
            f"another process has held {lock} for {MAX_WAIT_HOURS} hours: end it and try again."
        ) from None


def path_in_home(path: str, variable: str) -> Path:
    """Returns a path in which ~ stands for the user's home.

    Args:
        path: which may begin with ~.
        variable: of the environment, by which a user without a home names another folder.

    Raises:
        StorageError: when it begins with ~, and this user has no home.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise StorageError(
            f"the folder {path} is not known, since this user has no home folder: set {variable} to"
            " a folder that can be written."
        )
    return Path(expanded)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
