"""Requests to stop: the signal is recorded, and the loop stops where nothing is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "caught_signals"]


class StopRequest:
    """The signal that asked the training to stop, if any.

    Attributes:
        signal_number: 0 until a signal arrives.
    """

    def __init__(self) -> None:
        self.signal_number = 0

    def __bool__(self) -> bool:
        return self.signal_number != 0


@contextmanager
def caught_signals() -> Iterator[StopRequest]:
    """Records the first SIGINT or SIGTERM; a second one ends the process as usual.

    Only a main thread can catch signals; elsewhere nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def record(number: int, _: FrameType | None) -> None:
        request.signal_number = number
        for caught, handler in before.items():
            signal.signal(caught, handler)

    for number in numbers:
        signal.signal(number, record)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
