"""The engine thread: what waits is computed at once, and nothing harms others."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np
import pytest

from resnetkit.errors import DataError, OutOfMemory
from resnetkit.serving.batcher import Batcher, Computation, Computed, Work
from resnetkit.serving.limits import Refusal


class Recorded:
    """A function of batches that can be held, and remembers their sizes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pixels))
        self.entered.set()
        assert self.go.wait(60)
        if (pixels == 13).any():
            raise RuntimeError("unlucky")
        values = pixels.reshape(len(pixels), -1).astype(np.float64)
        return np.where(values == 0, np.nan, values)


@contextmanager
def open_batcher() -> Iterator[Batcher]:
    batcher = Batcher(lambda computation, count, seconds: None)
    try:
        yield batcher
    finally:
        batcher.close(5)


def submit(
    batcher: Batcher, computation: Computation, value: int, seconds: float = 5.0
) -> "Future[Computed]":
    result: Future[Computed] = Future()
    pixels = np.full((1, 1, 1), value, dtype=np.uint8)
    batcher.submit(Work(computation, pixels, time.monotonic() + seconds, result))
    return result


def test_a_free_engine_starts_with_one_image_and_takes_then_what_waits() -> None:
    function = Recorded()
    computation = Computation(function, 4)
    with open_batcher() as batcher:
        function.go.clear()
        first = submit(batcher, computation, 1)
        assert function.entered.wait(60)  # without a second image, and without a timer
        others = [submit(batcher, computation, value) for value in range(2, 9)]
        function.go.set()
        values = [result.result(5).values.item() for result in (first, *others)]
    assert values == list(range(1, 9))
    assert function.sizes == [1, 4, 3]


def test_images_of_other_computations_keep_their_turn() -> None:
    function, other = Recorded(), Recorded()
    one, two = Computation(function, 8), Computation(other, 8)
    with open_batcher() as batcher:
        function.go.clear()
        first = submit(batcher, one, 1)
        assert function.entered.wait(60)
        results = [submit(batcher, computation, 2) for computation in (two, one, two, one)]
        function.go.set()
        for result in (first, *results):
            result.result(5)
    assert function.sizes == [1, 2]
    assert other.sizes == [2]


def test_a_cancelled_image_is_not_computed() -> None:
    function = Recorded()
    computation = Computation(function, 4)
    with open_batcher() as batcher:
        function.go.clear()
        first = submit(batcher, computation, 1)
        assert function.entered.wait(60)
        cancelled, kept = submit(batcher, computation, 2), submit(batcher, computation, 3)
        assert cancelled.cancel()
        function.go.set()
        first.result(5)
        assert kept.result(5).batch_size == 1
    assert function.sizes == [1, 1]


def test_an_image_whose_deadline_has_passed_is_not_computed() -> None:
    function = Recorded()
    with open_batcher() as batcher:
        late = submit(batcher, Computation(function, 4), 2, seconds=-0.1)
        with pytest.raises(Refusal, match="not ready in time") as refusal:
            late.result(5)
    assert refusal.value.status == 503
    assert refusal.value.headers == {"Retry-After": "1"}
    assert function.sizes == []


def test_an_image_that_fails_harms_no_other_of_its_batch() -> None:
    function = Recorded()
    computation = Computation(function, 4)
    with open_batcher() as batcher:
        function.go.clear()
        first = submit(batcher, computation, 1)
        assert function.entered.wait(60)
        results = {value: submit(batcher, computation, value) for value in (2, 13, 3)}
        function.go.set()
        first.result(5)
        assert results[2].result(5).values.item() == 2
        assert results[3].result(5).values.item() == 3
        with pytest.raises(RuntimeError, match="unlucky"):
            results[13].result(5)
    assert function.sizes == [1, 3, 1, 1, 1]


def test_an_output_that_is_not_finite_is_an_error_of_its_image_alone() -> None:
    computation = Computation(Recorded(), 4)
    with open_batcher() as batcher:
        bad, good = submit(batcher, computation, 0), submit(batcher, computation, 5)
        with pytest.raises(DataError, match="not finite"):
            bad.result(5)
        assert good.result(5).values.item() == 5


def test_batches_are_halved_when_memory_runs_out() -> None:
    sizes = []
    held = threading.Event()

    def scarce(pixels: np.ndarray) -> np.ndarray:
        assert held.wait(60)
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise OutOfMemory("too large")
        return pixels.reshape(len(pixels), -1)

    computation = Computation(scarce, 4)
    with open_batcher() as batcher:
        results = [submit(batcher, computation, value) for value in range(1, 10)]
        held.set()
        assert [result.result(5).values.item() for result in results] == list(range(1, 10))
    assert computation.largest_batch == 2
    assert max(sizes[sizes.index(4) + 1 :]) == 2


def test_what_waits_is_refused_when_the_batcher_is_closed() -> None:
    function = Recorded()
    computation = Computation(function, 1)
    batcher = Batcher(lambda computation, count, seconds: None)
    function.go.clear()
    first = submit(batcher, computation, 1)
    assert function.entered.wait(60)
    waiting = submit(batcher, computation, 2)
    closing = threading.Thread(target=batcher.close, args=(5,))
    closing.start()
    with pytest.raises(Refusal, match="shutting down"):
        waiting.result(5)
    function.go.set()
    assert first.result(5).values.item() == 1
    closing.join(60)
    with pytest.raises(Refusal, match="shutting down"):
        submit(batcher, computation, 3).result(5)
