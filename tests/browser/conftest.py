"""Tests of pages in a browser: `browser` is launched once, `open_page` opens a page.

The browser does not outlive the tests of this folder, which one process runs after each other:
while playwright runs, asyncio.run fails in this process.
"""

from collections.abc import Generator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.browser import OpenPage, launched, viewed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RUNNING = pytest.StashKey[tuple[ExitStack, "Browser"]]()


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> "Browser":
    """A headless Chromium."""
    stash = request.config.stash
    if RUNNING not in stash:
        with ExitStack() as stack:
            browser = stack.enter_context(launched())
            stash[RUNNING] = stack.pop_all(), browser
    return stash[RUNNING][1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """Closes the browser after the last test of this folder."""
    yield
    leaves = nextitem is None or Path(__file__).parent not in nextitem.path.parents
    if leaves and RUNNING in item.config.stash:
        item.config.stash[RUNNING][0].close()
        del item.config.stash[RUNNING]


@pytest.fixture
def open_page(browser: "Browser") -> OpenPage:
    """Opens a page as `helpers.browser.viewed`: `with open_page(url, width=390) as page:`."""
    return partial(viewed, browser)
