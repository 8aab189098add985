"""The engine thread: it computes what waits, as soon as it is free."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from resnetkit.errors import DataError, is_out_of_memory
from resnetkit.inference.engine import Pixels
from resnetkit.serving.limits import overloaded

__all__ = ["Batcher", "Computation", "Computed", "Work", "expired", "fail"]


@dataclass(eq=False)
class Computation:
    """A function of a batch; images of the same computation are computed together.

    Attributes:
        function: from pixels, uint8 (B, C, H, W), to one row for each image.
        largest_batch: it is halved when memory runs out.
    """

    function: Callable[[Pixels], Sequence[Any] | npt.NDArray[Any]]
    largest_batch: int


@dataclass(frozen=True, eq=False)
class Computed:
    """The row of an image.

    Attributes:
        values: the row.
        batch_size: images that were computed together.
        decode_seconds: of the image.
        wait_seconds: from decoded pixels to the start of the computation.
        compute_seconds: of the batch.
    """

    values: Any
    batch_size: int
    decode_seconds: float
    wait_seconds: float
    compute_seconds: float


@dataclass(frozen=True, eq=False)
class Work:
    """An image to be computed.

    Attributes:
        computation: of the image.
        pixels: uint8 (C, H, W).
        deadline: on the clock `monotonic`; later nobody waits for the result.
        result: receives the row; a cancelled one is not computed.
        decode_seconds: of the image; 0 for pixels that needed no decoding.
        arrival: on that clock.
    """

    computation: Computation
    pixels: Pixels
    deadline: float
    result: "Future[Computed]"
    decode_seconds: float = 0.0
    arrival: float = field(default_factory=monotonic)


class Batcher:
    """One thread that computes batches of what waits: there is no timer.

    A free engine starts at once, with one image if only one waits. What arrives meanwhile is the
    next batch, so that batches grow with the load.

    Args:
        observe: called after each batch with the computation, the number of images and the
            seconds.
    """

    def __init__(self, observe: Callable[[Computation, int, float], None]) -> None:
        self._observe = observe
        self._waiting: deque[Work] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Returns the number of images that wait."""
        return len(self._waiting)

    def submit(self, work: Work) -> None:
        """Adds an image to those that wait; any thread may call it."""
        with self._changed:
            if self._is_open:
                self._waiting.append(work)
                self._changed.notify()
                return
        fail(work.result, overloaded("the server is shutting down."))

    def close(self, timeout: float) -> None:
        """Refuses what waits, and waits for the batch that is being computed."""
        with self._changed:
            self._is_open = False
            abandoned = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for work in abandoned:
            fail(work.result, overloaded("the server is shutting down."))
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._next_batch():
            self._compute(batch)

    def _next_batch(self) -> list[Work]:
        """Waits for work; returns images of one computation, or none after `close`."""
        with self._changed:
            while self._is_open:
                if batch := self._take():
                    return batch
                self._changed.wait()
        return []

    def _take(self) -> list[Work]:
        """Removes the next batch from what waits: the first image and others like it."""
        batch: list[Work] = []
        others: list[Work] = []
        while self._waiting:
            work = self._waiting.popleft()
            computation = batch[0].computation if batch else work.computation
            if work.computation is not computation:
                others.append(work)
            elif is_wanted(work):
                batch.append(work)
                if len(batch) >= computation.largest_batch:
                    break
        self._waiting.extendleft(reversed(others))
        return batch

    def _compute(self, batch: list[Work]) -> None:
        """Computes a batch; when that fails, its images one by one."""
        computation, start = batch[0].computation, monotonic()
        try:
            rows = list(computation.function(np.stack([work.pixels for work in batch])))
        except Exception as error:
            if len(batch) == 1:
                fail(batch[0].result, error)
                return
            if is_out_of_memory(error):
                computation.largest_batch = len(batch) // 2
            for work in batch:
                self._compute([work])
            return
        seconds = monotonic() - start
        self._observe(computation, len(batch), seconds)
        for work, row in zip(batch, rows, strict=True):
            wait = start - work.arrival
            deliver(work, Computed(row, len(batch), work.decode_seconds, wait, seconds))


def is_wanted(work: Work) -> bool:
    """Returns whether an image is to be computed; from here on it cannot be cancelled."""
    if monotonic() > work.deadline:
        fail(work.result, expired())
        return False
    return work.result.set_running_or_notify_cancel()


def deliver(work: Work, computed: Computed) -> None:
    """Hands over the result of an image, unless it is not finite."""
    values = computed.values
    if isinstance(values, np.ndarray) and not np.isfinite(values).all():
        fail(
            work.result,
            DataError(
                "the image: the output of the network is not finite: its weights do not fit this"
                " image."
            ),
        )
    else:
        work.result.set_result(computed)


def fail(result: "Future[Any]", error: BaseException) -> None:
    """Hands over an error, unless nobody waits for the result any longer."""
    with suppress(InvalidStateError):
        result.set_exception(error)


def expired() -> Exception:
    """Returns the refusal of a request whose deadline has passed."""
    return overloaded("the answer was not ready in time: the server is busy. Try again later.")
