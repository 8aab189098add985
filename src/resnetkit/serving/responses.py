"""Responses: JSON, and a sentence for whatever goes wrong."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from resnetkit.errors import OutOfMemory, ResnetkitError, UsageError
from resnetkit.serving.limits import Refusal, overloaded

__all__ = ["EXCEPTION_HANDLERS", "json_response", "refusal_of", "refusal_response"]

CLIENT_LEFT = 499  # the status of requests that nobody waits for, as in nginx


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Returns a value as JSON."""
    content = json.dumps(value, allow_nan=False)
    return Response(content, status, headers, media_type="application/json")


def refusal_response(refusal: Refusal) -> Response:
    """Returns a refusal as {"error": sentence}, the form of the Open Inference Protocol."""
    return json_response({"error": refusal.message}, status=refusal.status, headers=refusal.headers)


def refusal_of(error: ResnetkitError) -> Refusal:
    """Returns the refusal of a request that led to an error."""
    match error:
        case OutOfMemory():
            return overloaded("the server has not enough memory for this request at present.")
        case UsageError():
            return Refusal(400, str(error))
        case _:  # an image that cannot be decoded, or that the network gives no answer for
            return Refusal(422, str(error))


async def answered_refusal(request: Request, error: Exception) -> Response:
    """Answers a refusal."""
    assert isinstance(error, Refusal)
    return refusal_response(error)


async def answered_error(request: Request, error: Exception) -> Response:
    """Answers an error of an image or a parameter."""
    assert isinstance(error, ResnetkitError)
    return refusal_response(refusal_of(error))


async def answered_status(request: Request, error: Exception) -> Response:
    """Answers an unknown route or method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = " or ".join(sorted(headers.get("Allow", "another method").split(", ")))
        message = f"{request.url.path[:100]} does not take {request.method}: use {allowed}."
    else:
        message = f"there is nothing at {request.url.path[:100]}: /openapi.json lists all routes."
    return refusal_response(Refusal(error.status_code, message, headers))


async def nobody(request: Request, error: Exception) -> Response:
    """Ends a request whose client has left; nothing is sent."""
    return Response(status_code=CLIENT_LEFT)


EXCEPTION_HANDLERS: Mapping[Any, ExceptionHandler] = {
    Refusal: answered_refusal,
    ResnetkitError: answered_error,
    HTTPException: answered_status,
    ClientDisconnect: nobody,
}
