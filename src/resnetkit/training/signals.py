"""Requests to stop: the signal is recorded, and the loop stops where nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "caught_signals", "ending_signals"]

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
"""Signals by which people, terminals and schedulers end a process; Windows lacks most of them."""


class StopRequest:
    """The signal that asked the training to stop, if any.

    Attributes:
        signal_number: 0 until a signal arrives.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    def __bool__(self) -> bool:
        return self.signal_number != 0


def ending_signals() -> list[signal.Signals]:
    """Returns the signals that end this process: all of `ENDING` that the system has.

    SIGHUP is left out where it is ignored: `nohup` lets a process survive its terminal. SIGINT is
    not: shells let processes in the background ignore it, and who sends it means it.
    """
    numbers = [signal.Signals[name] for name in ENDING if hasattr(signal, name)]
    return [number for number in numbers if number.name != "SIGHUP" or not is_ignored(number)]


def is_ignored(number: signal.Signals) -> bool:
    """Returns whether this process was told to ignore a signal."""
    return signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def caught_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Records the first signal that would end the process; a second one ends it as usual.

    Only a main thread can catch signals; elsewhere nothing changes.

    Args:
        request: in which the signal is recorded; a new one by default.
    """
    request = StopRequest() if request is None else request
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in ending_signals()}

    def record(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for number in before:
        signal.signal(number, record)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
