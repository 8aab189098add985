"""The documentation site as files: how it is built, its pages, and where their links lead."""

import resource
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from documents.blocks import ROOT

__all__ = ["DOCS", "Build", "Page", "broken", "build", "pages", "read_page"]

DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Build:
    """A run of Sphinx.

    Attributes:
        output: of both streams.
        processor_seconds: of all its processes.
    """

    returncode: int
    output: str
    processor_seconds: float


def build(out: Path, *options: str, source: Path = DOCS) -> Build:
    """Builds the site strictly, with the configuration of the documentation."""
    command = [sys.executable, "-m", "sphinx", "-n", "-q", "-c", str(DOCS), *options]
    command += ["-d", str(out.parent / f"{out.name}-doctrees"), str(source), str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Build(done.returncode, done.stdout + done.stderr, seconds)


@dataclass
class Page(HTMLParser):
    """What a page of HTML refers to.

    Attributes:
        ids: of its elements.
        links: addresses that a reader may follow.
        loaded: addresses that the browser loads by itself.
    """

    ids: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag == "link" and "stylesheet" in values.get("rel", ""):
            self.loaded.add(values["href"])
        if "src" in values:
            self.loaded.add(values["src"])


@cache
def read_page(path: Path) -> Page:
    """Reads a page of HTML."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def pages(site: Path) -> list[Path]:
    """Returns the pages of a site, without those of another language in a folder of it."""
    found = (path for path in site.rglob("*.html") if "_static" not in path.parts)
    return sorted(path for path in found if path.relative_to(site).parts[0] != "ko")


def broken(page: Path, address: str) -> bool:
    """Returns whether a link of a page leads to a file or an anchor that is not there."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return False
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return True
    if not parts.fragment or target.suffix != ".html":
        return False
    return unquote(parts.fragment) not in read_page(target).ids
