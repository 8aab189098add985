"""A file by which the trainings of a study know that the process that started them still runs."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import getpid
from pathlib import Path
from signal import SIGTERM
from uuid import uuid4

from resnetkit.storage import storage_errors
from resnetkit.training.signals import StopRequest

__all__ = ["beating", "end_others", "watched"]

PREFIX = ".alive-"
BEAT_SECONDS = 2.0
LOST_SECONDS = 30.0  # without a beat: the process was killed, or its machine is gone
LOST: set[Path] = set()  # heartbeats that ended: what waits in this process does not begin either
FORGOTTEN_SECONDS = 86_400.0  # after which the file of a killed process is removed


@contextmanager
def beating(folder: Path) -> Iterator[Path]:
    """Writes a heartbeat file below a folder for as long as the block lasts, and removes it.

    Raises:
        StorageError: when the folder cannot be written.
    """
    path = folder / f"{PREFIX}{socket.gethostname()}-{getpid()}-{uuid4().hex[:8]}"
    with storage_errors(path, "Choose another folder with --out."):
        folder.mkdir(parents=True, exist_ok=True)
        remove_forgotten(folder)
        path.write_text("0", encoding="utf-8")
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.wait(BEAT_SECONDS):
            count += 1
            with suppress(OSError):  # a full disk: the trainings stop, and lose nothing
                path.write_text(str(count), encoding="utf-8")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def end_others(folder: Path) -> None:
    """Ends what works for processes that were killed, for the process that has locked a folder."""
    for path in folder.glob(f"{PREFIX}*"):
        path.unlink(missing_ok=True)


def remove_forgotten(folder: Path) -> None:
    """Removes the files of processes that were killed long ago."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink()


@contextmanager
def watched(path: Path | None) -> Iterator[StopRequest]:
    """Yields a request to stop that is made when a heartbeat ends: about half a minute later.

    The file is read, not dated: clocks of machines differ, and network file systems answer dates
    from memory. Looks are counted, not seconds: a job that was suspended (Ctrl-Z) continues.

    Args:
        path: of the heartbeat; None for a process that nothing watches over.
    """
    request = StopRequest()
    if path is None or path in LOST:
        request.signal_number = 0 if path is None else SIGTERM
        yield request
        return
    ended = threading.Event()

    def watch() -> None:
        last, unchanged = "", 0
        while not ended.wait(BEAT_SECONDS):
            try:
                count = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                break
            except OSError:
                count = last
            unchanged = unchanged + 1 if count == last else 0
            last = count
            if unchanged * BEAT_SECONDS > LOST_SECONDS:
                break
        if not ended.is_set():
            LOST.add(path)
            request.signal_number = SIGTERM

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield request
    finally:
        ended.set()
        thread.join()
