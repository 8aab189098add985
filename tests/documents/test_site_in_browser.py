"""The documentation site in a browser: for everybody, on a telephone, and searched."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from documents.site import DOCS, build, pages
from helpers.browser import OpenPage, scrolls_sideways, violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.docs, pytest.mark.browser]

KINDS = [
    "index",
    "start",
    "learn/block",
    "play",
    "use/serve",
    "studies",
    "reference/commands",
    "reference/recipe",
    "reference/errors",
    "reference/architectures",
    "reference/api",
    "contributing",
    "genindex",
    "search",
]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and reports nothing."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder on this machine."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The address at which the site is served: axe-core reads style sheets over HTTP alone."""
    with served(site) as address:
        yield address


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_no_barrier(address: str, open_page: OpenPage, kind: str, scheme: str) -> None:
    for folder in (address, f"{address}/ko"):
        with open_page(f"{folder}/{kind}.html", scheme=scheme) as page:
            assert violations(page) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways(site: Path, open_page: OpenPage, width: int) -> None:
    with open_page((site / "index.html").as_uri(), width=width) as page:
        for path in [*pages(site), *pages(site / "ko")]:
            page.goto(path.as_uri())
            assert scrolls_sideways(page) == [], path


def found(page: "Page", address: str, query: str) -> list[str]:
    """Returns the names of the pages that a search finds, the best first."""
    page.goto(f"{address}/search.html?q={query}")
    page.locator("p.search-summary").filter(has_text=re.compile(r"\S")).wait_for()
    links = [link.get_attribute("href") or "" for link in page.locator("ul.search li a").all()]
    return list(dict.fromkeys(link.partition("#")[0].partition("?")[0] for link in links))


def test_the_search_finds_pages(address: str, open_page: OpenPage) -> None:
    with open_page(f"{address}/search.html") as page:
        assert "reference/recipe.html" in found(page, address, "label_smoothing")
        assert "reference/commands.html" in found(page, address, "micro-batch")
        assert "contributing.html" in found(page, address, "contributions tests commit")
        assert found(page, address, "zzzzqqqq") == []


@pytest.fixture(scope="module")
def korean_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages in Korean with words in the forms that sentences give them."""
    pytest.importorskip("furo")
    source = tmp_path_factory.mktemp("korean")
    texts = {
        "index": "잔차는 입력과 출력의 차이다.\n\n```{toctree}\n\na\nb\nc\n```",
        "a": "블록은 잔차를 배운다. 층마다 지름길이 있다.",
        "b": "지름길은 계산하지 않는다. ResNet을 본다.",
        "c": "정확도를 측정한다. 데이터에서 배운다.",
    }
    for name, text in texts.items():
        (source / f"{name}.md").write_text(f"# {name}\n\n{text}\n")
    run = build(source / "out", "-D", "language=ko", source=source)
    assert run.returncode == 0, run.output
    return source / "out"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("잔차", {"index.html", "a.html"}),
        ("잔차를", {"index.html", "a.html"}),
        ("지름길", {"a.html", "b.html"}),
        ("층", {"a.html"}),
        ("정확도", {"c.html"}),
        ("데이터", {"c.html"}),
        ("resnet", {"b.html"}),
        ("회전", set()),
    ],
)
def test_the_search_knows_particles(
    korean_site: Path, open_page: OpenPage, query: str, expected: set[str]
) -> None:
    with served(korean_site) as address, open_page(f"{address}/search.html") as page:
        assert set(found(page, address, query)) == expected


def test_the_search_ranks_pages_with_all_words_first(
    korean_site: Path, open_page: OpenPage
) -> None:
    with served(korean_site) as address, open_page(f"{address}/search.html") as page:
        assert found(page, address, "지름길 잔차")[0] == "a.html"


def test_python_and_javascript_agree_on_korean_words(
    korean_site: Path, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    from korean_search import SearchKorean

    text = "잔차는 지름길에서는 층을 정확도까지도 데이터의 ResNet-50을 3x3 합성곱으로, 깊이가 이다."
    korean = SearchKorean({})
    with open_page((korean_site / "search.html").as_uri()) as page:
        words = page.evaluate("text => splitQuery(text.toLowerCase())", text)
        stems = page.evaluate("words => words.map(new Stemmer().stemWord)", words)
    assert len(words) >= 12
    assert stems == [korean.stem(word) for word in words]
    assert set(words) <= {word.lower() for word in korean.split(text)}


def test_the_language_switch_keeps_the_page(site: Path, open_page: OpenPage) -> None:
    english = site / "reference/recipe.html"
    with open_page(english.as_uri()) as page:
        page.locator(".language-switch a").click()
        assert page.url == (site / "ko/reference/recipe.html").as_uri()
        assert page.locator("html").get_attribute("lang") == "ko"
        page.locator(".language-switch a").click()
        assert page.url == english.as_uri()
