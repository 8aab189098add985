"""Tests of pages in a browser: `browser` is launched once a module, `open_page` opens a page.

The browser does not outlive its module: while playwright runs, asyncio.run fails in this process.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from helpers.browser import OpenPage, launched, viewed

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_page(browser: "Browser") -> OpenPage:
    """Opens a page as `helpers.browser.viewed`: `with open_page(url, width=390) as page:`."""
    return partial(viewed, browser)
