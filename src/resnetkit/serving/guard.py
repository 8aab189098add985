"""What is checked of a request before its body is read."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from resnetkit.errors import UsageError
from resnetkit.serving.limits import Limits, Refusal
from resnetkit.serving.responses import refusal_response

__all__ = ["Access", "Guard", "allowed_host", "allowed_origin", "host_name", "is_loopback"]

PUBLIC = {"/", "/v2/health/live", "/v2/health/ready"}  # without a token
PUBLIC_FOLDER = "/static/"
IDENTITY = (b"", b"identity")
HOST = re.compile(r"[a-z0-9_.-]+(:[0-9]{1,5})?")
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?")
DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True)
class Access:
    """Who may use a server.

    Attributes:
        hosts: names, in lower case, that a request may be addressed to.
        any_address: whether it may be addressed to any IP address; otherwise to this machine's own
            loopback addresses only.
        origins: of other pages that may use the server, such as https://example.com.
        token: that a request must carry; None if anybody may use the server.
    """

    hosts: frozenset[str] = frozenset({"localhost"})
    any_address: bool = False
    origins: tuple[str, ...] = ()
    token: str | None = None

    def allows_host(self, host: str) -> bool:
        """Returns whether a request may be addressed to a host, as in the header Host.

        An address is safe where a name is not: a page of an attacker whose name leads to this
        machine (DNS rebinding) is addressed by that name.
        """
        name = host_name(host)
        if name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback

    def allows_token(self, authorization: str) -> bool:
        """Returns whether the header Authorization has the token, in constant time."""
        if self.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        digests = [hashlib.sha256(text.encode()).digest() for text in (given.strip(), self.token)]
        return hmac.compare_digest(*digests) and scheme.lower() == "bearer"


class Guard:
    """Refuses requests by their head.

    Args:
        app: receives what is not refused.
        access: who may use it.
        limits: of a body.
    """

    def __init__(self, app: ASGIApp, access: Access, limits: Limits) -> None:
        self.app = app
        self.access = access
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self.check(scope)
            except Refusal as refusal:
                await refusal_response(refusal)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Raises Refusal for a request that is not accepted."""
        headers = scope["headers"]
        host = only(headers, b"host")
        if not self.access.allows_host(host):
            raise Refusal(
                421,
                f"the request is addressed to '{host[:200]}', which this server does not answer to:"
                " start it with --allow-host for that name.",
            )
        origin = only(headers, b"origin")
        if origin and origin not in self.access.origins and not is_same_origin(origin, host):
            raise Refusal(
                403,
                f"a page of '{origin[:200]}' may not use this server: start it with --allow-origin"
                " for that page.",
            )
        path = scope["path"]
        is_public = path in PUBLIC or path.startswith(PUBLIC_FOLDER)
        if not is_public and not self.access.allows_token(only(headers, b"authorization")):
            raise Refusal(
                401,
                "the request has no valid token: send the header 'Authorization: Bearer TOKEN'.",
                {"WWW-Authenticate": "Bearer"},
            )
        if any(name == b"content-encoding" and value not in IDENTITY for name, value in headers):
            raise Refusal(
                415, "the body is compressed: send it without Content-Encoding; images already are."
            )
        length = int(only(headers, b"content-length") or 0)  # digits: the parser has checked it
        if length > self.limits.body_bytes:
            raise Refusal(
                413,
                f"the body has {length:,} bytes, more than the limit of"
                f" {self.limits.body_bytes:,}.",
            )


def only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Returns the value of a header; empty if there is none.

    Raises:
        Refusal: when it occurs more than once, since others may read another one.
    """
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise Refusal(400, f"the header {name.decode().title()} occurs {len(values)} times.")
    return values[0].decode("latin-1") if values else ""


def host_name(host: str) -> str:
    """Returns the name or address in a header Host, in lower case and without a port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def is_same_origin(origin: str, host: str) -> bool:
    """Returns whether a page comes from the host that its request is addressed to."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def allowed_origin(text: str) -> str:
    """Returns the origin of a page as browsers send it: in lower case, without a default port.

    Raises:
        UsageError: for what no browser sends, such as a path or a wildcard.
    """
    if text == "null":  # of pages without an address, such as files
        return text
    match = ORIGIN.fullmatch(text.lower())
    if match is None:
        raise UsageError(
            f"--allow-origin {text}: expected scheme and host of a page, such as"
            " https://example.com, without a path or a wildcard."
        )
    scheme, host, port = match.groups()
    is_default = port is None or port == DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}" + ("" if is_default else f":{port}")


def allowed_host(text: str) -> str:
    """Returns a name that requests may be addressed to: in lower case, without a port.

    Raises:
        UsageError: for what is not a name or an address, such as a wildcard.
    """
    name = host_name(text)
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        if HOST.fullmatch(text.lower()):
            return name
    raise UsageError(
        f"--allow-host {text}: expected a name or an address, such as gpu.example.com, without a"
        " scheme, a path or a wildcard."
    )


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach a server that listens on a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
