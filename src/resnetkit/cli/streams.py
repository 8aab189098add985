"""stdout and stderr, which may be closed or full, and interruptions."""

import _thread
import codecs
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOBase, TextIOWrapper
from types import FrameType
from typing import Any, TextIO

from resnetkit.untrusted import printable

__all__ = ["LastingStream", "drop_stdout", "interruptions", "open_streams"]


class LastingStream(TextIOBase):
    """A stream for messages that outlasts its reader: what cannot be written is dropped.

    A training must not end because nobody reads its messages: the reader of a pipe may leave, a
    terminal may be closed, a disk may be full.

    Args:
        stream: receives the messages as long as it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_lost = False

    def write(self, text: str) -> int:
        self.attempt(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        self.attempt(self.stream.flush)

    def attempt(self, action: Any) -> None:
        """Uses the stream, unless that failed before."""
        if self.is_lost:
            return
        try:
            action()
        except (OSError, ValueError):  # ValueError: it was closed
            self.is_lost = True
            with suppress(OSError, ValueError):  # buffers can still be flushed
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def isatty(self) -> bool:
        with suppress(ValueError):
            return not self.is_lost and self.stream.isatty()
        return False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors


def drop_stdout() -> None:
    """Discards what is still written to stdout, since its reader has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def open_streams() -> Iterator[None]:
    """Prepares stdout and stderr for names that are not valid text, and for readers that leave.

    A stream that was closed before the process started is replaced by /dev/null.
    """
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        for name, redirect in (("stdout", redirect_stdout), ("stderr", redirect_stderr)):
            stream = getattr(sys, name)
            if stream is None:
                stack.enter_context(redirect(nowhere))
            elif isinstance(stream, TextIOWrapper):  # a file name may not be valid text
                stream.reconfigure(encoding=encoding_of(stream), errors="backslashreplace")
        stack.enter_context(redirect_stderr(LastingStream(sys.stderr)))
        stack.enter_context(log_to_stderr())
        yield


def encoding_of(stream: TextIOWrapper) -> str:
    """Returns the encoding of a stream: UTF-8 where only the C locale makes it ASCII.

    The C locale of cron and containers says nothing about the reader; Python treats it as UTF-8 as
    well (PEP 540), unless that is turned off.
    """
    is_ascii = codecs.lookup(stream.encoding).name == "ascii"
    return "utf-8" if is_ascii and "PYTHONIOENCODING" not in os.environ else stream.encoding


class PrintableFormatter(logging.Formatter):
    """Formats log messages so that names in them cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Prints the warnings of this library to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter())
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("resnetkit")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


SECONDS_TO_LEAVE = 3.0  # between an interruption and the next attempt


class Interruptions:
    """Whether SIGINT was received, and whether the command has ended since."""

    def __init__(self) -> None:
        self.has_come = False
        self.is_over = False

    def __bool__(self) -> bool:
        return self.has_come

    def note(self, number: int, frame: FrameType | None) -> None:
        """Raises KeyboardInterrupt, as Python's own handler of SIGINT does."""
        self.has_come = True
        timer = threading.Timer(SECONDS_TO_LEAVE, self.insist)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    def insist(self) -> None:
        """Interrupts again when a library has swallowed the exception, as some imports do."""
        if not self.is_over:
            _thread.interrupt_main(signal.SIGINT)


@contextmanager
def interruptions() -> Iterator[Interruptions]:
    """Records SIGINT while a command runs.

    This distinguishes an interruption from the errors that libraries turn it into, such as a
    compiler that failed or a module that could not be imported.
    """
    noted = Interruptions()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, noted.note)
    try:
        yield noted
    finally:
        noted.is_over = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
