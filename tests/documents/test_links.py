"""Every link of the Markdown leads somewhere: to a file, and to a heading in it, as on GitHub."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from documents.blocks import documents
from documents.site import DOCS, ROOT, slugs

LINK = re.compile(r"(?<!`)\]\((?![a-z]+:)([^)\s]*)(?: \"[^\"]*\")?\)")
GENERATED = re.compile(r"^```\{(?!toctree|include)", re.MULTILINE)


def links_of(document: Path) -> list[str]:
    """Returns the targets of the links to files in a document."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return LINK.findall(text)


def leads_somewhere(document: Path, target: str) -> bool:
    """Returns whether a link leads to a file, and to one of its headings.

    Headings that are generated when the site is built are looked at there.
    """
    path, _, anchor = unquote(target).partition("#")
    file = (document.parent / path).resolve() if path else document
    if not file.exists():
        return False
    if not anchor or file.suffix != ".md" or GENERATED.search(file.read_text()):
        return True
    return anchor in slugs(file.read_text())


@pytest.mark.parametrize(
    "document", documents(ROOT), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    broken = [target for target in links_of(document) if not leads_somewhere(document, target)]
    assert broken == []


def test_links_are_found_and_judged(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Two Words: `code`\n\n[a](page.md#two-words-code) [b](#other) [c](no.md)"
        " [d](https://example.com)\n\n```\n[e](no.md)\n```\n"
    )
    assert links_of(page) == ["page.md#two-words-code", "#other", "no.md"]
    assert [leads_somewhere(page, target) for target in links_of(page)] == [True, False, False]


def test_the_documents_are_there() -> None:
    assert {ROOT / "README.md", ROOT / "CONTRIBUTING.md", DOCS / "index.md"} <= set(documents(ROOT))
