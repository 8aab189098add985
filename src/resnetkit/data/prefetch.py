"""Prefetching: threads compute a bounded number of results ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from resnetkit.runtime.resources import usable_processors

__all__ = ["BATCHES_AHEAD", "prefetch"]

BATCHES_AHEAD = 2  # batches of image files that are decoded before a network needs them

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
        function: it should release the global interpreter lock, as Pillow does.
        items: consumed lazily, so that there may be any number of them.
        most: the largest number of items that are submitted ahead.
        threads: number of threads; by default one per processor that this process may use.
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
