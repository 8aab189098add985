"""Every link of the Markdown leads somewhere: to a file, and to a heading in it, as on GitHub."""

import re
from itertools import chain, count, pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from documents.blocks import DOCUMENTS

GENERATED = re.compile(r"^```\{(?!toctree|include)", re.MULTILINE)


def links_of(document: Path) -> list[str]:
    """Returns the targets of the links to files in a document, and of its pictures."""
    pieces = [piece for token in tokens_of(document) for piece in token.children or ()]
    targets = [str(piece.attrGet("href") or piece.attrGet("src") or "") for piece in pieces]
    return [target for target in targets if target and not urlsplit(target).scheme]


def anchors_of(document: Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a document."""
    tokens = tokens_of(document)
    anchors: set[str] = set()
    for opening, heading in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(piece.content for piece in heading.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            numbered = (f"{slug}-{number}" for number in count(1))
            anchors.add(next(name for name in chain([slug], numbered) if name not in anchors))
    return anchors


def tokens_of(document: Path) -> list[Token]:
    """Returns a document as Markdown is parsed."""
    return MarkdownIt("commonmark").parse(document.read_text())


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
    return anchor in anchors_of(file)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_of_a_document_leads_somewhere(name: str) -> None:
    document = DOCUMENTS[name]
    broken = [target for target in links_of(document) if not leads_somewhere(document, target)]
    assert broken == []


def test_links_are_found_and_judged(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Two Words: `code`\n\n# Two words: [code](#two-words-code)\n\n"
        "[a](page.md#two-words-code-1) [b](#other) ![c](no.svg) [d](https://example.com)\n\n"
        "```\n[e](no.md)\n```\n"
    )
    links = ["#two-words-code", "page.md#two-words-code-1", "#other", "no.svg"]
    assert links_of(page) == links
    assert [leads_somewhere(page, link) for link in links] == [True, True, False, False]


def test_the_documents_are_there() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/use/serve.md"} <= set(DOCUMENTS)
