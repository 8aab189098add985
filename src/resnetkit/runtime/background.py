"""Work in a thread that may be left alone."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

__all__ = ["in_background"]

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> Future[T]:
    """Calls a function in a thread for which the process does not wait when it ends."""
    result: Future[T] = Future()

    def fill() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    Thread(target=fill, daemon=True).start()
    return result
