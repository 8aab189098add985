"""The limits of a server: what it accepts before it does any work."""

from dataclasses import dataclass

__all__ = ["Limits", "Refusal", "overloaded"]


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        body_bytes: of a request.
        json_bytes: of JSON in a request; tensors of more are sent as binary data.
        pixels: of an image, before it is resized.
        large_pixels: of all large images that wait for their turn or are decoded.
        bytes_in_flight: of the bodies of all requests.
        images: of a request.
        connections: open at the same time.
        receive_seconds: to receive a request, and to send a response.
        wait_seconds: the longest predicted wait with which a request is admitted.
        answer_seconds: from a complete request to its answer.
        keep_alive_seconds: between the requests of a connection.
        drain_seconds: for the requests that are in flight when the server is stopped.
    """

    body_bytes: int = 2**24
    json_bytes: int = 2**22
    pixels: int = 2**26
    large_pixels: int = 2**27
    bytes_in_flight: int = 2**28
    images: int = 64
    connections: int = 512
    receive_seconds: float = 30.0
    wait_seconds: float = 1.0
    answer_seconds: float = 10.0
    keep_alive_seconds: int = 60
    drain_seconds: int = 7


class Refusal(Exception):
    """A request that is refused.

    Args:
        status: of the response, such as 413.
        message: what happened, what was expected and what to do.
        headers: of the response.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.status = status
        self.message = message
        self.headers = headers or {}

    def __str__(self) -> str:
        return self.message


def overloaded(message: str, retry_seconds: float = 1.0) -> Refusal:
    """Returns the refusal of a request that may succeed later: 503 with Retry-After."""
    return Refusal(503, message, {"Retry-After": str(max(1, round(retry_seconds)))})
