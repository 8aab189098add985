"""The page of the server: files of the folder `static`, read once."""

import mimetypes
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnetkit.serving.limits import Refusal

__all__ = ["page_routes"]

INDEX = "index.html"
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def static_files() -> dict[str, bytes]:
    """Returns the content of the files of the page, by name; empty if there are none."""
    folder = files("resnetkit.serving") / "static"
    if not folder.is_dir():
        return {}
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def page_routes() -> list[Route]:
    """Returns the routes `/`, the file index.html, and `/static/NAME`, the other files."""
    contents = static_files()

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", INDEX)
        if name not in contents:
            raise Refusal(404, f"there is no file '{name[:200]}'.")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(contents[name], headers=SECURITY, media_type=kind)

    index = [Route("/", page, methods=["GET"])] if INDEX in contents else []
    return [*index, Route("/static/{name}", page, methods=["GET"])]
