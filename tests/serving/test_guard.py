"""What is refused by the head of a request."""

import pytest

from resnetkit.errors import UsageError
from resnetkit.serving.guard import (
    Access,
    Guard,
    allowed_host,
    allowed_origin,
    host_name,
    is_loopback,
)
from resnetkit.serving.limits import Limits, Refusal
from resnetkit.serving.server import bound_socket, check_access, fitting_limits

TOKEN = "0123456789abcdef0123"


def head(path: str = "/predict", **headers: str) -> dict[str, object]:
    named = {"host": "localhost:8000", **headers}
    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in named.items()
    ]
    return {"type": "http", "path": path, "headers": pairs}


def refusal_of(access: Access, scope: dict[str, object]) -> Refusal | None:
    try:
        Guard(None, access, Limits(body_bytes=1000)).check(scope)  # type: ignore[arg-type]
    except Refusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "127.5.0.1"]
)
def test_this_machine_is_addressed(host: str) -> None:
    assert refusal_of(Access(), head(host=host)) is None


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "192.168.0.3", "127.0.0.1.evil.example:8000"],
)
def test_requests_to_other_names_are_refused(host: str) -> None:
    refusal = refusal_of(Access(), head(host=host))
    assert refusal is not None
    assert (refusal.status, "--allow-host" in refusal.message) == (421, True)


def test_a_server_for_others_answers_to_addresses_and_named_hosts_only() -> None:
    access = Access(frozenset({"gpu.example"}), any_address=True)
    for host in ("192.168.0.3:8000", "[2001:db8::1]", "gpu.example", "GPU.example:80"):
        assert refusal_of(access, head(host=host)) is None
    assert refusal_of(access, head(host="evil.example")) is not None


def test_pages_of_other_sites_are_refused_unless_they_are_named() -> None:
    page = "https://example.com"
    refusal = refusal_of(Access(), head(origin=page))
    assert refusal is not None
    assert refusal.status == 403
    assert refusal_of(Access(), head(origin="null")) is not None
    assert refusal_of(Access(), head(origin="http://localhost:8000")) is None
    assert refusal_of(Access(), head(origin="http://localhost:9000")) is not None
    assert refusal_of(Access(origins=(page,)), head(origin=page)) is None


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("https://example.com/", "https://example.com"),
        ("HTTPS://Example.COM", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("http://example.com:443/", "http://example.com:443"),
        ("http://[2001:DB8::1]:8000", "http://[2001:db8::1]:8000"),
        ("moz-extension://0a-1b", "moz-extension://0a-1b"),
        ("null", "null"),
    ],
)
def test_pages_are_named_as_people_write_them(text: str, sent: str) -> None:
    assert refusal_of(Access(origins=(allowed_origin(text),)), head(origin=sent)) is None


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "",
        "example.com",
        "https://*.example.com",
        "https://example.com/page",
        "https://user@example.com",
        "https://b\xfccher.example",
    ],
)
def test_pages_that_no_browser_sends_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(UsageError, match="expected scheme and host of a page"):
        allowed_origin(text)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("Name:8000", "name:9000"),
        ("gpu.example.com", "GPU.example.com"),
        ("192.168.0.3:8000", "192.168.0.3"),
        ("[2001:DB8:0::1]", "[2001:db8::1]:8000"),
    ],
)
def test_hosts_are_named_as_people_write_them(text: str, sent: str) -> None:
    assert refusal_of(Access(frozenset({allowed_host(text)})), head(host=sent)) is None


@pytest.mark.parametrize("text", ["*", "", "*.example.com", "http://name", "name/", "name:80:80"])
def test_hosts_that_are_no_names_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(UsageError, match="expected a name or an address"):
        allowed_host(text)


def test_all_bodies_together_may_be_as_large_as_one() -> None:
    limits = fitting_limits(Limits(body_bytes=400 * 2**20))
    assert limits.bytes_in_flight == limits.body_bytes
    assert fitting_limits(Limits()).bytes_in_flight == Limits().bytes_in_flight


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}0",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xff\xfe",
        f"Bearer {TOKEN.upper()}",
    ],
)
def test_a_wrong_token_is_refused(authorization: str) -> None:
    refusal = refusal_of(Access(token=TOKEN), head(authorization=authorization))
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (401, {"WWW-Authenticate": "Bearer"})


def test_the_token_opens_everything_and_the_page_needs_none() -> None:
    access = Access(token=TOKEN)
    assert refusal_of(access, head(authorization=f"Bearer {TOKEN}")) is None
    assert refusal_of(access, head(authorization=f"bearer {TOKEN} ")) is None
    for path in ("/", "/static/page.js", "/v2/health/live", "/v2/health/ready"):
        assert refusal_of(access, head(path)) is None
    for path in ("/metrics", "/model", "/v2", "/openapi.json", "/v2/health/live/", "//", "/static"):
        assert refusal_of(access, head(path)) is not None


def test_two_headers_of_a_kind_are_refused() -> None:
    scope = head(authorization=f"Bearer {TOKEN}")
    scope["headers"] += [(b"authorization", b"Bearer x")]  # type: ignore[operator]
    refusal = refusal_of(Access(token=TOKEN), scope)
    assert refusal is not None
    assert refusal.message == "the header Authorization occurs 2 times."


def test_bodies_that_are_compressed_or_too_large_are_refused() -> None:
    for encoding in ("gzip", "identity, gzip", "br"):
        refusal = refusal_of(Access(), head(content_encoding=encoding))
        assert refusal is not None
        assert refusal.status == 415
    assert refusal_of(Access(), head(content_encoding="identity")) is None
    assert refusal_of(Access(), head(content_length="1000")) is None
    refusal = refusal_of(Access(), head(content_length="1001"))
    assert refusal is not None
    assert (refusal.status, "limit of 1,000" in refusal.message) == (413, True)


def test_names_and_addresses_are_told_apart() -> None:
    assert [host_name(host) for host in ("A.b:1", "[::1]:80", "[::1]", "::1", "a")] == [
        "a.b",
        "::1",
        "::1",
        "::1",
        "a",
    ]
    for host in ("127.0.0.1", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com"):
        assert not is_loopback(host)


def test_other_machines_need_a_token_or_an_open_door() -> None:
    with pytest.raises(UsageError, match=r"--token-file .* or say --open"):
        check_access("0.0.0.0", Access(), is_open=False)
    assert check_access("127.0.0.1", Access(), is_open=False) == Access()
    assert check_access("0.0.0.0", Access(), is_open=True).any_address
    assert check_access("0.0.0.0", Access(token=TOKEN), is_open=False).token == TOKEN


def test_a_weak_token_is_refused() -> None:
    for token, message in (("short", "5 characters"), (f"{TOKEN}\xe9", "ASCII")):
        with pytest.raises(UsageError, match=message):
            check_access("127.0.0.1", Access(token=token), is_open=False)


def test_ports_that_cannot_be_used_are_explained() -> None:
    with bound_socket("127.0.0.1", 0) as used:
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} .* in use by another program"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(UsageError, match="from 0 to 65535"):
        bound_socket("127.0.0.1", 65536)
    with pytest.raises(UsageError, match="not an address of this machine"):
        bound_socket("192.0.2.1", 8000)
