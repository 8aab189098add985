"""The bodies of requests, which share a limit of bytes."""

import asyncio
from dataclasses import dataclass, field

__all__ = ["Bodies", "Body"]


@dataclass(eq=False)
class Body:
    """The body of a request.

    Attributes:
        deadline: of receiving it.
        chunks: received so far.
        count: of its bytes that are in flight.
        was_dropped: whether it gave way to others.
    """

    deadline: asyncio.Timeout
    chunks: list[bytes] = field(default_factory=list)
    count: int = 0
    was_dropped: bool = False


class Bodies:
    """All bodies that are received or answered; the event loop alone changes them.

    When they have too many bytes, the incomplete body that has been received for the longest time
    gives way, so that slow clients cannot keep others out.

    Args:
        limit: bytes of all bodies together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._incomplete: dict[Body, None] = {}

    def begin(self, body: Body) -> None:
        """Begins to receive a body."""
        self._incomplete[body] = None

    def add(self, body: Body, chunk: bytes) -> None:
        """Adds a chunk to a body, unless it was dropped; others may have to give way."""
        while not body.was_dropped and self.used and self.used + len(chunk) > self.limit:
            self._drop(next(iter(self._incomplete)))
        if not body.was_dropped:
            self.used += len(chunk)
            body.count += len(chunk)
            body.chunks.append(chunk)

    def end(self, body: Body) -> None:
        """Notes that a body is complete, or given up; its bytes stay in flight."""
        self._incomplete.pop(body, None)

    def release(self, body: Body) -> None:
        """Returns the bytes of a body."""
        self.used -= body.count
        body.count = 0
        body.chunks.clear()

    def _drop(self, body: Body) -> None:
        """Lets an incomplete body give way: its deadline is now."""
        self.end(body)
        self.release(body)
        body.was_dropped = True
        if not body.deadline.expired():
            body.deadline.reschedule(0.0)
