"""Predicts how long a request will wait, from what images cost at present."""

import threading

__all__ = ["Pace"]

RECENT = 0.1  # weight of a new observation


class Pace:
    """The time an image takes when the server is busy, and the prediction that follows.

    Decoding and computing run at the same time, so that the slower one sets the pace. Both are
    measured while they run, with whatever else the machine does.

    Args:
        seconds_per_image: of the engine in its best batch.
        decode_threads: number of threads that decode.
    """

    def __init__(self, seconds_per_image: float, decode_threads: int) -> None:
        self._measured = self._computing = seconds_per_image
        self._decoding = 0.0
        self._threads = decode_threads
        self._lock = threading.Lock()

    def wait_seconds(self, images: int, passes: int) -> float:
        """Predicts how long a request waits.

        Args:
            images: to be decoded before.
            passes: through the network before: one for each output of an image.
        """
        return max(passes * self._computing, images * self._decoding / self._threads)

    def restart(self, seconds_per_image: float) -> None:
        """Starts again with another engine."""
        with self._lock:
            self._measured = self._computing = seconds_per_image

    def forget(self) -> None:
        """Forgets slow observations gradually, since refused requests bring no new ones."""
        with self._lock:
            self._computing -= RECENT * max(0.0, self._computing - self._measured)
            self._decoding -= RECENT * self._decoding

    def decoded(self, seconds: float) -> None:
        """Observes the decoding of an image."""
        with self._lock:
            self._decoding += RECENT * (seconds - self._decoding)

    def computed(self, count: int, largest: int, seconds: float) -> None:
        """Observes a batch; a small one says at most that images cost less than expected."""
        each = seconds / count
        with self._lock:
            if 2 * count >= largest or each < self._computing:
                self._computing += RECENT * (each - self._computing)
