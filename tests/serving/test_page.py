"""The page of the server over HTTP: its language, its facts, the files that it loads."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from resnetkit.serving.guard import Access
from resnetkit.serving.page.render import PageFacts, preferred_language, render_page

FACTS = PageFacts(
    model="<b>pets</b>",
    engine="openvino",
    precision="int8",
    classes=37,
    image_size=(192, 224),
    sha256="ab" * 32,
    saliency=(),
    needs_token=False,
    body_bytes=2**24,
)


@pytest.mark.parametrize(
    ("chosen", "accepted", "expected"),
    [
        (None, "", "en"),
        (None, "ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
        (None, "de-DE,en;q=0.5,ko;q=0.7", "ko"),
        (None, "en,ko", "en"),
        (None, "ko;q=0", "en"),
        (None, "ko;q=x, fr", "en"),
        (None, "*", "en"),
        (None, "," * 10_000, "en"),
        ("ko", "en", "ko"),
        ("en", "ko", "en"),
        ("../ko", "ko", "ko"),
    ],
)
def test_the_language_is_chosen_or_accepted(
    chosen: str | None, accepted: str, expected: str
) -> None:
    assert preferred_language(chosen, accepted).code == expected


def test_facts_are_shown_and_names_are_not_markup() -> None:
    page = render_page(FACTS)
    assert "<b>pets</b>" not in page
    for text in ("&lt;b&gt;pets&lt;/b&gt;", "openvino", "int8", "37 classes", "16 MiB"):
        assert text in page
    assert "224\N{MULTIPLICATION SIGN}192 pixels" in page
    assert re.search(r'<form id="access"[^>]* hidden>', page)


def test_the_page_is_served_in_both_languages(client: Any) -> None:
    english, korean = client.get("/"), client.get("/", **{"Accept-Language": "ko"})
    assert [reply.headers["content-language"] for reply in (english, korean)] == ["en", "ko"]
    assert '<html lang="ko">' in korean.body.decode()
    assert "linear" in english.body.decode()
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', english.body.decode())[1])  # type: ignore[index]
    assert (facts["saliency"], facts["needsToken"]) == ([], False)
    assert client.get("/?language=ko").headers["content-language"] == "ko"


def test_the_page_loads_its_own_files_and_may_load_no_others(client: Any) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy
    text = page.body.decode()
    assert re.findall(r"<script(?! type=\"application/json\"| type=\"module\" src)", text) == []
    assert re.findall(r"<style| style=| on[a-z]+=", text) == []
    for name in re.findall(r'(?:src|href)="(static/[^"]+)"', text):
        assert client.get(f"/{name}").status == 200


def test_every_module_that_a_module_imports_is_there(client: Any) -> None:
    folder = files("resnetkit.serving.page") / "static"
    scripts = [file for file in folder.iterdir() if file.name.endswith(".js")]
    assert len(scripts) > 5
    for script in scripts:
        for name in re.findall(r'from "\./([^"]+)"', script.read_text()):
            reply = client.get(f"/static/{name}")
            assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (
                200,
                "text/javascript",
            )


def test_a_file_that_the_browser_has_is_not_sent_again(client: Any) -> None:
    first = client.get("/static/page.css")
    again = client.get("/static/page.css", **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert client.get("/static/page.js", **{"If-None-Match": first.headers["etag"]}).status == 200
    assert client.get("/static/../render.py").status == 404


def test_the_page_of_a_server_with_a_token_asks_for_it(serving: Any) -> None:
    with serving(access=Access(token="secret")) as client:
        page = client.get("/").body.decode()
        assert '<form id="access" class="panel">' in page
        assert "secret" not in page
        assert client.get("/static/page.js").status == 200
        assert client.post("/predict", b"x").status == 401
