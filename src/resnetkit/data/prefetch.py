"""Work done ahead of its use: threads compute what is asked for next, and no more than that."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from resnetkit.runtime.resources import usable_processors

__all__ = ["prefetch"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    most: int,
    threads: int | None = None,
) -> Iterator[tuple[Item, "Future[Result]"]]:
    """Yields each item, in order, with the future of function(item).

    Args:
        function: what is computed; it should leave Python's lock to others, as Pillow does.
        items: taken one by one, so that there may be any number of them.
        most: how many are begun before the first of them is asked for.
        threads: that compute; by default one for each processor this process may use.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads or usable_processors(), thread_name_prefix="prefetch") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > most:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
