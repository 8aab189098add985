"""Limits the memory that images take while several threads decode."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MemoryGate"]


class MemoryGate:
    """Lets threads decode images concurrently as long as all of them fit into memory.

    Args:
        limit: bytes of all images together; a larger image waits until it is the only one.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserved = 0
        self.changed = threading.Condition()

    @contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Waits until this number of bytes is free, and reserves them during the block."""
        with self.changed:
            self.changed.wait_for(lambda: not self.reserved or self.reserved + count <= self.limit)
            self.reserved += count
        try:
            yield
        finally:
            with self.changed:
                self.reserved -= count
                self.changed.notify_all()
