"""The site in both languages, built once for all tests and processes."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from documents.site import Build, build
from helpers.browser import OpenPage, launched, viewed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LANGUAGES = {"en": (".", ()), "ko": ("ko", ("-D", "language=ko"))}


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this session."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def builds(shared_folder: Path) -> dict[str, Build]:
    """The runs of Sphinx that built the site, by language."""
    pytest.importorskip("furo", reason="the site needs pip install 'resnetkit[docs]'")
    results = shared_folder / "builds.json"
    with FileLock(shared_folder / "builds.lock"):
        if not results.exists():
            runs = {
                language: build(shared_folder / "site" / folder, *options)
                for language, (folder, options) in LANGUAGES.items()
            }
            results.write_text(json.dumps({name: asdict(run) for name, run in runs.items()}))
    return {name: Build(**run) for name, run in json.loads(results.read_text()).items()}


@pytest.fixture(scope="session")
def site(shared_folder: Path, builds: dict[str, Build]) -> Path:
    """The folder of the English pages; those in Korean are below it."""
    for run in builds.values():
        assert run.returncode in (0, 1), (
            run.output
        )  # 1: warnings, which a test of their own reports
    return shared_folder / "site"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_page(browser: "Browser") -> OpenPage:
    """Opens a page as `helpers.browser.viewed`."""
    return partial(viewed, browser)
