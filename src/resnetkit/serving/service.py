"""The stages of a request: admission, decoding, the engine."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from resnetkit.data.images.decode import MEMORY, Header, read_header, reserving_from
from resnetkit.data.images.memory_gate import MemoryGate
from resnetkit.errors import OutOfMemory
from resnetkit.inference.engine import Pixels
from resnetkit.runtime.resources import usable_processors
from resnetkit.serving.batcher import Batcher, Computation, Computed, Work, expired, fail
from resnetkit.serving.bodies import Bodies
from resnetkit.serving.limits import Limits, Refusal, overloaded
from resnetkit.serving.metrics import Metrics
from resnetkit.serving.model import ServedModel
from resnetkit.serving.pace import Pace
from resnetkit.serving.saliency import Explained

__all__ = ["Amount", "Service"]

LARGE_WORK = 2**22  # pixels to decode; images with more share one thread
WAITING_MAPS = 4  # saliency maps that wait or are computed


class Amount:
    """An amount of something that all requests share, such as pixels; threads may use it.

    Args:
        limit: of the amount.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Takes so much, unless that exceeds the limit while others have some."""
        with self._lock:
            if self.used and self.used + count > self.limit:
                return False
            self.used += count
            return True

    def give(self, count: int) -> None:
        """Returns what was taken."""
        with self._lock:
            self.used -= count


@dataclass(frozen=True, eq=False)
class Decoding:
    """An image to be decoded.

    Attributes:
        content: of the image file.
        model: whose transform is applied.
        deadline: on the clock `monotonic`.
        results: which wait for the image.
        deliver: called with the pixels, uint8 (C, H, W), and the seconds of decoding.
    """

    content: bytes
    model: ServedModel
    deadline: float
    results: "Sequence[Future[Any]]"
    deliver: Callable[[Pixels, float], None]

    @property
    def is_wanted(self) -> bool:
        """Returns whether somebody waits for a result."""
        return not all(result.done() for result in self.results)

    def fail(self, error: BaseException) -> None:
        """Hands an error to all who wait."""
        for result in self.results:
            fail(result, error)


class Service:
    """Answers images with bounded work: what cannot be answered in time is refused at once.

    Threads decode, as many as this process has processors, and one more for large images, so that
    they hold up no others. One thread computes.

    Args:
        model: the first model; see `replace_model`.
        limits: of requests.
        metrics: count what happens.
    """

    def __init__(self, model: ServedModel, limits: Limits, metrics: Metrics) -> None:
        threads = usable_processors()
        self.model = model
        self.limits = limits
        self.metrics = metrics
        self.pace = Pace(model.seconds_per_image, threads)
        self.images = 0  # admitted and not answered; the event loop alone changes it
        self.passes = 0  # of these images through the network, likewise
        self.is_ready = True
        self.bodies = Bodies(limits.bytes_in_flight)
        self._large_pixels = Amount(limits.large_pixels)
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._large_memory = MemoryGate(MEMORY)  # so that others do not wait for large images
        self._large_decoder = ThreadPoolExecutor(1, thread_name_prefix="decode-large")
        self._explainers = ThreadPoolExecutor(1, thread_name_prefix="saliency")
        self._maps = Amount(WAITING_MAPS)
        self._batcher = Batcher(self._observe_batch)
        metrics.watch(lambda: self.images)
        metrics.describe(model)

    def replace_model(self, model: ServedModel) -> None:
        """Lets another model answer from now on; admitted requests keep theirs."""
        self.model = model
        self.pace.restart(model.seconds_per_image)
        self.metrics.describe(model)

    def close(self, timeout: float) -> None:
        """Stops all threads, and refuses what waits."""
        self.is_ready = False
        for executor in (self._decoders, self._large_decoder, self._explainers):
            executor.shutdown(wait=False, cancel_futures=True)
        self._batcher.close(timeout)

    def check_wait(self, images: int, deadline: float, outputs: int = 1) -> None:
        """Raises Refusal when images would wait too long, or could not be computed in time.

        Args:
            images: of the request.
            deadline: of its answer, on the clock `monotonic`.
            outputs: of each image, which passes through the network once for each of them.
        """
        left = deadline - monotonic()
        wait = self.pace.wait_seconds(self.images, self.passes)
        if wait > min(self.limits.wait_seconds, left):
            self.metrics.refused.labels("wait").inc()
            raise overloaded(
                f"the server is busy: an answer would wait about {wait:.1f} s. Try again later.",
                wait,
            )
        # Until the last pass begins: an idle server tries a single one however slow it seems.
        last = self.pace.wait_seconds(self.images + images - 1, self.passes + images * outputs - 1)
        if last > left:
            self.metrics.refused.labels("wait").inc()
            if not self.images:
                self.pace.forget()
            raise overloaded(
                f"an answer would take more than {last:.1f} s, and {left:.1f} s are left: send"
                " fewer images in a request, or request fewer outputs.",
                last,
            )

    @contextmanager
    def admitted(self, images: int, deadline: float, outputs: int = 1) -> Iterator[None]:
        """Counts images as admitted during the block; arguments as `check_wait`.

        Raises:
            Refusal: as `check_wait`.
        """
        self.check_wait(images, deadline, outputs)
        self.images += images
        self.passes += images * outputs
        try:
            yield
        finally:
            self.images -= images
            self.passes -= images * outputs

    def image_computed(
        self, model: ServedModel, content: bytes, output: str, deadline: float
    ) -> "asyncio.Future[Computed]":
        """Decodes and computes an image; as `images_computed`, but with few steps of the loop."""
        return asyncio.wrap_future(self._decode_later(model, content, [output], deadline)[0])

    async def images_computed(
        self,
        model: ServedModel,
        contents: Sequence[bytes],
        outputs: Sequence[str],
        deadline: float,
    ) -> list[list[Computed]]:
        """Decodes and computes images: for each image, a row for each output.

        Cancelling it cancels what has not been started.

        Raises:
            Refusal: when an image is too large, or the deadline passes.
            DataError: when an image cannot be decoded; the others are cancelled.
        """
        return await gathered(
            [self._decode_later(model, content, outputs, deadline) for content in contents]
        )

    def _decode_later(
        self, model: ServedModel, content: bytes, outputs: Sequence[str], deadline: float
    ) -> "list[Future[Computed]]":
        """Hands an image to the threads that decode; returns its rows to come."""
        results: list[Future[Computed]] = [Future() for _ in outputs]

        def compute(pixels: Pixels, seconds: float) -> None:
            for output, result in zip(outputs, results, strict=True):
                computation = model.computations[output]
                self._batcher.submit(Work(computation, pixels, deadline, result, seconds))

        decoding = Decoding(content, model, deadline, results, compute)
        self._start_in(self._decoders, self._begin, decoding)
        return results

    async def pixels_computed(
        self, model: ServedModel, pixels: Pixels, outputs: Sequence[str], deadline: float
    ) -> list[list[Computed]]:
        """Computes pixels, uint8 (B, C, H, W); as `images_computed`."""
        rows = [
            [self._submit(model.computations[output], image, deadline) for output in outputs]
            for image in pixels
        ]
        return await gathered(rows)

    async def explained(
        self, model: ServedModel, content: bytes, method: str, label: int | None, deadline: float
    ) -> Explained:
        """Decodes an image and computes its saliency map, in a thread of its own.

        Raises:
            Refusal: when other maps are waiting, or the deadline passes.
        """
        assert model.explainer is not None
        if not self._maps.take(1):
            self.metrics.refused.labels("saliency").inc()
            raise overloaded("the server is busy with other saliency maps. Try again later.")
        try:
            pixels = await self._decoded(model, content, deadline)
            return await asyncio.wrap_future(
                self._explainers.submit(model.explainer.explain, pixels, method, label)
            )
        finally:
            self._maps.give(1)

    async def _decoded(self, model: ServedModel, content: bytes, deadline: float) -> Pixels:
        """Decodes an image, uint8 (C, H, W), and computes nothing."""
        result: Future[Pixels] = Future()
        decoding = Decoding(
            content, model, deadline, [result], lambda pixels, _: result.set_result(pixels)
        )
        self._start_in(self._decoders, self._begin, decoding)
        return await asyncio.wrap_future(result)

    def _submit(
        self, computation: Computation, pixels: Pixels, deadline: float
    ) -> "Future[Computed]":
        result: Future[Computed] = Future()
        self._batcher.submit(Work(computation, pixels, deadline, result))
        return result

    def _start_in(
        self, executor: Executor, stage: "Callable[[Decoding], None]", decoding: Decoding
    ) -> None:
        """Hands an image to threads; all errors reach those who wait."""

        def run() -> None:
            try:
                stage(decoding)
            except MemoryError:
                decoding.fail(OutOfMemory("there is not enough memory to decode the image."))
            except Exception as error:
                decoding.fail(error)

        try:
            executor.submit(run)
        except RuntimeError:  # the threads have been stopped
            decoding.fail(overloaded("the server is shutting down."))

    def _begin(self, decoding: Decoding) -> None:
        """Reads the header of an image, and decodes it unless it is large; in a thread."""
        if not decoding.is_wanted:
            return
        start = monotonic()
        header = read_header(decoding.content, "the image")
        self._check_pixels(header)
        if header.work <= LARGE_WORK:
            if (seconds := self._decode(decoding, start)) is not None:
                self.pace.decoded(seconds)
        elif self._large_pixels.take(header.pixels):
            self._start_in(
                self._large_decoder, lambda large: self._decode_large(large, header), decoding
            )
        else:
            self.metrics.refused.labels("large images").inc()
            raise overloaded("the server is busy with other large images. Try again later.")

    def _decode_large(self, decoding: Decoding, header: Header) -> None:
        """Decodes a large image; in the thread of large images."""
        try:
            with reserving_from(self._large_memory):
                self._decode(decoding, monotonic())
        finally:
            self._large_pixels.give(header.pixels)

    def _check_pixels(self, header: Header) -> None:
        """Raises Refusal for an image with too many pixels."""
        if header.pixels > self.limits.pixels:
            raise Refusal(
                413,
                f"the image has {header.width}x{header.height} pixels, more than the limit of"
                f" {self.limits.pixels / 1e6:,.0f} million: reduce it first.",
            )

    def _decode(self, decoding: Decoding, start: float) -> float | None:
        """Decodes an image and hands it to those who wait for it; in a thread.

        Args:
            decoding: the image.
            start: of its decoding, on the clock `monotonic`.

        Returns:
            The seconds of decoding; None when nobody waits for the image.
        """
        if not decoding.is_wanted:
            return None
        if start > decoding.deadline:
            raise expired()
        pixels = decoding.model.predictor.transform.pixels(decoding.content)
        seconds = monotonic() - start
        self.metrics.decode_seconds.observe(seconds)
        decoding.deliver(pixels, seconds)
        return seconds

    def _observe_batch(self, computation: Computation, count: int, seconds: float) -> None:
        self.pace.computed(count, computation.largest_batch, seconds)
        self.metrics.batch_images.observe(count)
        self.metrics.batch_seconds.observe(seconds)


async def gathered(results: "Sequence[Sequence[Future[Computed]]]") -> list[list[Computed]]:
    """Waits for all results; an error or a cancellation cancels those that are left."""
    flat = [asyncio.wrap_future(result) for row in results for result in row]
    try:
        values = iter(await asyncio.gather(*flat))
    except BaseException:
        for future in flat:
            future.cancel()
        raise
    return [[next(values) for _ in row] for row in results]
