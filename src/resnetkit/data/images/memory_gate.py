"""Limits the memory that images take while several threads decode."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MemoryGate"]

SMALL = 64  # a small image takes at most this part of the limit: 8 MiB of 512


class MemoryGate:
    """Lets threads decode images concurrently as long as all of them fit into memory.

    Args:
        limit: bytes of all images together; a larger image waits until it is the only one. Small
            images do not count and never wait, so that a large one cannot hold them up, nor they
            the large one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self.changed = threading.Condition()

    @contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Waits until this number of bytes is free, and reserves them during the block."""
        if count * SMALL <= self.limit:
            yield
            return
        with self.changed:
            self.changed.wait_for(lambda: not self.reserved or self.reserved + count <= self.limit)
            self.reserved += count
        try:
            yield
        finally:
            with self.changed:
                self.reserved -= count
                self.changed.notify_all()
