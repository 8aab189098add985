"""The helpers of browser tests see what is wrong with a page."""

from pathlib import Path

import pytest

from helpers.browser import OpenPage, scrolls_sideways, violations

pytestmark = pytest.mark.browser

GOOD = """<!doctype html><html lang="en"><title>Good</title>
<meta name="viewport" content="width=device-width">
<style>body { background: canvas; color: canvastext; color-scheme: light dark; }</style>
<main><h1>Good</h1><p>A page without faults.</p></main></html>"""


def written(folder: Path, html: str) -> str:
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


def test_a_good_page_passes(open_page: OpenPage, tmp_path: Path) -> None:
    with open_page(written(tmp_path, GOOD), width=320, scheme="dark", reduced_motion=True) as page:
        assert violations(page) == []
        assert scrolls_sideways(page) == []
        for query in ("(prefers-color-scheme: dark)", "(prefers-reduced-motion)", "(width: 320px)"):
            assert page.evaluate(f"matchMedia('{query}').matches")


def test_faults_are_found(open_page: OpenPage, tmp_path: Path) -> None:
    html = GOOD.replace("<p>", "<img src='data:,'><p style='width: 400px; color: #888'>")
    with open_page(written(tmp_path, html), width=320) as page:
        assert sorted(line.split(":")[0] for line in violations(page)) == [
            "color-contrast",
            "image-alt",
        ]
        assert [element[:2] for element in scrolls_sideways(page)] == ["<p"]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("fetch('http://127.0.0.1:9/x').catch(() => 0)", "request: http://127.0.0.1:9/x"),
        ("console.error('broken')", "console: broken"),
        ("nothing.there", "uncaught: .*nothing is not defined"),
    ],
)
def test_what_a_page_must_not_do_fails_the_test(
    open_page: OpenPage, tmp_path: Path, script: str, complaint: str
) -> None:
    html = GOOD.replace("</main>", f"</main><script>{script}</script>")
    url = written(tmp_path, html)
    with pytest.raises(pytest.fail.Exception, match=complaint), open_page(url) as page:
        assert page.title() == "Good"
