"""Reading a request: its parameters and its body, within limits."""

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from resnetkit.errors import did_you_mean
from resnetkit.serving.batcher import expired
from resnetkit.serving.bodies import Body
from resnetkit.serving.limits import Refusal
from resnetkit.serving.service import Service

__all__ = ["check_raw", "deadline_of", "query", "received", "unless_disconnected", "whole"]

MOST_DIGITS = 9
NOT_RAW = ("multipart/", "application/json")

Result = TypeVar("Result")


def query(request: Request, names: Sequence[str]) -> Mapping[str, str]:
    """Returns the parameters in the address of a request.

    Raises:
        Refusal: for an unknown parameter, or one that occurs twice.
    """
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            expected = ", ".join(names) or "none"
            raise Refusal(
                400,
                f"unknown parameter '{name[:100]}': expected {expected}."
                + did_you_mean(name[:100], names),
            )
        if name in values:
            raise Refusal(400, f"the parameter '{name}' occurs twice.")
        values[name] = value
    return values


def whole(values: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    """Returns a parameter that is a whole number.

    Raises:
        Refusal: when it is not, or less than `least`.
    """
    text = values.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise Refusal(400, f"{name}={text[:100]}: expected a whole number.")
    if int(text) < least:
        raise Refusal(400, f"{name}={text}: expected at least {least}.")
    return int(text)


def deadline_of(service: Service, seconds: float | str | None = None) -> float:
    """Returns the time on the clock `monotonic` when a request must be answered.

    Args:
        service: whose limit holds.
        seconds: that the client waits, if it says so.

    Raises:
        Refusal: when they are not a positive number.
    """
    most = service.limits.answer_seconds
    try:
        wanted = most if seconds is None else float(seconds)
    except ValueError:
        wanted = math.nan
    if not wanted > 0:
        raise Refusal(400, f"timeout={str(seconds)[:100]}: expected a positive number of seconds.")
    return monotonic() + min(wanted, most)


def check_raw(request: Request) -> None:
    """Raises Refusal when the body is not said to be an image alone."""
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(NOT_RAW):
        raise Refusal(
            415,
            f"the body is {kind[:100]}: expected the image alone, as sent by"
            " 'curl --data-binary @photo.jpg'.",
        )


@asynccontextmanager
async def received(request: Request, service: Service) -> AsyncIterator[bytes]:
    """Yields the body of a request, whose bytes count as in flight during the block.

    Raises:
        Refusal: when it is empty, too slow, or more than all requests may have in flight.
        ClientDisconnect: when the client leaves.
    """
    body = Body(asyncio.timeout(service.limits.receive_seconds))
    try:
        await receive(request, service, body)
        content = b"".join(body.chunks)
        body.chunks.clear()  # otherwise all bytes would be kept twice
        yield content
    finally:
        service.bodies.release(body)


async def receive(request: Request, service: Service, body: Body) -> None:
    """Receives the chunks of a body.

    Raises:
        Refusal: as for `received`.
        ClientDisconnect: likewise.
    """
    try:
        async with body.deadline:
            service.bodies.begin(body)
            try:
                async for chunk in request.stream():
                    service.bodies.add(body, chunk)
            finally:
                service.bodies.end(body)
    except TimeoutError:
        if not body.was_dropped:
            raise Refusal(
                408,
                f"the body was not received within {service.limits.receive_seconds:.0f} s.",
                {"Connection": "close"},
            ) from None
    if body.was_dropped:
        service.metrics.refused.labels("bytes").inc()
        raise Refusal(
            503,
            "the server receives too much at once. Try again later.",
            {"Retry-After": "1", "Connection": "close"},
        )
    if not body.count:
        raise Refusal(400, "the body is empty.")


async def unless_disconnected(
    request: Request,
    service: Service,
    work: "Coroutine[Any, Any, Result] | asyncio.Future[Result]",
    deadline: float,
) -> Result:
    """Returns the result of some work, which is cancelled when nobody waits for it any longer.

    Raises:
        ClientDisconnect: when the client leaves.
        Refusal: when the deadline passes.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(disconnected(request))
    leaving.add_done_callback(lambda _: task.cancel())
    try:
        async with asyncio.timeout(max(0.0, deadline - monotonic())):
            return await task
    except TimeoutError:
        service.metrics.refused.labels("deadline").inc()
        raise expired() from None
    except asyncio.CancelledError:
        if not leaving.done():
            raise
        service.metrics.abandoned.inc()
        raise ClientDisconnect from None
    finally:
        task.cancel()
        leaving.cancel()


async def disconnected(request: Request) -> None:
    """Waits until the client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
