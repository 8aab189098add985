"""A headless Chromium that looks at pages: what they load, what axe-core finds, how wide they are.

A machine without the tools skips the tests and says which tool is missing; with the variable
RESNETKIT_BROWSER=required, as in CI, a missing tool fails them instead.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = [
    "WIDTHS",
    "OpenPage",
    "launched",
    "missing_tool",
    "node",
    "scrolls_sideways",
    "viewed",
    "violations",
]

WIDTHS = (1280, 390, 320)  # pixels: a laptop, a telephone, and what WCAG 1.4.10 demands
HEIGHTS = {1280: 900, 390: 844, 320: 640}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AXE_FOLDERS = (
    Path("node_modules/axe-core"),
    Path.home() / ".cache/resnetkit/node_modules/axe-core",
)
OLDEST_NODE = (20, 19)  # reads a .js file with an export as a module

OpenPage = Callable[..., AbstractContextManager["Page"]]


def missing_tool(reason: str) -> NoReturn:
    """Skips a test, or fails it where browser tests are required."""
    if os.environ.get("RESNETKIT_BROWSER") == "required":
        pytest.fail(f"RESNETKIT_BROWSER=required, but {reason}", pytrace=False)
    pytest.skip(reason)


def chromium() -> str:
    """Returns the path of Chromium or Chrome."""
    for name in CHROMIUM:
        if path := shutil.which(name):
            return path
    return missing_tool("there is no Chromium here: apt-get install chromium")


@cache
def axe_source() -> str:
    """Returns axe-core as JavaScript.

    It is found in the folder that RESNETKIT_AXE names, in node_modules here, or in
    ~/.cache/resnetkit/node_modules/axe-core.
    """
    named = os.environ.get("RESNETKIT_AXE")
    for folder in (Path(named),) if named else AXE_FOLDERS:
        if (folder / "axe.min.js").is_file():
            return (folder / "axe.min.js").read_text(encoding="utf-8")
    return missing_tool(
        "there is no axe-core here: npm install axe-core, and name its folder by RESNETKIT_AXE"
    )


def node() -> str:
    """Returns the path of a node that runs the modules: the system's, or that of playwright."""
    bundled = find_spec("playwright")
    ours = Path(bundled.origin).parent / "driver/node" if bundled and bundled.origin else None
    for path in (shutil.which("node"), ours):
        if path and node_version(str(path)) >= OLDEST_NODE:
            return str(path)
    return missing_tool(
        f"there is no node {'.'.join(map(str, OLDEST_NODE))} or later here: pip install playwright"
    )


@cache
def node_version(path: str) -> tuple[int, ...]:
    """Returns the version of a node; empty when it does not run."""
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    except OSError:
        return ()
    return tuple(map(int, re.findall(r"\d+", text.stdout)))


@contextmanager
def launched() -> "Iterator[Browser]":
    """Launches Chromium, which takes 2 seconds."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing_tool("playwright is not installed: pip install 'resnetkit[test]'")
    path = chromium()
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments, timeout=120_000)
        yield browser
        browser.close()


@contextmanager
def viewed(
    browser: "Browser",
    url: str,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    locale: str = "en-US",
    reduced_motion: bool = False,
    expected_errors: str | None = None,
    **options: Any,
) -> "Iterator[Page]":
    """Opens a page, and fails when it loads something foreign or writes an error to the console.

    Args:
        browser: of `launched`.
        url: of a file or of a server on this machine.
        width: of the window in pixels, one of `WIDTHS`.
        scheme: the preferred colors.
        locale: the preferred language.
        reduced_motion: whether less motion is preferred.
        expected_errors: a regular expression of the errors that the test provokes.
        **options: further ones of `Browser.new_context`.

    Raises:
        pytest.fail.Exception: at the end, with what the page should not have done.
    """
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHTS[width]},
        color_scheme=scheme,
        locale=locale,
        reduced_motion="reduce" if reduced_motion else "no-preference",
        **options,
    )
    complaints: list[str] = []
    context.on("request", lambda request: complaints.extend(foreign(request.url, url)))
    context.on("weberror", lambda error: complaints.append(f"uncaught: {error.error}"))
    context.on(
        "console",
        lambda message: message.type == "error" and complaints.append(f"console: {message.text}"),
    )
    try:
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.goto(url)
        yield page
        page.wait_for_timeout(0)  # receives the events that are still on their way
    finally:
        context.close()
    expected = re.compile(expected_errors or r"(?!)")
    unexpected = [complaint for complaint in complaints if not expected.search(complaint)]
    if unexpected:
        pytest.fail(f"{url}:\n" + "\n".join(unexpected))


def foreign(requested: str, page: str) -> list[str]:
    """Returns a complaint if a request leaves the origin of a page, else nothing."""
    here, there = urlsplit(page), urlsplit(requested)
    if there.scheme in ("data", "blob", "file") and not there.netloc:
        return []
    if (there.scheme, there.netloc) == (here.scheme, here.netloc):
        return []
    return [f"request: {requested}"]


def violations(page: "Page") -> list[str]:
    """Returns what axe-core finds: a line for each element that breaks a rule."""
    page.evaluate(axe_source())
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{rule['id']}: {rule['help']}: {' '.join(map(str, element['target']))}"
        for rule in found
        for element in rule["nodes"]
    ]


def scrolls_sideways(page: "Page") -> list[str]:
    """Returns the elements that reach beyond the right edge, if the page scrolls sideways."""
    elements: list[str] = page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            return [...document.querySelectorAll("body *")]
                .filter((element) => element.getBoundingClientRect().right > width + 0.5)
                .map((element) => element.outerHTML.slice(0, 80));
        }"""
    )
    return elements
