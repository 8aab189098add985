"""Bodies of requests, which share a limit of bytes."""

import asyncio
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from resnetkit.serving.bodies import Bodies
from resnetkit.serving.limits import Limits, Refusal
from resnetkit.serving.metrics import Metrics
from resnetkit.serving.requests import received


class Sender:
    """A request whose chunks arrive when the test says so."""

    def __init__(self, service: Any, *chunks: bytes) -> None:
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        for chunk in chunks:
            self.chunks.put_nowait(chunk)
        self.is_answered = asyncio.Event()
        self.task = asyncio.ensure_future(self._receive(service))

    async def stream(self) -> AsyncIterator[bytes]:
        while (chunk := await self.chunks.get()) is not None:
            yield chunk

    async def _receive(self, service: Any) -> bytes:
        async with received(self, service) as content:  # type: ignore[arg-type]
            await self.is_answered.wait()
            return content

    def complete(self) -> None:
        self.chunks.put_nowait(None)


def service_of(limit: int) -> Any:
    return SimpleNamespace(limits=Limits(), bodies=Bodies(limit), metrics=Metrics())


async def settled() -> None:
    """Lets all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_body_that_is_incomplete_for_longest_gives_way() -> None:
    async def scenario() -> None:
        service = service_of(100)
        answered = Sender(service, b"a" * 40)
        answered.complete()
        await settled()
        old, new = Sender(service, b"b" * 20), Sender(service, b"c" * 20)
        await settled()
        assert service.bodies.used == 80
        latest = Sender(service, b"d" * 30)
        await settled()
        assert service.bodies.used == 90
        with pytest.raises(Refusal, match="receives too much at once") as refusal:
            await old.task
        assert (refusal.value.status, refusal.value.headers["Connection"]) == (503, "close")
        for sender in (answered, new, latest):
            sender.complete()
            sender.is_answered.set()
            assert await sender.task
        assert service.bodies.used == 0

    asyncio.run(scenario())


def test_a_body_that_gave_way_is_not_continued() -> None:
    async def scenario() -> None:
        service = service_of(100)
        old = Sender(service, b"b" * 60)
        await settled()
        Sender(service, b"c" * 60)
        old.chunks.put_nowait(b"the end")  # in the same turn of the event loop
        old.complete()
        with pytest.raises(Refusal, match="receives too much at once"):
            await old.task
        assert service.bodies.used == 60

    asyncio.run(scenario())


def test_without_another_incomplete_body_the_new_one_is_refused() -> None:
    async def scenario() -> None:
        service = service_of(100)
        answered = Sender(service, b"a" * 90)
        answered.complete()
        await settled()
        new = Sender(service, b"b" * 20)
        with pytest.raises(Refusal, match="receives too much at once"):
            await new.task
        answered.is_answered.set()
        assert await answered.task == b"a" * 90

    asyncio.run(scenario())


def test_chunks_are_not_kept_beside_the_body() -> None:
    async def scenario() -> None:
        service = service_of(100)
        chunk = bytes(range(30))
        before = sys.getrefcount(chunk)
        sender = Sender(service, chunk, b"last")
        sender.complete()
        await settled()
        assert service.bodies.used == 34
        assert sys.getrefcount(chunk) == before
        sender.is_answered.set()
        assert await sender.task == chunk + b"last"

    asyncio.run(scenario())
