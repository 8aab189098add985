"""Responses: JSON, and errors as a sentence."""

import json
from collections.abc import Mapping

from starlette.responses import Response

from resnetkit.errors import OutOfMemory, ResnetkitError, UsageError
from resnetkit.serving.limits import Refusal, overloaded

__all__ = ["json_response", "refusal_of", "refusal_response"]


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
