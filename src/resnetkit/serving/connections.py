"""Connections: deadlines and limits that uvicorn does not have.

uvicorn waits forever for the rest of a request, and for a client that does not read its response.
A `watch` closes such connections. The number of connections is limited: when it is reached, the one
that has been idle or incomplete for the longest time gives way, so that slow clients cannot keep
others out.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from resnetkit.serving.limits import Limits
from resnetkit.serving.metrics import Metrics

__all__ = ["Connection", "protocol_class", "watched"]

SWEEP_SECONDS = 0.5
GRACE_SECONDS = 2.0  # after the deadline of the application
READ_BYTES = 2**17  # at once: a large piece would hold up other connections while it is parsed


NOT_HTTP = "the request is not HTTP/1.1."
SENTENCES = {
    431: "the head of the request is too large.",
    411: "the body is sent in chunks: send it at once, with Content-Length.",
}


class Parser(h11.Connection):
    """Parses requests, and refuses bodies without a length.

    Each chunk of `Transfer-Encoding: chunked` costs the parser more than it costs the client to
    send it, so that bodies in chunks of a byte would occupy the server.

    Attributes:
        status: of the response to a request that could not be parsed.
    """

    status = 400

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            if isinstance(event, h11.Request) and is_chunked(event):
                raise h11.RemoteProtocolError("a body in chunks", error_status_hint=411)
        except h11.RemoteProtocolError as error:
            self.status = error.error_status_hint
            raise
        return event


def is_chunked(request: h11.Request) -> bool:
    """Returns whether the body of a request has no length."""
    return any(name.lower() == b"transfer-encoding" for name, _ in request.headers)


class Connection(H11Protocol):
    """A connection with deadlines.

    Attributes:
        limits: of connections.
        metrics: count what is closed.
        since: when the request that is being received began, or this connection became idle; None
            while a complete request is answered.
    """

    limits: Limits
    metrics: Metrics
    since: float | None = None
    is_idle = True
    blocked_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.conn = Parser(h11.SERVER, self.config.h11_max_incomplete_event_size or 2**14)
        self.since = monotonic()
        is_full = len(self.connections) >= self.limits.connections
        has_room = not is_full or make_room(cast("set[Connection]", self.connections))
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES  # of transports of asyncio
        if not has_room:
            self.metrics.dropped_connections.inc()
            self.refuse(503, "the server has too many connections. Try again later.")

    def data_received(self, data: bytes) -> None:
        if self.is_idle:
            self.is_idle, self.since = False, monotonic()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self.since, self.is_idle = None, False
        elif self.since is None:
            self.since, self.is_idle = monotonic(), not self.conn.trailing_data[0]

    def send_400_response(self, msg: str) -> None:
        """Refuses a request that cannot be parsed."""
        status = cast(Parser, self.conn).status
        self.refuse(status, SENTENCES.get(status, NOT_HTTP))

    def refuse(self, status: int, message: str) -> None:
        """Sends an error and closes the connection; closes it at once inside a response."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = json.dumps({"error": message}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *([(b"retry-after", b"1")] if status == 503 else ()),
        ]
        self.transport.write(
            (self.conn.send(h11.Response(status_code=status, headers=headers)) or b"")
            + (self.conn.send(h11.Data(data=body)) or b"")
            + (self.conn.send(h11.EndOfMessage()) or b"")
        )
        self.transport.close()

    def sweep(self, now: float) -> None:
        """Closes this connection when a deadline has passed."""
        allowed = self.limits.receive_seconds
        is_blocked = self.transport.is_closing() or self.transport.get_write_buffer_size() > 0
        self.blocked_since = (self.blocked_since or now) if is_blocked else None
        if self.blocked_since is not None and now - self.blocked_since > allowed:
            self.drop()
        elif self.since is None or self.transport.is_closing() or self.is_kept_alive:
            return
        elif self.conn.their_state is not h11.IDLE:  # the application refuses a slow body itself
            if now - self.since > allowed + GRACE_SECONDS:  # unless the head was slow as well
                self.metrics.dropped_connections.inc()
                self.cycle.disconnected = True
                self.refuse(408, f"the request was not received within {allowed:.0f} s.")
        elif now - self.since > allowed:
            self.metrics.dropped_connections.inc()
            if self.conn.trailing_data[0]:
                self.refuse(408, f"the request was not received within {allowed:.0f} s.")
            else:
                self.transport.close()

    @property
    def is_kept_alive(self) -> bool:
        """Returns whether it waits for another request, for which uvicorn has a deadline."""
        return self.is_idle and self.timeout_keep_alive_task is not None

    def drop(self) -> None:
        """Closes this connection without a response."""
        self.metrics.dropped_connections.inc()
        self.transport.abort()


def make_room(connections: "set[Connection]") -> bool:
    """Closes the connection that has been idle or incomplete for the longest time.

    Returns:
        False when there is none: all are answered.
    """
    waiting = {
        connection: connection.since
        for connection in connections
        if connection.since is not None and not connection.transport.is_closing()
    }
    if waiting:
        min(waiting, key=lambda connection: waiting[connection]).drop()
    return bool(waiting)


def protocol_class(limits: Limits, metrics: Metrics) -> type[Connection]:
    """Returns the class of connections with these limits."""
    return type("Connection", (Connection,), {"limits": limits, "metrics": metrics})


@contextmanager
def watched(connections: "set[Connection]") -> Iterator[None]:
    """Sweeps connections while the block runs in an event loop."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = monotonic()
            for connection in list(connections):
                connection.sweep(now)

    task = asyncio.ensure_future(sweep())
    try:
        yield
    finally:
        task.cancel()
