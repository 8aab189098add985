"""The routes of the page: `/` and the files that it loads."""

import hashlib
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnetkit.report.colors import color_variables
from resnetkit.serving.page.render import PageFacts, preferred_language, render_page

__all__ = ["page_routes"]

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # the browser asks whether its copy is still the same
}


@dataclass(frozen=True)
class StaticFile:
    """A file that the page loads.

    Attributes:
        content: of the file.
        media_type: such as text/css.
    """

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Returns a tag that changes with the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def page_routes(facts: Callable[[], PageFacts]) -> list[Route]:
    """Returns the route `/`, the page, and those of the files that it loads, `/static/NAME`.

    Args:
        facts: called for each page, since a reload may change the model.
    """

    async def page(request: Request) -> Response:
        accepted = request.headers.get("accept-language", "")
        language = preferred_language(request.query_params.get("language"), accepted)
        headers = {**HEADERS, "Content-Language": language.code, "Vary": "Accept-Language"}
        return Response(render_page(facts(), language), headers=headers, media_type="text/html")

    static = [file_route(name, file) for name, file in static_files().items()]
    return [Route("/", page, methods=["GET"]), *static]


def file_route(name: str, file: StaticFile) -> Route:
    """Returns the route of a file."""
    headers = {**HEADERS, "ETag": file.etag}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    return Route(f"/static/{name}", answer, methods=["GET"])


def static_files() -> dict[str, StaticFile]:
    """Returns the files that the page loads, by name."""
    folder = files("resnetkit.serving.page") / "static"
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    contents["colors.css"] = color_variables().encode()
    return {name: StaticFile(content, media_type(name)) for name, content in contents.items()}


def media_type(name: str) -> str:
    """Returns the media type of a file; the tables of the system do not decide on scripts."""
    known = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    suffix = name.rpartition(".")[2]
    return known.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
