"""What happens to every request: it is counted, and its response gets headers."""

import logging
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnetkit.serving.limits import Refusal
from resnetkit.serving.metrics import Metrics
from resnetkit.serving.responses import refusal_response

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)

SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Recorder:
    """Counts requests, adds headers to responses, and turns bugs into a response.

    Args:
        app: answers.
        metrics: count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = monotonic(), 0

        async def recorded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY]
            await send(message)

        try:
            await self.app(scope, receive, recorded)
        except Exception:
            logger.exception("a request led to an error that is a bug of resnetkit")
            if status:
                raise
            await refusal_response(
                Refusal(500, "the server made an error; its log has the details.")
            )(scope, receive, recorded)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(monotonic() - start)
